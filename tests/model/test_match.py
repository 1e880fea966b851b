"""Matches, actions and rules: what they take, what they imply, what they refuse."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nicoffload.errors import InvalidRequestError
from nicoffload.model import (
    FIELDS,
    RANGE_MASK,
    Drop,
    FlowRule,
    Masked,
    Match,
    Mirror,
    PortRange,
    RateLimit,
    ToPf,
    ToVf,
    VfConfig,
    format_value,
    parse_value,
)
from nicoffload.model.fields import FIELDS_BY_TEXT, Kind


def test_an_address_implies_its_ethernet_type():
    assert Match.of(ipv4_dst="10.0.0.5").eth_type == Masked(0x0800, 0xFFFF)
    assert Match.of(ipv6_dst="fd00::5").eth_type == Masked(0x86DD, 0xFFFF)


def test_shape_and_values_are_in_field_order():
    match = Match.of(tp_dst="80-90", ip_proto=6, ipv4_src="10.0.0.0/8")
    assert match.shape == (
        ("eth_type", 0xFFFF),
        ("ipv4_src", 0xFF000000),
        ("ip_proto", 0xFF),
        ("tp_dst", RANGE_MASK),
    )
    assert match.values == (0x0800, 0x0A000000, 6, (80, 90))
    assert [name for name, _ in match.items()] == [name for name, _ in match.shape]


def test_bits_outside_a_mask_are_cleared_as_open_vswitch_does():
    assert Match.of(ipv4_src="10.1.2.3/8") == Match.of(ipv4_src="10.0.0.0/8")


def test_a_mask_of_zeros_matches_anything():
    assert Match.of(ipv4_src="10.1.2.3/0", eth_type=0x0800) == Match.of(eth_type=0x0800)


def test_a_range_of_one_port_is_that_port():
    assert Match.of(ipv4_dst="10.0.0.1", ip_proto=6, tp_dst="80-80").tp_dst == Masked(80, 0xFFFF)


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"tp_dst": 80}, "/match/tp_dst"),
        ({"tp_dst": 80, "ip_proto": 1, "eth_type": 0x0800}, "/match/tp_dst"),
        ({"ip_proto": 6}, "/match/ip_proto"),
        ({"ipv4_src": "10.0.0.1", "ipv6_src": "::1"}, "/match/ipv6_src"),
        ({"tcp_flags": 2, "ip_proto": 17, "eth_type": 0x0800}, "/match/tcp_flags"),
        ({"vlan_vid": 4096}, "/match/vlan_vid"),
        ({"vlan_vid": -1}, "/match/vlan_vid"),
        ({"ipv4_dst": "10.0.0.256"}, "/match/ipv4_dst"),
        ({"ipv4_dst": "10.0.0.1/33"}, "/match/ipv4_dst"),
        ({"eth_dst": "02:00:00:00:00"}, "/match/eth_dst"),
        ({"in_port": "vf"}, "/match/in_port"),
        ({"ipv4_dst": PortRange(1, 2)}, "/match/ipv4_dst"),
        ({"nw_dst": "10.0.0.1"}, "/match/nw_dst"),
        ({"ip_proto": True, "eth_type": 0x0800}, "/match/ip_proto"),
    ],
)
def test_what_means_nothing_is_refused_at_its_field(fields, path):
    with pytest.raises(InvalidRequestError) as caught:
        Match.of(**fields)
    assert caught.value.path == path


@pytest.mark.parametrize(("value", "mask"), [(1, 0), (2, 1), (-1, 1)])
def test_a_masked_value_lies_within_its_mask(value, mask):
    with pytest.raises(InvalidRequestError):
        Masked(value, mask)


def test_a_rule_has_one_fate():
    match = Match.of(ipv4_dst="10.0.0.1")
    for actions in ((), (Mirror(port=1),), (Drop(), ToVf(vf=1)), (ToVf(vf=1), ToVf(vf=2))):
        with pytest.raises(InvalidRequestError, match="exactly one"):
            FlowRule(match=match, actions=actions)
    assert FlowRule(match=match, actions=(Mirror(port=3), ToPf())).priority is None


@pytest.mark.parametrize("priority", [-1, 65536])
def test_a_priority_is_within_16_bits(priority):
    with pytest.raises(InvalidRequestError):
        FlowRule(match=Match(), actions=(Drop(),), priority=priority)


def test_direction_is_that_of_the_port_a_packet_enters():
    assert FlowRule(match=Match(), actions=(Drop(),)).direction == "rx"
    assert FlowRule(match=Match.of(in_port="uplink"), actions=(Drop(),)).direction == "rx"
    assert FlowRule(match=Match.of(in_port="vf:3"), actions=(Drop(),)).direction == "tx"


@pytest.mark.parametrize("rate", [0, -1, 10_000_000_000_000, 1.5, True])
def test_a_rate_that_no_port_has_is_refused(rate):
    with pytest.raises(InvalidRequestError) as caught:
        RateLimit(max_tx_bps=rate)
    assert caught.value.path == "/max_tx_bps"


def test_a_guarantee_above_the_limit_is_refused():
    with pytest.raises(InvalidRequestError):
        RateLimit(min_tx_bps=2_000_000, max_tx_bps=1_000_000)


def test_a_vf_has_no_multicast_address():
    with pytest.raises(InvalidRequestError):
        VfConfig(vf=0, mac=0x0100_0000_0001)


def test_no_text_names_two_fields():
    names = [text for field in FIELDS.values() for text in {*field.texts, field.name}]
    assert len(names) == len(set(names)) == len(FIELDS_BY_TEXT)


@given(st.sampled_from(sorted(FIELDS)), st.data())
def test_a_value_survives_its_text(name, data):
    spec = FIELDS[name]
    mask = data.draw(st.integers(1, spec.full_mask))
    value = data.draw(st.integers(0, spec.full_mask)) & mask
    if spec.kind is Kind.SWITCH_PORT:
        mask = spec.full_mask
    assert parse_value(spec, format_value(spec, value, mask)) == (value, mask)


@given(st.integers(0, 2**32 - 1), st.integers(1, 32))
def test_a_prefix_reads_as_the_standard_library_reads_it(address, length):
    network = ipaddress.ip_network((address, length), strict=False)
    assert parse_value(FIELDS["ipv4_src"], str(network)) == (
        int(network.network_address),
        int(network.netmask),
    )


def test_no_tunnel_has_outer_addresses_of_both_versions():
    Match.of(tun_ipv4_src="10.0.0.1", tun_ipv4_dst="10.0.0.2")
    with pytest.raises(InvalidRequestError) as info:
        Match.of(tun_ipv4_src="10.0.0.1", tun_ipv6_dst="2001:db8::1")
    assert info.value.path == "/match/tun_ipv6_dst"
