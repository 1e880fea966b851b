"""Traps of flow rules."""

from __future__ import annotations

import dataclasses

import pytest

from nicoffload.compiler import Compiler
from nicoffload.driver import Placement, RuleRef
from nicoffload.errors import ConflictError, InvalidRequestError, NotSupportedError, ResourceExhaustedError
from nicoffload.kernel.ntuple import NtupleTable
from nicoffload.kernel.tc import Placing
from nicoffload.linux.flower import FlowerTables
from nicoffload.model import Drop, FlowRule, Match, ToQueue, ToUplink, ToVf
from nicoffload.testing.conformance.packets import to_batch
from tests.linux.plugged import live
from tests.linux.traps import replaced, trap, without_fact

TCP = {"eth_type": 0x0800, "ip_proto": 6}
FULL = {**TCP, "ipv4_src": "10.0.0.9", "ipv4_dst": "10.0.0.1", "tp_src": 1000}


def rule(*actions, priority=None, **fields):
    """Return a rule."""
    return FlowRule(match=Match.of(**fields), actions=actions, priority=priority)


def compiler(nic, *names):
    """Return a compiler for some tables as they are, all where none is named."""
    filters = nic.driver.flow_filters
    states = [state for state in filters.tables() if not names or state.table.name in names]
    return Compiler(states, filters.dump(), vfs=4, queues=8, vf_queues=4)


def why_not(nic, asked, *names):
    """Return the codes of the reasons against a rule; none where it has a place."""
    answer = compiler(nic, *names).lower(asked)
    return set() if isinstance(answer, Placement) else {reason.code for reason in answer.reasons}


@trap(
    "ixgbe",
    does="The first rule fixes the mask of the whole port; a rule with another one is EINVAL.",
    instead="The compiler knows the mask of the rules that stand, of anybody, and says it before the driver is asked.",
    by="nicoffload.compiler.obstacles",
    off=replaced("nicoffload.compiler.obstacles._by_others", lambda verdict, rule: []),
)
def one_mask_per_port():
    nic = live("ixgbe", prepared=True, vfs=4)
    nic.put("fdir", ToVf(vf=0), slot=0, flow_type="tcp4", ipv4_dst="10.0.0.1", tp_dst=80, **TCP)
    assert why_not(nic, rule(ToVf(vf=1), ipv4_dst="10.0.0.0/8", **TCP), "fdir") == {"mask.second"}
    assert not why_not(nic, rule(ToVf(vf=1), ipv4_dst="10.0.0.2", tp_dst=81, **TCP), "fdir")


def _one_input_set(family):
    nic = live(family, prepared=True, vfs=4, **({"mode": "legacy"} if family == "ice" else {}))
    nic.put("fdir", Drop(), slot=0, flow_type="tcp4", ipv4_dst="10.0.0.1", tp_dst=80, **TCP)
    assert why_not(nic, rule(Drop(), ipv4_dst="10.0.0.1", **TCP), "fdir") == {"mask.second"}
    # Another flow type has a set of its own.
    udp = rule(Drop(), eth_type=0x0800, ip_proto=17, ipv4_dst="10.0.0.1")
    assert not why_not(nic, udp, "fdir")


@trap(
    "i40e",
    does="All rules of a flow type compare the same fields; a rule with others is EOPNOTSUPP.",
    instead="The compiler knows the fields of each flow type's rules and says it before the driver is asked.",
    by="nicoffload.compiler.obstacles",
    off=replaced("nicoffload.compiler.obstacles._second_input_set", lambda verdict: ()),
)
def one_input_set_per_flow_type_i40e():
    _one_input_set("i40e")


@trap(
    "ice",
    does="All rules of a flow type compare the same fields; a rule with others is EINVAL.",
    instead="The compiler knows the fields of each flow type's rules and says it before the driver is asked.",
    by="nicoffload.compiler.obstacles",
    off=replaced("nicoffload.compiler.obstacles._second_input_set", lambda verdict: ()),
)
def one_input_set_per_flow_type_ice():
    _one_input_set("ice")


@trap(
    "ixgbe",
    does="EINVAL says a second mask, a VF, a queue or a slot that does not exist.",
    instead="What stands in the table and what exists say which of them it is; the error has that class.",
    by="nicoffload.linux.errnos",
    off=replaced("nicoffload.linux.mechanism.Mechanism.refused", lambda self, error, placement: error),
)
def one_errno_for_many_things():
    nic = live("ixgbe", prepared=True, vfs=4)
    nic.put("fdir", ToVf(vf=0), slot=0, flow_type="tcp4", ipv4_dst="10.0.0.1", tp_dst=80, **TCP)
    mask = nic.put("fdir", ToVf(vf=1), slot=1, flow_type="tcp4", ipv4_dst="10.0.0.0/8", **TCP)
    assert isinstance(mask, NotSupportedError)
    assert [reason.code for reason in mask.reasons] == ["driver.second_mask"]
    vf = nic.put("fdir", ToVf(vf=7), slot=1, flow_type="tcp4", ipv4_dst="10.0.0.2", tp_dst=80, **TCP)
    assert vf.code == "not_found"


@trap(
    "mlx5",
    does="ENOSPC says that a location does not exist, as well as that the table is full.",
    instead="The size of the table and what is in it say which; a location that does not exist is a wrong request.",
    by="nicoffload.linux.errnos",
    off=replaced("nicoffload.linux.mechanism.Mechanism.refused", lambda self, error, placement: error),
)
def enospc_of_a_wrong_location():
    nic = live("mlx5", prepared=True, vfs=2)
    answer = nic.put("ntuple", Drop(), slot=1024, flow_type="tcp4", ipv4_dst="10.0.0.1", **TCP)
    assert isinstance(answer, InvalidRequestError)


@trap(
    "mlx5",
    does="A flow type that ntuple has not is error 524 (ENOTSUPP), which user space has no name for.",
    instead="It is an unsupported rule, with the number.",
    by="nicoffload.errors, nicoffload.linux.errnos",
    off=replaced("nicoffload.linux.mechanism.Mechanism.refused", lambda self, error, placement: error),
)
def errno_524():
    nic = live("mlx5", prepared=True, vfs=2)
    asked = {"slot": 0, "flow_type": "sctp4", "eth_type": 0x0800, "ip_proto": 132, "ipv4_dst": "10.0.0.1"}
    answer = nic.put("ntuple", ToQueue(queue=1), **asked)
    assert isinstance(answer, NotSupportedError)
    assert answer.errno == 524
    assert answer.reasons[0].code == "driver.flow_type"


@trap(
    "i40e",
    does="The caller picks the location, and a rule in one that is taken replaces what was there.",
    instead="The compiler gives the lowest location that nobody uses; one that was taken since is refused.",
    by="nicoffload.linux.ntuple.NtupleTables._taken",
    off=replaced("nicoffload.linux.ntuple.NtupleTables._taken", lambda self, table, placements: set()),
)
def caller_picks_the_location():
    nic = live("i40e", prepared=True)
    asked = {"flow_type": "tcp4", "tp_dst": 80, **TCP}
    nic.put("fdir", Drop(), slot=0, ipv4_dst="10.0.0.1", **asked)
    assert compiler(nic, "fdir").lower(rule(Drop(), ipv4_dst="10.0.0.2", tp_dst=80, **TCP)).slot == 1
    assert isinstance(nic.put("fdir", Drop(), slot=0, ipv4_dst="10.0.0.2", **asked), ConflictError)
    [kept] = nic.driver.flow_filters.dump()
    assert kept.rule.match == Match.of(ipv4_dst="10.0.0.1", tp_dst=80, **TCP)


@trap(
    "igb_i210",
    does="A rule in a location that is taken forgets the one before it and leaves its filter in the hardware.",
    instead="A location is emptied before it is used again.",
    by="nicoffload.linux.ntuple.NtupleTables._taken",
    off=replaced("nicoffload.linux.ntuple.NtupleTables._taken", lambda self, table, placements: set()),
)
def overwritten_location_stays_in_hardware():
    nic = live("igb_i210")
    nic.put("ntuple", ToQueue(queue=0), slot=0, flow_type="ether", eth_type=0x88F7)
    answer = nic.put("ntuple", ToQueue(queue=1), slot=0, flow_type="ether", eth_type=0x0806)
    assert isinstance(answer, ConflictError)


def _in_location_0(self, item, *, driver_chooses=False, was=NtupleTable.insert):
    return was(self, dataclasses.replace(item, location=0))


@trap(
    "sfc_siena",
    does="The driver picks the location and takes no other request than one without.",
    instead="None is asked for, and the one that comes back is the rule's.",
    by="nicoffload.linux.ntuple.NtupleTables._insert",
    off=replaced("nicoffload.linux.ntuple.NtupleTable.insert", _in_location_0),
)
def driver_picks_the_location():
    nic = live("sfc_siena", prepared=True)
    ref = nic.put("rx_ip", ToQueue(queue=1), flow_type="tcp4", tp_dst=80, **FULL)
    assert isinstance(ref, RuleRef), ref
    assert [each.ref.slot for each in nic.driver.flow_filters.dump()] == [ref.slot]
    assert nic.driver.flow_filters.destroy_many([ref]) == [None]


@trap(
    "mlx4",
    does="The location is the priority: of two rules that overlap, the lower location wins.",
    instead="Locations are given out in the order of priorities, with room between them.",
    by="nicoffload.compiler.slots",
    off=replaced(
        "nicoffload.compiler.compiler.slot_by_priority", lambda verdict, rule: verdict.bank.lowest_free()
    ),
)
def location_is_priority():
    nic = live("mlx4", prepared=True)
    low = rule(ToQueue(queue=1), priority=10, ipv4_dst="10.0.0.1", **TCP)
    high = rule(ToQueue(queue=2), priority=20, ipv4_dst="10.0.0.1", tp_dst=80, **TCP)
    placements = compiler(nic, "ntuple").place_many([low, high])
    assert all(isinstance(each, Placement) for each in placements)
    assert placements[1].slot < placements[0].slot


@trap(
    "i40e",
    does="The location says nothing of precedence, and nothing else does.",
    instead="A rule with a priority is refused where a table keeps none, and the answer says what decides.",
    by="nicoffload.compiler.actions",
    off=replaced("nicoffload.compiler.actions._priority", lambda table, rule: []),
)
def location_is_no_priority():
    nic = live("i40e", prepared=True)
    asked = rule(Drop(), priority=7, ipv4_dst="10.0.0.1", tp_dst=80, **TCP)
    assert "priority.unsupported" in why_not(nic, asked, "fdir")


def _widened(nic, table, **fields):
    assert {"mask.widened", "field.ignored"} & why_not(nic, rule(Drop(), **fields), table)


_BLIND_TO_MASKS = replaced("nicoffload.compiler.fields._mask", lambda judged, name, mask, rule: None)


@trap(
    "igb_i210",
    does="A mask that is not all ones is accepted and the field is not compared: the rule catches more than it says.",
    instead="Refused before the driver is asked.",
    by="nicoffload.compiler.fields",
    off=_BLIND_TO_MASKS,
)
def widened_by_a_partial_mask():
    nic = live("igb_i210")
    asked = rule(ToQueue(queue=1), eth_type="0x8800/0xff00")
    assert "mask.widened" in why_not(nic, asked, "ntuple")


@trap(
    "i40e",
    does="A VLAN counts only with a full mask of the whole tag, and is ignored with any other.",
    instead="Refused before the driver is asked.",
    by="nicoffload.compiler.fields",
    off=replaced("nicoffload.compiler.fields._together", lambda judged, group: iter(())),
)
def widened_by_a_part_of_a_vlan():
    nic = live("i40e", prepared=True)
    asked = rule(Drop(), ipv4_dst="10.0.0.1", tp_dst=80, vlan_vid=5, **TCP)
    assert "field.ignored" in why_not(nic, asked, "fdir")


@trap(
    "ice",
    does="The VLAN of a rule for IP is accepted and not compared.",
    instead="Refused before the driver is asked.",
    by="nicoffload.compiler.fields",
    off=_BLIND_TO_MASKS,
)
def widened_by_a_vlan_beside_ip():
    nic = live("ice", prepared=True, mode="legacy")
    asked = rule(Drop(), ipv4_dst="10.0.0.1", tp_dst=80, vlan_vid=5, **TCP)
    assert "field.ignored" in why_not(nic, asked, "fdir")


@trap(
    "igb_i210",
    does="A rule with two fields becomes two filters: it catches what has either of them.",
    instead="Refused before the driver is asked.",
    by="nicoffload.compiler.fields",
    off=replaced("nicoffload.compiler.fields._combination", lambda judged: iter(())),
)
def widened_by_a_second_field():
    nic = live("igb_i210")
    asked = rule(ToQueue(queue=1), eth_type=0x88F7, eth_dst="02:00:00:00:00:01")
    assert "mask.widened" in why_not(nic, asked, "ntuple")


@trap(
    "sfc_siena",
    does="A hash table says EBUSY when no row near the rule's own is free, long before it is full.",
    instead="It is exhausted, with its size and what is in it, and not tried again as a NIC that is busy would be.",
    by="nicoffload.linux.errnos",
    off=replaced("nicoffload.linux.mechanism.Mechanism.refused", lambda self, error, placement: error),
)
def hash_is_busy_before_it_is_full():
    nic = live("sfc_siena", prepared=True)
    placements = [
        Placement(rule(ToQueue(queue=1), eth_dst=0x02_00_00_00_00_00 + at * 7), "rx_mac", "ether", None)
        for at in range(512)
    ]
    outcomes = nic.driver.flow_filters.create_many(placements)
    refused = [each for each in outcomes if isinstance(each, Exception)]
    assert {type(each) for each in refused} == {ResourceExhaustedError}
    assert {(each.errno, each.limit) for each in refused} == {(16, 512)}


@trap(
    "sfc_siena",
    does="A rule with the same match as another replaces it without a word, whoever's that is.",
    instead="Refused as a conflict, and the other stays.",
    by="nicoffload.linux.ntuple.NtupleTables._refuse_twin",
    off=replaced("nicoffload.linux.ntuple.NtupleTables._refuse_twin", lambda self, placement, standing: None),
)
def equal_rule_is_replaced():
    nic = live("sfc_siena", prepared=True)
    nic.put("rx_ip", ToQueue(queue=1), flow_type="tcp4", tp_dst=80, **FULL)
    assert isinstance(nic.put("rx_ip", Drop(), flow_type="tcp4", tp_dst=80, **FULL), ConflictError)
    [kept] = nic.driver.flow_filters.dump()
    assert kept.rule.actions == (ToQueue(queue=1),)


@trap(
    "sfc_ef10",
    does="The size that the driver tells is the range of its ids, not how many rules there is room for.",
    instead="The profile's number of rows is told.",
    by="nicoffload.linux.ntuple.NtupleTables.states",
    off=without_fact(
        "sfc_ef10",
        lambda profile: dataclasses.replace(
            profile,
            tables=tuple(dataclasses.replace(table, picker="caller") for table in profile.tables),
        ),
    ),
)
def range_of_ids_is_no_capacity():
    nic = live("sfc_ef10", prepared=True)
    assert nic.table("filters").rows == 8192


@trap(
    "igb_i350",
    does="Making VFs takes all queues but one from the PF, and rules that name them stay.",
    instead="Refused while such rules are there, with their queues.",
    by="nicoffload.linux.functions.LinuxFunctions._refuse_if_queues_go",
    off=replaced("nicoffload.linux.functions.LinuxFunctions._refuse_if_queues_go", lambda self, count: None),
)
def vfs_take_the_queues_of_rules():
    nic = live("igb_i350")
    nic.put("ntuple", ToQueue(queue=3), slot=0, flow_type="ether", eth_type=0x88F7)
    with pytest.raises(ConflictError, match="queue 3"):
        nic.driver.virtual_functions.set_count(2)


@trap(
    "ixgbe",
    does="The queue of a VF is counted by the PF's queues, where the hardware keeps more for each VF: "
    "a rule reaches another VF. That is concluded from the source, not seen.",
    instead="The answer to the rule says which VF the packets reach.",
    by="nicoffload.compiler.verdict",
    off=replaced("nicoffload.compiler.verdict._reaches_other", lambda table, rule, vfs, queues: iter(())),
)
def queue_of_another_vf():
    nic = live("ixgbe", prepared=True, vfs=4, pf_queues=2)
    filters = nic.driver.flow_filters
    asked = rule(ToVf(vf=3), ipv4_dst="10.0.0.1", tp_dst=80, **TCP)
    known = Compiler(filters.tables(), vfs=4, queues=filters.queues().pf, vf_queues=None)
    placement = known.lower(asked)
    assert placement.table == "fdir"
    assert any("reach VF 1, not VF 3" in caveat for caveat in placement.caveats)
    assert filters.create_many([placement])[0].slot == placement.slot
    [entry] = nic.hardware.table("fdir").entries.values()
    assert entry.plan.port == 3
    # With as many queues as the NIC keeps, the VF is the one that was asked for.
    enough = Compiler(filters.tables(), vfs=4, queues=4, vf_queues=None).lower(asked)
    assert not any("reach VF" in caveat for caveat in enough.caveats)


def _for_both(self, rule, targets, was=FlowerTables.lower):
    return dataclasses.replace(was(self, rule, targets), placing=Placing.BOTH)


@trap(
    "mlx5",
    does="tc keeps a rule that the driver refuses in software and says that all is well.",
    instead="Rules go to the hardware alone, so that a refusal is an error.",
    by="nicoffload.linux.flower.FlowerTables.lower",
    off=replaced("nicoffload.linux.flower.FlowerTables.lower", _for_both),
)
def tc_hides_a_refusal():
    fault = {"effect": {"kind": "answer", "operation": "flow_create", "errno": "EOPNOTSUPP"}}
    nic = live("mlx5", prepared=True, vfs=2, faults=[fault])
    answer = nic.put("flower_fdb", ToVf(vf=1), flow_type="tcp4", ipv4_dst="10.0.0.1", tp_dst=80, **TCP)
    assert isinstance(answer, NotSupportedError), answer


@trap(
    "ixgbe",
    does="tc hides the refusal of a rule of u32 even where it is for the hardware alone.",
    instead="Each is read back, and one that is not in hardware is taken out and explained.",
    by="nicoffload.linux.u32.U32Tables._verify",
    off=replaced(
        "nicoffload.linux.u32.U32Tables._verify", lambda self, filters, placements, items, outcomes: None
    ),
)
def tc_hides_a_refusal_of_u32():
    nic = live("ixgbe", prepared=True, vfs=4)
    nic.put("u32", ToVf(vf=2), slot=5, flow_type="tcp4", ipv4_dst="10.0.0.1", tp_dst=80, **TCP)
    answer = nic.put("u32", ToVf(vf=2), slot=6, flow_type="ip4", eth_type=0x0800, ipv4_dst="10.0.0.2")
    assert isinstance(answer, NotSupportedError)
    assert len(nic.driver.flow_filters.dump()) == 1


def _packet(source, destination, sport, dport):
    return {
        **TCP,
        "eth_src": 2,
        "eth_dst": 4,
        "ipv4_src": source,
        "ipv4_dst": destination,
        "tp_src": sport,
        "tp_dst": dport,
        "ip_ttl": 64,
    }


@trap(
    "mlx5",
    does="A rule hangs on one device: what comes from the wire and what a VF sends are two of them.",
    instead="A rule that names no port is for the wire; the way back is a rule of its own with the VF as its port, "
    "and each is hit by its own packets alone.",
    by="nicoffload.linux.flower",
    off=replaced("nicoffload.linux.flower._port", lambda rule: None),
)
def two_rules_for_both_directions():
    nic = live("mlx5", prepared=True, vfs=4)
    there = nic.put("flower_fdb", ToVf(vf=2), flow_type="tcp4", ipv4_dst="10.0.0.1", tp_dst=80, **TCP)
    back = nic.put(
        "flower_fdb", ToUplink(), flow_type="tcp4", in_port=4, ipv4_src="10.0.0.1", tp_src=80, **TCP
    )
    ports = [each.rule.match.in_port for each in nic.driver.flow_filters.dump([there, back])]
    assert [port and port.value for port in ports] == [None, 4]
    device = nic.hardware
    batch = to_batch([_packet(9, 0x0A000001, 1000, 80), _packet(0x0A000001, 9, 80, 1000)], device.now_ns)
    assert device.receive(batch, 0, 1, 0).tolist() == [4]
    assert device.receive(batch, 1, 2, 4).tolist() == [0]
    counters = nic.driver.flow_filters.read_counters([there, back])
    assert counters.packets.tolist() == [1, 1]
