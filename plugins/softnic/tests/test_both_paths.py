"""What both data paths do with real packets, and what a process that is killed leaves to the next one."""

from __future__ import annotations

import signal

import pytest
import softrig
from packets import arp, ip4, ip6
from softrules import configure, exact, rule

from nicoffload.model import Count, Drop, LinkState, Match, Mirror, ToPf, ToUplink, ToVf

softrig.skip_without_namespaces()
pytestmark = [pytest.mark.root, pytest.mark.xdist_group("softnic")]


@pytest.fixture(scope="module", params=["ebpf", "u32"])
def softnic(request, tmp_path_factory):
    if request.param == "ebpf":
        softrig.skip_without_root()
    with softrig.rig(tmp_path_factory.mktemp("state"), data_path=request.param) as made:
        yield made


CASES = {
    "five-tuple": (exact(), ip4()),
    "tcp": (exact(6), ip4(proto=6, payload=b"y" * 40)),
    "sctp": (exact(132), ip4(proto=132)),
    "masked address": ({"ipv4_dst": "10.0.0.0/8"}, ip4()),
    "tagged, tag not compared": (exact(), ip4(tags=[(0x8100, 100)])),
    "ipv6": ({"ipv6_dst": "2001:db8::2", "ip_proto": 17, "tp_dst": 2000}, ip6()),
    "ipv6 prefix": ({"ipv6_src": "2001:db8::/32"}, ip6()),
    "mac": ({"eth_dst": "02:00:00:00:01:01"}, arp()),
    "masked mac": ({"eth_src": "02:00:00:00:00:00/ff:ff:ff:00:00:00"}, arp()),
    "ethernet type": ({"eth_type": 0x0806}, arp()),
    "tos": ({"eth_type": 0x0800, "ip_tos": 0xB8}, ip4(tos=0xB8)),
    "ttl": ({"eth_type": 0x0800, "ip_ttl": 9}, ip4(ttl=9)),
    "address behind options": ({"ipv4_dst": "10.0.0.1"}, ip4(options=b"\1\1\1\0")),
    "ports under a mask": (exact(tp_dst="0x7d0/0xfff0"), ip4(dport=2005)),
    # ICMP's type and code are where a UDP header has its source port: 1000 is 0x03e8.
    "icmp": ({"eth_type": 0x0800, "ip_proto": 1, "icmp_type": 3, "icmp_code": 0xE8}, ip4(proto=1)),
    "later fragment by address": ({"ipv4_dst": "10.0.0.1"}, ip4(frag=0x2005)),
    "nothing compared": ({}, arp()),
}


@pytest.mark.parametrize("name", CASES)
def test_a_packet_that_matches_reaches_the_vf_whole_and_is_counted_once(softnic, nic, name):
    match, frame = CASES[name]
    (added,) = nic.add_flows([rule(ToVf(vf=1), **match)]).installed
    assert softnic.sent_and_seen("wire", frame) == {"vf1": [frame]}
    counted = nic.flow_stats([added.rule.rule_id]).row(0)
    behind_tag = len(frame) - 14 - (4 if "tagged" in name else 0)
    octets = {"ebpf": len(frame), "u32": behind_tag}[softnic.data_path]
    assert (counted.packets, counted.bytes) == (1, octets)
    assert (counted.last_used_ns is not None) == (softnic.data_path == "u32")
    (installed,) = nic.flows()
    assert installed.rule == added.rule


MISSES = {
    "another port": (exact(tp_dst=2001), ip4()),
    "another protocol": (exact(6), ip4()),
    "another address": (exact(ipv4_dst="10.0.0.2"), ip4()),
    "later fragment has no ports": (exact(), ip4(frag=0x2005)),
    "ipv6 is not ipv4": ({"ipv4_dst": "0.0.0.0/1"}, ip6()),
    "another mac": ({"eth_dst": "02:00:00:00:01:02"}, arp()),
    "too short for its header": ({"ipv4_dst": "10.0.0.1"}, ip4()[:30]),
}


@pytest.mark.parametrize("name", MISSES)
def test_a_packet_that_does_not_match_leaves_by_the_pf(softnic, nic, name):
    match, frame = MISSES[name]
    (added,) = nic.add_flows([rule(ToVf(vf=1), **match)]).installed
    assert softnic.sent_and_seen("wire", frame) == {"pf": [frame]}
    assert nic.flow_stats([added.rule.rule_id]).row(0).packets == 0


def test_what_no_rule_takes_goes_between_a_port_and_its_representor(softnic, nic):
    frame = ip4()
    assert softnic.sent_and_seen("wire", frame) == {"pf": [frame]}
    assert softnic.sent_and_seen("pf", frame) == {"wire": [frame]}
    assert softnic.sent_and_seen("vf0", frame) == {"r0": [frame]}
    assert softnic.sent_and_seen("r0", frame) == {"vf0": [frame]}


@pytest.mark.parametrize(
    ("port", "in_port", "action", "out"),
    [
        ("vf0", "vf:0", ToUplink(), "wire"),
        ("vf0", "vf:0", ToVf(vf=1), "vf1"),
        ("vf0", "vf:0", ToPf(), "pf"),
        ("pf", "pf", ToVf(vf=0), "vf0"),
        ("wire", "uplink", ToPf(), "pf"),
        ("wire", None, ToUplink(), "wire"),
    ],
)
def test_every_port_can_be_a_source_and_a_target(softnic, nic, port, in_port, action, out):
    frame = ip4()
    nic.add_flows([rule(action, in_port=in_port, ipv4_dst="10.0.0.1")])
    assert softnic.sent_and_seen(port, frame) == {out: [frame]}
    assert [each.rule.match for each in nic.flows()] == [Match.of(in_port=in_port, ipv4_dst="10.0.0.1")]


def test_drop_and_mirror(softnic, nic):
    frame = ip4()
    (dropping,) = nic.add_flows([rule((Drop(), Count()), **exact())]).installed
    assert softnic.sent_and_seen("wire", frame) == {}
    assert nic.flow_stats([dropping.rule.rule_id]).row(0).packets == 1
    nic.remove_flows([dropping.rule.rule_id])
    made = [rule((Mirror(port=3), ToVf(vf=0)), **exact()), rule((ToPf(), Mirror(port=2)), eth_type=0x0806)]
    nic.add_flows(made)
    assert softnic.sent_and_seen("wire", frame) == {"vf0": [frame], "vf1": [frame]}
    assert {each.rule for each in nic.flows()} == set(made)


@pytest.mark.parametrize(("beneath", "highest"), [(15, 30), (20, 0xFFFF)])
def test_the_higher_priority_wins_and_of_equal_ones_the_older_class(softnic, nic, beneath, highest):
    frame = ip4()
    nic.add_flows([rule(ToVf(vf=0), priority=10, ipv4_dst="10.0.0.1")])
    nic.add_flows([rule(ToVf(vf=1), priority=20, ipv4_src="192.0.2.1")])
    assert softnic.sent_and_seen("wire", frame) == {"vf1": [frame]}
    nic.add_flows([rule(Drop(), priority=beneath, eth_type=0x0800)])
    assert softnic.sent_and_seen("wire", frame) == {"vf1": [frame]}
    nic.add_flows([rule(ToPf(), priority=highest, eth_type=0x0800, ip_proto=17)])
    assert softnic.sent_and_seen("wire", frame) == {"pf": [frame]}


def test_a_link_that_is_disabled_carries_nothing(softnic, nic):
    nic.add_flows([rule(ToVf(vf=0), ipv4_dst="10.0.0.1")])
    configure(nic, link_state=LinkState.DISABLE)
    assert "NO-CARRIER" in softrig.run(f"ip -n {softnic.vms[0]} link show dev {softnic.name}vf0")
    assert softnic.sent_and_seen("wire", ip4()) == {}
    configure(nic, link_state=LinkState.AUTO)
    assert softnic.sent_and_seen("wire", ip4()) == {"vf0": [ip4()]}


@pytest.mark.parametrize(
    ("data_path", "rows", "after"),
    [
        *(("ebpf", 5000, after) for after in (0, 1, 3, 10, 40)),
        *(("u32", 2000, after) for after in (0, 3, 20)),
    ],
)
def test_killed_at_any_time_packets_flow_and_the_next_open_has_all(tmp_path, data_path, rows, after):
    if data_path == "ebpf":
        softrig.skip_without_root()
    with softrig.rig(tmp_path / "state", vfs=1, rows=rows, data_path=data_path) as rig:
        with rig.open() as nic:
            nic.add_flows([rule(ToVf(vf=0), ipv4_src="192.0.2.250", ip_proto=17)])
        code = f"""
            from nicoffload import open_nic
            from nicoffload.model import FlowRule, Match, ToVf
            nic = open_nic({rig.nic_name!r}, state_dir={str(rig.state_dir)!r})
            print("ready", flush=True)
            for number in range(100000):
                rules = [
                    FlowRule(
                        match=Match.of(ipv4_dst=0x14000000 + number * 16 + at, tp_dst=at, ip_proto=6),
                        actions=(ToVf(vf=0),),
                        priority=at % 3,
                    )
                    for at in range(16)
                ]
                added = nic.add_flows(rules).installed
                print("added", flush=True)
                if number % 2:
                    nic.remove_flows([each.rule.rule_id for each in added])
        """
        with softrig.run_child(code) as child:
            for _ in range(1 + after):
                assert child.stdout.readline()
            child.send_signal(signal.SIGKILL)
        frame = ip4(src="192.0.2.250")
        assert rig.sent_and_seen("wire", frame) == {"vf0": [frame]}
        with rig.open() as nic:
            assert nic.recovery.problems == nic.recovery.missing == nic.recovery.unaccounted == ()
            flows = nic.flows()
            assert len(flows) % 16 == 1
            assert all(each.ours for each in flows)
            assert rig.sent_and_seen("wire", frame) == {"vf0": [frame]}
            nic.remove_flows([each.rule.rule_id for each in flows])
            assert nic.flows() == ()
        assert rig.sent_and_seen("wire", frame) == {"pf": [frame]}
        if data_path == "u32":
            filters = softrig.run(f"ip netns exec nicsoft-{rig.name} tc filter show dev up ingress")
            assert "link" not in filters
