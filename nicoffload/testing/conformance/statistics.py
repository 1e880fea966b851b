"""Statistics: every value says where it comes from, and one that is not counted is None."""

from __future__ import annotations

from nicoffload.model import FlowRule, Match, ToVf, TrafficStats, VfConfig
from nicoffload.profiles.types import Counters, NicProfile
from nicoffload.testing.conformance.behaviour import behaviour, whole, with_statistics
from nicoffload.testing.conformance.bench import Bench
from nicoffload.testing.conformance.outcome import NotShown
from nicoffload.testing.conformance.packets import WIRE_BYTES, packet_for

_VALUES = ("rx_packets", "tx_packets", "rx_bytes", "tx_bytes", "rx_dropped", "tx_dropped")
_REPEATS = 5
_PACKETS = 9
_RESET_S = 0.5
"""How long a VF may take to come back after its address changed, where nothing tells."""


def with_port(profile: NicProfile) -> tuple[str, ...]:
    """Tried once, on a NIC that counts at its port."""
    return ("",) if profile.statistics.port is not None else ()


def without_vf_counters(profile: NicProfile) -> tuple[str, ...]:
    """Tried once, on a NIC with VFs that does not count at them."""
    return ("",) if profile.statistics.vf is None and profile.sriov is not None else ()


def with_vf_counters(profile: NicProfile) -> tuple[str, ...]:
    """Tried once, on a NIC that counts at its VFs."""
    return ("",) if profile.statistics.vf is not None else ()


def _counters(bench: Bench, name: str) -> Counters | None:
    statistics = bench.profile.statistics
    return statistics.vf if name.startswith("vf:") else statistics.port if name == "uplink" else None


def _rows(bench: Bench) -> dict[str, TrafficStats]:
    rows = bench.statistics.read()
    names = [row.name for row in rows]
    bench.same(len(set(names)), len(names), f"different names among {names}")
    return {row.name: row for row in rows}


@behaviour(
    "ST-01", "Ports and VFs are counted as the profile says, each once, under its name", each=with_statistics
)
def names(bench: Bench) -> None:
    """The uplink has a row where the profile has counters of the port, and each VF one where it has counters of VFs."""
    vfs = len(bench.vfs.states()) if bench.driver.virtual_functions is not None else 0
    rows = _rows(bench)
    wanted = ["uplink"] if bench.profile.statistics.port is not None else []
    if bench.profile.statistics.vf is not None:
        wanted += [f"vf:{index}" for index in range(vfs)]
    found = sorted(name for name in rows if name != "pf")
    bench.same(found, sorted(wanted), "ports that are counted")


@behaviour(
    "ST-02", "A value says what counts it, which bytes it counts and when it wraps", each=with_statistics
)
def provenance(bench: Bench) -> None:
    """Each row that has a value has facts: a source, the byte basis of the profile, and a width."""
    for name, row in _rows(bench).items():
        if all(getattr(row, value) is None for value in _VALUES):
            continue
        bench.expect(row.facts is not None and row.facts.source, f"{name} does not say what counts")
        counters = _counters(bench, name)
        if counters is None or row.facts is None:
            continue
        bench.same(row.facts.byte_basis.value, counters.byte_basis, f"which bytes {name} counts")
        if counters.bits is not None:
            bench.same(row.facts.packet_bits, counters.bits, f"width of the counters of {name}")


@behaviour("ST-03", "A value that is not counted is None, never zero", each=with_statistics)
def absent_is_none(bench: Bench) -> None:
    """Values that the profile does not list are None, and those that it lists are numbers."""
    if bench.profile.sriov is not None:
        with_vfs = bench.profile.statistics.vf is not None
        if with_vfs and not bench.vfs.states():
            bench.need_vfs(1)
    for name, row in _rows(bench).items():
        counters = _counters(bench, name)
        if counters is None:
            continue
        for value in _VALUES:
            found = getattr(row, value)
            if value in counters.values:
                bench.expect(found is not None, f"{name} counts {value} by the profile, and it is None")
            else:
                bench.expect(found is None, f"{name} does not count {value}, and it reads {found}")


@behaviour("ST-04", "Values are whole numbers that fit their width", each=with_statistics)
def widths(bench: Bench) -> None:
    """No value is negative or too wide for the counter that it is said to be."""
    for name, row in _rows(bench).items():
        for value in _VALUES:
            found = getattr(row, value)
            if found is None or row.facts is None:
                continue
            bits = row.facts.byte_bits if "bytes" in value else row.facts.packet_bits
            bench.expect(
                isinstance(found, int) and 0 <= found < 1 << bits,
                f"{value} of {name} is {found!r}, of {bits} bits",
            )


@behaviour(
    "ST-05",
    "Counters never run backwards within an epoch, and reading does not change them",
    each=with_statistics,
)
def monotonic(bench: Bench) -> None:
    """Counters are read over and over, with packets between where some can be sent."""
    last = _rows(bench)
    for _ in range(_REPEATS):
        if bench.can_send():
            bench.send([{"eth_dst": 0xFF_FF_FF_FF_FF_FF, "eth_src": 2, "eth_type": 0x9000}])
        rows = _rows(bench)
        for name, row in rows.items():
            before = last.get(name)
            if before is None or before.epoch != row.epoch:
                continue
            for value in _VALUES:
                old, new = getattr(before, value), getattr(row, value)
                if old is not None and new is not None:
                    bench.expect(new >= old, f"{value} of {name} fell", expected=f">= {old}", found=new)
        last = rows


@behaviour("ST-06", "The port counts the packets that it received", each=with_port)
def port_counts(bench: Bench) -> None:
    """So many packets are sent into the port: it has received so many more, and so many bytes where the basis is L2."""
    if not bench.can_send():
        bench.not_shown("nothing sends packets into this NIC (NicUnderTest.packets)")
    counters = bench.profile.statistics.port
    assert counters is not None
    if "rx_packets" not in counters.values:
        bench.not_applicable("the port does not count packets")
    before = _rows(bench)["uplink"]
    bench.send([{"eth_dst": 0x02_00_00_00_FF_00, "eth_src": 2, "eth_type": 0x9000}] * _PACKETS)
    bench.wait(counters.refresh_s or 0.0)
    after = _rows(bench)["uplink"]
    assert before.rx_packets is not None and after.rx_packets is not None  # noqa: PT018 - ST-03 tells them apart
    bench.same(after.rx_packets - before.rx_packets, _PACKETS, "packets that the port received")
    if counters.byte_basis == "l2" and after.rx_bytes is not None and before.rx_bytes is not None:
        bench.same(after.rx_bytes - before.rx_bytes, _PACKETS * WIRE_BYTES, "bytes that the port received")


@behaviour("ST-07", "Where VFs are not counted, they have no counters", each=without_vf_counters)
def no_vf_counters(bench: Bench) -> None:
    """A NIC without counters of VFs reports none for them: no row, or one with every value None."""
    if bench.driver.statistics is None:
        return
    for name, row in _rows(bench).items():
        if name.startswith("vf:"):
            counted = [value for value in _VALUES if getattr(row, value) is not None]
            bench.expect(not counted, f"VFs are not counted here, and {name} has {', '.join(counted)}")


@behaviour("ST-08", "A VF counts what was delivered to it, and no other VF does", each=with_vf_counters)
def vf_counts(bench: Bench) -> None:
    """Packets are delivered to VF 0 by a rule, or by its address where no rule can: VF 0 received them, VF 1 none."""
    if not bench.can_send():
        bench.not_shown("nothing sends packets into this NIC (NicUnderTest.packets)")
    counters = bench.profile.statistics.vf
    assert counters is not None
    bench.need_vfs(2)
    rule = _delivering(bench)
    before = _rows(bench)
    bench.send([packet_for(rule)] * _PACKETS)
    bench.wait(counters.refresh_s or 0.0)
    after = _rows(bench)
    grown = []
    for vf in ("vf:0", "vf:1"):
        old, new = before[vf].rx_packets, after[vf].rx_packets
        grown.append(None if old is None or new is None else new - old)
    bench.same(grown, [_PACKETS, 0], "packets that VF 0 and VF 1 received")


def _delivering(bench: Bench) -> FlowRule:
    """Make the NIC deliver to VF 0, by a rule or by the VF's address; return what it delivers."""
    for name in (table.name for table in bench.profile.tables if "vf" in table.actions):
        try:
            state = bench.table(name)
        except NotShown:
            continue  # of another mode, or without a switch
        kind = next((k for k in bench.kinds(state) if not any(f.startswith("tun_") for f in k.fields)), None)
        if kind is None:
            continue
        rule = kind.rule(0, ToVf(vf=0))
        if rule.match != Match():
            bench.install(bench.places([rule], state))
            return rule
    mac = 0x02_00_00_0C_57_08
    answers = bench.retry.bulk(bench.vfs.configure_many, [VfConfig(vf=0, mac=mac)], "configure_many")
    if answers != [None]:
        bench.not_shown("no table of this NIC delivers to a VF, and the VF takes no address either")
    bench.settled()
    bench.wait(_RESET_S)
    return FlowRule(match=Match.of(eth_dst=mac), actions=(ToVf(vf=0),))


@behaviour("ST-09", "VFs that come and go are counted anew", each=with_vf_counters)
def vfs_come_and_go(bench: Bench) -> None:
    """After all VFs were taken away and made anew, there is one row a VF, and none of a VF that is gone."""
    sriov = bench.profile.sriov
    if sriov is None or not sriov.at_run_time:
        bench.not_applicable("VFs are not made at run time")
    bench.need_vfs(1)
    _rows(bench)
    bench.retry.call(lambda: bench.vfs.set_count(0))
    bench.same([name for name in _rows(bench) if name.startswith("vf:")], [], "VFs that are counted, of none")
    bench.retry.call(lambda: bench.vfs.set_count(2))
    bench.settled()
    bench.same(
        sorted(name for name in _rows(bench) if name.startswith("vf:")),
        ["vf:0", "vf:1"],
        "VFs that are counted",
    )


@behaviour("ST-10", "A NIC that counts nothing says so", each=whole)
def nothing_counted(bench: Bench) -> None:
    """`statistics` is None exactly where the profile has counters of neither port nor VFs."""
    statistics = bench.profile.statistics
    counted = statistics.port is not None or statistics.vf is not None
    if bench.driver.statistics is None:
        bench.expect(not counted, "the profile has counters, and the driver's statistics is None")
    elif not counted:
        for row in bench.statistics.read():
            values = [value for value in _VALUES if getattr(row, value) is not None]
            bench.expect(not values, f"the profile has no counters, and {row.name} has {', '.join(values)}")
