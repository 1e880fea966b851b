"""Real packets through the data path: where each comes out, what it looks like there, and what was counted."""

from __future__ import annotations

import struct

import pytest
import softrig
from packets import MACS, arp, ip4, ip6
from softrules import configure, counted_of_vf, exact, rule

from nicoffload.model import Drop, LinkState, Mirror, ToUplink, ToVf, VlanTag
from nicoffload_softnic import names
from nicoffload_softnic.layout import FIRST_IFINDEX

softrig.skip_without_root()
pytestmark = [pytest.mark.root, pytest.mark.xdist_group("softnic")]

TAG = (0x8100, 100)
LATER = (44, b"\0" + struct.pack(">HI", 8, 7))  # IPv6's header of a fragment that is not the first


CASES = {
    "ip options": (exact(), ip4(options=b"\1\1\1\0")),
    "tagged": (exact(vlan_vid=100), ip4(tags=[TAG])),
    "tag's priority": ({"vlan_pcp": 5}, ip4(tags=[(0x8100, 5 << 13 | 7)])),
    "two tags": (exact(vlan_vid=100), ip4(tags=[TAG, (0x8100, 200)])),
    "ipv6 extensions": (
        {"ipv6_dst": "2001:db8::2", "ip_proto": 17, "tp_dst": 2000},
        ip6(extensions=[(0, b"\0" + bytes(6)), (60, b"\0" + bytes(6))]),
    ),
    "a fragment, as such": ({"eth_type": 0x0800, "ip_frag": "later"}, ip4(frag=0x2005)),
    "later fragment of ipv6 by protocol": (
        {"ipv6_dst": "2001:db8::2", "ip_proto": 17},
        ip6(extensions=[LATER]),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_a_packet_that_matches_reaches_the_vf_whole_and_is_counted_once(softnic, nic, name):
    match, frame = CASES[name]
    (added,) = nic.add_flows([rule(ToVf(vf=1), **match)]).installed
    seen = softnic.sent_and_seen("wire", frame)
    assert seen == {"vf1": [frame]}
    counted = nic.flow_stats([added.rule.rule_id]).row(0)
    assert (counted.packets, counted.bytes) == (1, len(frame))


MISSES = {
    "untagged": (exact(vlan_vid=100), ip4()),
    "vid 0 is a tag too": (exact(vlan_vid=0), ip4()),
    "another tag": (exact(vlan_vid=100), ip4(tags=[(0x8100, 101)])),
    "no ports at all": (exact(tp_src=0, tp_dst=0), ip4(frag=0x2005)),
    "what follows a later fragment's header is payload": (
        {"ipv6_dst": "2001:db8::2", "ip_proto": 17},
        ip6(extensions=[LATER, (60, b"\0" + bytes(6))]),
    ),
}


@pytest.mark.parametrize("name", MISSES)
def test_a_packet_that_does_not_match_leaves_by_the_pf(softnic, nic, name):
    match, frame = MISSES[name]
    (added,) = nic.add_flows([rule(ToVf(vf=1), **match)]).installed
    assert softnic.sent_and_seen("wire", frame) == {"pf": [frame]}
    assert nic.flow_stats([added.rule.rule_id]).row(0).packets == 0


def test_a_rule_without_in_port_is_for_what_comes_from_the_wire(softnic, nic):
    frame = ip4()
    nic.add_flows([rule(ToVf(vf=1), ipv4_dst="10.0.0.1")])
    assert softnic.sent_and_seen("vf0", frame) == {"r0": [frame]}
    assert softnic.sent_and_seen("pf", frame) == {"wire": [frame]}


def test_of_two_equal_priorities_the_older_wins(softnic, nic):
    frame = ip4()
    nic.add_flows([rule(ToVf(vf=1), ipv4_src="192.0.2.1")])
    nic.add_flows([rule(ToVf(vf=0), ipv4_dst="10.0.0.1")])
    assert softnic.sent_and_seen("wire", frame) == {"vf1": [frame]}


def test_a_port_vlan_is_put_on_and_taken_off(softnic, nic):
    configure(nic, vlan=VlanTag(vid=100, pcp=3))
    tagged, plain = ip4(tags=[(0x8100, 3 << 13 | 100)]), ip4()
    assert softnic.sent_and_seen("vf0", plain) == {"r0": [tagged]}
    assert softnic.sent_and_seen("r0", tagged) == {"vf0": [plain]}
    nic.add_flows([rule(ToVf(vf=0), ipv4_dst="10.0.0.1"), rule(ToUplink(), in_port="vf:0")])
    assert softnic.sent_and_seen("vf0", plain) == {"wire": [tagged]}
    assert softnic.sent_and_seen("wire", tagged) == {"vf0": [plain]}


def test_a_port_vlan_keeps_other_vlans_away(softnic, nic):
    before = counted_of_vf(nic, "rx_dropped")
    configure(nic, vlan=VlanTag(vid=100))
    (added,) = nic.add_flows([rule(ToVf(vf=0), ipv4_dst="10.0.0.1")]).installed
    assert softnic.sent_and_seen("wire", ip4()) == {}
    assert softnic.sent_and_seen("wire", ip4(tags=[(0x8100, 101)])) == {}
    assert nic.flow_stats([added.rule.rule_id]).row(0).packets == 2
    assert counted_of_vf(nic, "rx_dropped") == before + 2


@pytest.mark.parametrize(
    ("protocol", "own", "other"), [("802.1ad", 0x88A8, 0x8100), ("802.1Q", 0x8100, 0x88A8)]
)
def test_a_port_vlan_is_not_the_one_of_its_number_with_another_tpid(softnic, nic, protocol, own, other):
    configure(nic, vlan=VlanTag(vid=100, protocol=protocol))
    nic.add_flows([rule(ToVf(vf=0), ipv4_dst="10.0.0.1")])
    for port in ("wire", "r0"):
        assert softnic.sent_and_seen(port, ip4(tags=[(other, 100)])) == {}
        assert softnic.sent_and_seen(port, ip4(tags=[(own, 100)])) == {"vf0": [ip4()]}


@pytest.mark.parametrize(
    "guard",
    [{"link_state": LinkState.DISABLE}, {"mac": 0x02_00_00_00_00_77}, {"vlan": VlanTag(vid=101)}],
    ids=["link", "address", "vlan"],
)
def test_no_copy_passes_a_guard(softnic, nic, guard):
    before, frame = counted_of_vf(nic, "rx_dropped"), ip4(tags=[TAG])
    received = counted_of_vf(nic, "rx_packets")
    configure(nic, **guard)
    nic.add_flows([rule((Mirror(port=2), ToVf(vf=1)), **exact())])
    assert softnic.sent_and_seen("wire", frame) == {"vf1": [frame]}
    assert counted_of_vf(nic, "rx_dropped") == before + 1
    assert counted_of_vf(nic, "rx_packets") == received


def test_a_copy_has_no_port_vlan_and_the_packet_keeps_its_tag(softnic, nic):
    configure(nic, vlan=VlanTag(vid=100))
    frame = ip4(tags=[(0x8100, 5 << 13 | 100)])
    nic.add_flows([rule((Mirror(port=2), ToVf(vf=1)), **exact())])
    assert softnic.sent_and_seen("wire", frame) == {"vf0": [ip4()], "vf1": [frame]}


HEADERS = {"tcp": 14 + 20 + 20, "udp": 14 + 20 + 8}
TCP_HEAD = struct.pack(">IBBHHH", 0, 0x50, 0x10, 1000, 0, 0)  # what follows ports and sequence number


@pytest.mark.parametrize(
    ("name", "proto", "head", "gso", "checksum"),
    [
        ("tcp", 6, TCP_HEAD, softrig.GSO_TCP4, (34, 16)),
        ("udp", 17, b"", softrig.GSO_UDP, (34, 6)),
    ],
)
def test_a_packet_of_many_segments_stays_whole_and_counts_as_the_many(
    softnic, nic, name, proto, head, gso, checksum
):
    data = bytes(10_500)  # eleven segments, the last one shorter
    frame = ip4(proto=proto, payload=head + data)
    (added,) = nic.add_flows([rule(ToVf(vf=1), **exact(proto))]).installed
    seen = softnic.seen_after(
        lambda: softrig.send_offloaded(
            softnic.home,
            names.wire(softnic.name),
            frame,
            gso=gso,
            linear=HEADERS[name],
            segment=1000,
            checksum=checksum,
        )
    )
    assert {port: [len(each) for each in found] for port, found in seen.items()} == {"vf1": [len(frame)]}
    counted = nic.flow_stats([added.rule.rule_id]).row(0)
    assert (counted.packets, counted.bytes) == (11, 11 * HEADERS[name] + len(data))


def test_ports_are_found_however_many_extension_headers_come_before(softnic, nic):
    """With what is behind the first bytes in pages of their own, as a device's driver hands it over."""
    frame = ip6(extensions=[(60, b"\x1f" + bytes(254))] * 3, payload=bytes(5000))
    nic.add_flows([rule(Drop(), eth_type=0x86DD, ip_proto=17, tp_dst=2000)])
    wire, inside = names.wire(softnic.name), names.namespace_of(softnic.name)
    found = softrig.run(f"ip -n {inside} -o link").splitlines()
    (uplink,) = [line.split()[1].split("@")[0] for line in found if line.startswith(f"{FIRST_IFINDEX}:")]
    places = [(softnic.home, wire), (inside, uplink)]

    def set_mtu(mtu):
        for namespace, device in places:
            softrig.run(f"ip -n {namespace} link set dev {device} mtu {mtu}")

    set_mtu(9000)
    try:
        assert softnic.seen_after(lambda: softrig.send_offloaded(softnic.home, wire, frame)) == {}
    finally:
        set_mtu(1500)
    assert nic.flow_stats([each.rule.rule_id for each in nic.flows()]).row(0).packets == 1


def test_spoof_check_drops_a_foreign_source(softnic, nic):
    before = counted_of_vf(nic, "tx_dropped")
    configure(nic, mac=MACS["src"], spoof_check=True)
    assert softnic.sent_and_seen("vf0", ip4()) == {"r0": [ip4()]}
    forged = ip4(src="192.0.2.1", dst="10.0.0.1")
    forged = forged[:6] + b"\2\0\0\0\0\x99" + forged[12:]
    assert softnic.sent_and_seen("vf0", forged) == {}
    assert counted_of_vf(nic, "tx_dropped") == before + 1
    configure(nic, spoof_check=False)
    assert softnic.sent_and_seen("vf0", forged) == {"r0": [forged]}


def test_the_address_filter_lets_through_its_own_and_groups_unless_trusted(softnic, nic):
    configure(nic, mac=0x02_00_00_00_00_77)
    nic.add_flows([rule(ToVf(vf=0), eth_type=0x0806)])
    mine, group, foreign = arp(dst=0x02_00_00_00_00_77), arp(dst=0xFFFF_FFFF_FFFF), arp()
    assert softnic.sent_and_seen("wire", mine) == {"vf0": [mine]}
    assert softnic.sent_and_seen("wire", group) == {"vf0": [group]}
    assert softnic.sent_and_seen("wire", foreign) == {}
    configure(nic, trust=True)
    assert softnic.sent_and_seen("wire", foreign) == {"vf0": [foreign]}


def test_an_address_reaches_the_device_where_it_is(softnic, nic):
    configure(nic, mac=0x02_00_00_00_00_77)
    assert "02:00:00:00:00:77" in softrig.run(f"ip -n {softnic.vms[0]} link show dev {softnic.name}vf0")


def test_port_counters_are_seen_from_the_port(softnic, nic):
    def read():
        return {s.name: (s.rx_packets, s.rx_bytes, s.tx_packets, s.tx_bytes) for s in nic.stats()}

    nic.add_flows([rule(ToVf(vf=0), ipv4_dst="10.0.0.1"), rule(ToUplink(), in_port="vf:0")])
    size, before = len(ip4()), read()
    for port in ("wire", "wire", "vf0", "pf"):
        softnic.sent_and_seen(port, ip4())
    softnic.sent_and_seen("wire", arp())
    grown = {
        name: tuple(now - then for now, then in zip(values, before[name], strict=True))
        for name, values in read().items()
    }
    assert grown["uplink"] == (3, 2 * size + len(arp()), 2, 2 * size)
    assert grown["vf:0"] == (2, 2 * size, 1, size)
    assert grown["pf"] == (1, len(arp()), 1, size)
