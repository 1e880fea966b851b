"""The data path without eBPF: real packets, counters against what was sent, capacity, guards, limits and crashes."""

from __future__ import annotations

import contextlib
import errno
import os
import random
import re

import pytest
import softrig
from packets import MACS, arp, ip4
from softrules import configure, counted_of_vf, exact, placed, rule

from nicoffload.errors import (
    AccessDeniedError,
    ConflictError,
    InvalidRequestError,
    KernelError,
    NotFoundError,
    NotSupportedError,
    Reason,
    ResourceExhaustedError,
)
from nicoffload.kernel.linux import LinuxKernel
from nicoffload.model import (
    FlowRule,
    Match,
    RateLimit,
    ToUplink,
    ToVf,
    VfConfig,
    VlanTag,
)
from nicoffload_softnic import build, names
from nicoffload_softnic.commands import COMMANDS

softrig.skip_without_namespaces()
pytestmark = [pytest.mark.root, pytest.mark.xdist_group("softnic")]


@pytest.fixture(scope="module")
def softnic(tmp_path_factory):
    with softrig.rig(tmp_path_factory.mktemp("state"), data_path="u32") as made:
        yield made


@pytest.fixture
def driver(softnic, nic):
    opened = softnic.driver()
    yield opened
    opened.close()


def test_ports_behind_options_are_not_compared(softnic, nic):
    frame = ip4(options=b"\1\1\1\0")
    (added,) = nic.add_flows([rule(ToVf(vf=1), **exact())]).installed
    assert softnic.sent_and_seen("wire", frame) == {"pf": [frame]}
    assert nic.flow_stats([added.rule.rule_id]).row(0).packets == 0


def test_counters_are_exactly_what_was_sent(softnic, nic):
    chooser = random.Random(7)
    sent = {}
    added = nic.add_flows(
        [
            rule(ToVf(vf=at % 2), **exact(ipv4_src=0xC000_0200 + at // 4, tp_src=1000 + at % 4))
            for at in range(200)
        ]
    ).installed
    for _ in range(800):
        at, size = chooser.randrange(200), chooser.randrange(18, 1400)
        frame = ip4(src=f"192.0.2.{at // 4}", sport=1000 + at % 4, payload=b"z" * size)
        softnic.send("wire", frame)
        packets, octets = sent.get(at, (0, 0))
        sent[at] = (packets + 1, octets + len(frame) - 14)
    softnic.sent_and_seen("wire", ip4(src="198.51.100.1"))  # what was sent before has arrived then
    counters = nic.flow_stats([each.rule.rule_id for each in added])
    found = {at: (int(counters.packets[at]), int(counters.bytes[at])) for at in range(200)}
    assert found == {at: sent.get(at, (0, 0)) for at in range(200)}


def test_a_table_is_full_at_exactly_its_rows_though_all_are_in_one_bucket(tmp_path):
    with (
        softrig.rig(tmp_path, vfs=1, rows=4095, data_path="u32") as rig,
        contextlib.closing(rig.driver()) as driver,
    ):
        filters = driver.flow_filters
        made = [rule(ToVf(vf=0), ipv4_dst=at << 8 | 7) for at in range(0x0A_0000, 0x0A_0000 + 4100)]
        outcomes = filters.create_many(placed(made))
        refused = [one for one in outcomes if isinstance(one, Exception)]
        assert [isinstance(one, Exception) for one in outcomes] == [False] * 4095 + [True] * 5
        assert {type(one) for one in refused} == {ResourceExhaustedError}
        assert (refused[0].limit, refused[0].in_use) == (4095, 4095)
        assert filters.tables()[0].in_use == len(filters.dump()) == 4095
        frame = ip4(dst="10.0.5.7")
        assert rig.sent_and_seen("wire", frame) == {"vf0": [frame]}
        assert filters.destroy_many(outcomes[:1]) == [None]
        (again,) = filters.create_many(placed([rule(ToVf(vf=0), **exact())]))
        assert not isinstance(again, Exception)


def test_the_same_match_twice_and_a_field_that_u32_lacks_are_refused(driver):
    filters = driver.flow_filters
    first = rule(ToVf(vf=0), **exact())
    twin = rule(ToVf(vf=1), **exact())
    same_id = FlowRule(match=Match.of(**exact(tp_src=1)), actions=first.actions, rule_id=first.rule_id)
    tagged = rule(ToVf(vf=0), **exact(vlan_vid=5))
    outcomes = filters.create_many(placed([first, twin, same_id, tagged]))
    assert [type(one) for one in outcomes[1:]] == [ConflictError, ConflictError, NotSupportedError]
    assert outcomes[3].path == "/match/vlan_vid"
    assert filters.destroy_many([outcomes[0]]) == [None]
    (answer,) = filters.destroy_many([outcomes[0]])
    assert isinstance(answer, NotFoundError)


def test_the_33rd_class_is_refused_and_an_empty_one_makes_room(driver):
    filters = driver.flow_filters
    made = [rule(ToVf(vf=0), eth_type=0x0800, ipv4_dst=f"10.0.0.0/{bits}") for bits in range(1, 33)]
    outcomes = filters.create_many(placed(made))
    assert not any(isinstance(one, Exception) for one in outcomes)
    (refused,) = filters.create_many(placed([rule(ToVf(vf=0), **exact())]))
    assert isinstance(refused, ResourceExhaustedError)
    filters.destroy_many(outcomes[:1])
    (taken,) = filters.create_many(placed([rule(ToVf(vf=0), **exact())]))
    assert not isinstance(taken, Exception)
    filters.destroy_many([*outcomes[1:], taken])


def test_spoof_check_drops_a_foreign_source(softnic, nic):
    configure(nic, mac=MACS["src"], spoof_check=True)
    assert softnic.sent_and_seen("vf0", ip4()) == {"r0": [ip4()]}
    before = counted_of_vf(nic, "tx_dropped")
    for bit in range(48):
        foreign = MACS["src"] ^ 1 << bit
        assert softnic.sent_and_seen("vf0", ip4()[:6] + foreign.to_bytes(6, "big") + ip4()[12:]) == {}
    assert counted_of_vf(nic, "tx_dropped") == before + 48
    configure(nic, spoof_check=False)
    forged = ip4()[:6] + b"\2\0\0\0\0\x99" + ip4()[12:]
    assert softnic.sent_and_seen("vf0", forged) == {"r0": [forged]}


def test_the_address_filter_lets_through_its_own_and_groups_unless_trusted(softnic, nic):
    mac = 0x02_00_00_00_00_77
    configure(nic, mac=mac)
    nic.add_flows([rule(ToVf(vf=0), eth_type=0x0806)])
    mine, group = arp(dst=mac), arp(dst=0xFFFF_FFFF_FFFF)
    assert softnic.sent_and_seen("wire", mine) == {"vf0": [mine]}
    assert softnic.sent_and_seen("wire", group) == {"vf0": [group]}
    before = counted_of_vf(nic, "rx_dropped")
    foreign = [arp(dst=mac ^ 1 << bit) for bit in range(48) if bit != 40]  # bit 40 is that of groups
    assert [softnic.sent_and_seen("wire", frame) for frame in foreign] == [{}] * 47
    assert counted_of_vf(nic, "rx_dropped") == before + 47
    configure(nic, trust=True)
    assert softnic.sent_and_seen("wire", foreign[0]) == {"vf0": [foreign[0]]}


def test_a_reset_keeps_rules_and_guards(tmp_path):
    with (
        softrig.rig(tmp_path, data_path="u32") as rig,
        rig.open() as nic,
        contextlib.closing(rig.driver()) as driver,
    ):
        frame, mine = ip4(), arp(dst=MACS["src"])
        to_it = rule(ToVf(vf=1), eth_dst=MACS["src"])
        nic.add_flows([rule(ToUplink(), in_port="vf:1", ipv4_dst="10.0.0.1"), to_it])
        nic.configure_vfs([VfConfig(vf=1, mac=MACS["src"])])
        epoch = nic.flow_stats([to_it.rule_id]).row(0).epoch
        with LinuxKernel().namespace(f"/run/netns/{rig.home}"):
            driver.virtual_functions.reset(1)
        ifname = names.vf(rig.name, 1)
        softrig.run(f"ip -n {rig.home} link set dev {ifname} netns {rig.vms[1]}")
        softrig.run(f"ip -n {rig.vms[1]} link set dev {ifname} up")
        rig.taps["vf1"].close()
        with contextlib.closing(softrig.Tap(rig.vms[1], ifname)) as tap:
            rig.taps["vf1"] = tap
            assert rig.sent_and_seen("vf1", frame) == {"wire": [frame]}
            assert rig.sent_and_seen("vf1", frame[:6] + b"\2\0\0\0\0\x99" + frame[12:]) == {}
            assert rig.sent_and_seen("r1", mine) == {"vf1": [mine]}
            assert rig.sent_and_seen("r1", arp()) == {}
            assert rig.sent_and_seen("wire", mine) == {"vf1": [mine]}
        counted = nic.flow_stats([to_it.rule_id]).row(0)
        assert counted.packets == 1
        assert counted.epoch != epoch


def test_what_it_lacks_is_refused_with_the_reason(softnic, nic):
    for call in (
        lambda: configure(nic, vlan=VlanTag(vid=5)),
        lambda: nic.set_rates({0: RateLimit(min_tx_bps=1_000_000)}),
        lambda: nic.add_flows([rule(ToVf(vf=0), vlan_vid=5)]),
    ):
        with pytest.raises(NotSupportedError) as caught:
            call()
        assert all(isinstance(reason, Reason) and reason.message for reason in caught.value.reasons)
    support = {one.name: one.support.value for one in nic.capabilities()}
    assert (support["vf.vlan"], support["rates.min_tx"], support["rates.max_tx"]) == ("no", "no", "yes")


def test_a_limit_holds_for_what_a_vf_sends_whichever_way_it_leaves(tmp_path):
    with softrig.rig(tmp_path, data_path="u32") as rig, rig.open() as nic:
        frame = ip4(payload=b"z" * 1400)
        nic.add_flows([rule(ToUplink(), in_port="vf:0", ipv4_dst="10.0.0.1")])
        nic.set_rates({0: RateLimit(max_tx_bps=100_000)})
        ways, sent = [frame, ip4(dst="10.0.0.2", payload=b"z" * 1400)], 0
        for at in range(400):  # 577 kB; 65 kB may go at once, and more only in five seconds each
            with contextlib.suppress(BlockingIOError):  # the socket's memory is full of what waits
                rig.send("vf0", ways[at % 2])
                sent += 1
        by_wire, by_representor = (len(rig.taps[tap].frames()) for tap in ("wire", "r0"))
        assert 0 < by_wire < sent
        assert 0 < by_representor < sent
        assert by_wire + by_representor < min(sent, 150)
        assert rig.sent_and_seen("vf1", frame) == {"r1": [frame]}


def test_two_processes_see_each_others_rules(softnic, nic):
    here = softnic.driver()
    there = softnic.driver()
    assert here.flow_filters.tables()[0].in_use == 0
    (ref,) = there.flow_filters.create_many(placed([rule(ToVf(vf=0), **exact())]))
    assert here.flow_filters.tables()[0].in_use == 1
    assert here.flow_filters.destroy_many([ref]) == [None]
    assert there.flow_filters.tables()[0].in_use == 0
    for driver in (here, there):
        driver.close()


class NoBpf(LinuxKernel):
    """This kernel, as one without bpf(2)."""

    def bpf(self, command, attributes):
        raise OSError(38, f"no command {command}")


@pytest.mark.parametrize(("kernel", "taken"), [(NoBpf(), "u32"), (LinuxKernel(), "ebpf")])
def test_auto_takes_ebpf_where_it_works_and_says_why(tmp_path, kernel, taken):
    if taken == "ebpf":
        softrig.skip_without_root()
    with softrig.rig(tmp_path, vfs=0, data_path="u32") as rig:
        build.destroy(kernel, rig.name)
        made = build.create(kernel, build.Wanted(name=rig.name, vfs=1))
        assert made.data_path == taken
        assert "eBPF" in made.why
        (found,) = [one for one in build.find_all(kernel) if one.name == rig.name]
        assert (found.data_path, found.rows, found.problem) == (
            taken,
            {"u32": 4095, "ebpf": 65_536}[taken],
            "",
        )


class Refusing(LinuxKernel):
    """This kernel, as one that refuses a command of bpf(2)."""

    def __init__(self, command, number, flags=0):
        super().__init__()
        self.refused = (command, number, flags)

    def bpf(self, command, attributes):
        refused, number, flags = self.refused
        asked = int.from_bytes(attributes[16:20], "little")
        if command == refused and asked & flags == flags:
            raise OSError(number, os.strerror(number))
        return super().bpf(command, attributes)


CREATE, LOAD, BIND_MAP, MMAPABLE = 0, 5, 35, 1 << 10


@pytest.mark.parametrize(
    ("refusal", "why"),
    [
        ((CREATE, errno.EINVAL, MMAPABLE), r"making map \w+ \(EINVAL\)"),
        ((LOAD, errno.EACCES), "verifier refuses program"),
        ((BIND_MAP, errno.EINVAL), r"binding map \w+ \(EINVAL\)"),
    ],
)
def test_auto_takes_u32_where_the_kernels_ebpf_is_not_enough(refusal, why):
    softrig.skip_without_root()
    kernel, name = Refusing(*refusal), f"a{os.getpid() % 100000:x}"
    try:
        made = build.create(kernel, build.Wanted(name=name, vfs=0))
        assert made.data_path == "u32"
        assert re.search(why, made.why)
    finally:
        softrig.destroy_if_there(LinuxKernel(), name)
    with pytest.raises(NotSupportedError, match="not enough for the data path"):
        build.create(kernel, build.Wanted(name=name, vfs=0, data_path="ebpf"))
    assert names.namespace_of(name) not in kernel.namespaces()


@pytest.mark.parametrize(
    ("refusal", "error", "message"),
    [
        ((CREATE, errno.EPERM), AccessDeniedError, "needs root"),
        ((BIND_MAP, errno.EPERM), AccessDeniedError, "needs root"),
        ((CREATE, errno.ENOMEM), KernelError, "no memory"),
        ((LOAD, errno.ENOMEM), ResourceExhaustedError, "ENOMEM"),
    ],
)
def test_auto_takes_nothing_where_the_process_may_not_or_memory_is_short(refusal, error, message):
    softrig.skip_without_root()
    kernel, name = Refusing(*refusal), f"b{os.getpid() % 100000:x}"
    with pytest.raises(error, match=message):
        build.create(kernel, build.Wanted(name=name, vfs=0))
    assert names.namespace_of(name) not in kernel.namespaces()


def test_a_table_larger_than_u32_has_is_refused_and_makes_nothing():
    kernel = LinuxKernel()
    before = kernel.namespaces()
    with pytest.raises(InvalidRequestError, match="4095"):
        build.create(kernel, build.Wanted(name="wrong1", rows=4096, data_path="u32"))
    with pytest.raises(InvalidRequestError, match="no data path"):
        build.create(kernel, build.Wanted(name="wrong1", data_path="xdp"))
    assert kernel.namespaces() == before
    assert {command.name for command in COMMANDS} == {"create", "destroy", "list"}
