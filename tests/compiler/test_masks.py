"""Fields and masks: every mask model, every kind of mask, and nothing widened silently."""

from __future__ import annotations

import pytest

from nicoffload.compiler import Compiler, Refusal
from nicoffload.driver.contract import Placement
from nicoffload.model import Drop, ToVf
from nicoffload.profiles.types import NotTogether, Together
from tests.compiler.samples import FOUR, compiler, field, flow_type, refs, rule, shape, state, table, tcp

GROUP = "00:00:00:00:00:00/01:00:00:00:00:00"


def reasons(answer):
    assert isinstance(answer, Refusal), answer
    return {reason.code: reason for reason in answer.reasons}


def with_field(mask, name="tp_dst", **more):
    return compiler(table(flow_types=(flow_type(fields={name: field(mask, **more)}),)))


@pytest.mark.parametrize(
    ("mask", "value", "taken"),
    [
        ("any", "0x1/0x5", True),
        ("prefix", "0x100/0xff00", True),
        ("prefix", "0x1/0xff", False),
        ("exact", 80, True),
        ("exact", "0x100/0xff00", False),
        ("required", 80, True),
        ("required", None, False),
        ("required", "0x100/0xff00", False),
        ("exact", None, True),
    ],
)
def test_kinds_of_masks(mask, value, taken):
    answer = with_field(mask).lower(tcp(tp_dst=value))
    assert isinstance(answer, Placement) is taken, answer
    if not taken:
        (reason,) = answer.reasons
        assert reason.path == "/match/tp_dst"
        assert reason.accepted


@pytest.mark.parametrize(
    ("mask", "value", "taken"),
    [
        ("exact_or_group_bit", "02:00:00:00:00:01", True),
        ("exact_or_group_bit", GROUP, True),
        ("exact_or_group_bit", "02:00:00:00:00:00/ff:00:00:00:00:00", False),
        ("group_bit", GROUP, True),
        ("group_bit", "02:00:00:00:00:01", False),
        ("group_bit", None, False),
    ],
)
def test_masks_of_mac_addresses(mask, value, taken):
    only = flow_type("ether", fixed={}, fields={"eth_dst": field(mask), "vlan_vid": field()})
    answer = compiler(table(flow_types=(only,))).lower(rule(eth_dst=value, vlan_vid=5))
    assert isinstance(answer, Placement) is taken, answer


@pytest.mark.parametrize(
    ("mask", "value", "code"),
    [
        ("exact_or_ignored", "0x100/0xff00", "mask.widened"),
        ("ignored", "0x100/0xff00", "field.ignored"),
        ("ignored", 80, "field.ignored"),
    ],
)
def test_what_the_driver_would_ignore_is_refused_with_no_errno(mask, value, code):
    found = reasons(with_field(mask).lower(tcp(tp_dst=value)))
    assert found[code].errno == ""
    assert "more than it says" in found[code].message


def test_a_field_that_is_accepted_without_a_word_is_refused_as_ignored():
    quiet = table(errors={"field": None, "partial_mask": None})
    found = reasons(compiler(quiet).lower(tcp(ip_tos=1, tp_dst="0x100/0xff00")))
    assert found["field.ignored"].path == "/match/ip_tos"
    assert found["mask.widened"].path == "/match/tp_dst"
    assert {reason.errno for reason in found.values()} == {""}


def test_errnos_come_from_the_nearest_place_of_the_profile():
    near = flow_type(
        fields={"tp_dst": field("exact", mask_errno="EIO")}, field_errors={"ip_tos": "EOPNOTSUPP"}
    )
    found = compiler(table(flow_types=(near,))).lower(tcp(ip_tos=1, ip_ttl=1, tp_dst="0x100/0xff00"))
    assert {reason.path: reason.errno for reason in found.reasons} == {
        "/match/ip_tos": "EOPNOTSUPP",
        "/match/ip_ttl": "EINVAL",
        "/match/tp_dst": "EIO",
    }


@pytest.mark.parametrize("mask", ["any", "prefix"])
def test_a_range_is_refused_with_the_masks_that_would_do(mask):
    found = reasons(with_field(mask).lower(tcp(tp_dst="1000-1010")))
    accepted = found["range.unsupported"].accepted
    assert accepted == "one rule for each of 0x3e8/0xfff8, 0x3f0/0xfffe, 1010"


def test_a_range_where_masks_are_exact_takes_a_rule_for_each_port():
    found = reasons(with_field("exact").lower(tcp(tp_dst="1000-1010")))
    assert found["range.unsupported"].accepted == "one rule for each of the 11 ports"


@pytest.mark.parametrize(
    ("limits", "value", "accepted"),
    [
        ({"min": 1}, 0, "1 or more"),
        ({"max": 9}, 10, "9 or less"),
        ({"values": frozenset({7})}, 8, "one of 7"),
    ],
)
def test_values_that_are_not_taken(limits, value, accepted):
    checked = with_field("exact", value_errno="EADDRNOTAVAIL", **limits)
    (reason,) = checked.lower(tcp(tp_dst=value)).reasons
    assert (reason.code, reason.path) == ("value.unsupported", "/match/tp_dst")
    assert (reason.accepted, reason.errno) == (accepted, "EADDRNOTAVAIL")
    assert isinstance(checked.lower(tcp(tp_dst=7)), Placement)


def test_flow_type_is_the_first_that_takes_the_whole_rule():
    both = table(
        flow_types=(
            flow_type("tcp4", fields={"tp_dst": field()}),
            flow_type("ip", fixed={"eth_type": (0x800,)}, fields={"ip_proto": field(), "ip_tos": field()}),
        )
    )
    assert compiler(both).lower(tcp(tp_dst=1)).flow_type == "tcp4"
    assert compiler(both).lower(tcp(ip_tos=1)).flow_type == "ip"


def test_without_a_flow_type_the_closest_gives_the_reasons():
    found = compiler(
        table(flow_types=(flow_type(), flow_type("udp6", fixed={"eth_type": (0x86DD,), "ip_proto": (17,)})))
    ).lower(rule(eth_type=0x800, ip_proto=17, tp_dst=1))
    (reason,) = found.reasons
    assert (reason.code, reason.path, reason.accepted) == ("flow_type", "/match/ip_proto", "nw_proto 6")


def test_an_empty_list_of_fixed_values_forbids_the_field():
    plain = flow_type("ip", fixed={"eth_type": (0x800,), "ip_proto": ()}, fields={"ipv4_dst": field()})
    found = reasons(compiler(table(flow_types=(plain,))).lower(tcp(ipv4_dst="10.0.0.1")))
    assert found["flow_type"].path == "/match/ip_proto"


def test_at_least_one_and_the_empty_rule():
    some = table(flow_types=(flow_type(at_least_one=("tp_dst", "tp_src")),))
    assert reasons(compiler(some).lower(tcp(ipv4_dst="10.0.0.1")))["field.at_least_one"].path == "/match"
    anything = table(empty_rule="EIO", flow_types=(flow_type("any", fixed={}),))
    assert reasons(compiler(anything).lower(rule()))["rule.empty"].errno == "EIO"
    assert isinstance(compiler(table(empty_rule="EIO")).lower(tcp()), Placement)  # the protocol is compared


@pytest.mark.parametrize(("errno", "code"), [("EINVAL", "field.together"), (None, "field.ignored")])
def test_fields_that_count_only_together(errno, code):
    pair = flow_type(together=(Together(fields=("tp_src", "tp_dst"), errno=errno),))
    found = reasons(compiler(table(flow_types=(pair,))).lower(tcp(tp_dst=1)))
    assert found[code].errno == (errno or "")
    assert isinstance(compiler(table(flow_types=(pair,))).lower(tcp(tp_dst=1, tp_src=2)), Placement)
    assert isinstance(compiler(table(flow_types=(pair,))).lower(tcp()), Placement)


def test_fields_that_exclude_each_other():
    apart = flow_type(not_together=(NotTogether(fields=("ipv4_src", "ipv4_dst"), errno="EOPNOTSUPP"),))
    one = compiler(table(flow_types=(apart,)))
    assert (
        reasons(one.lower(tcp(ipv4_src="10.0.0.1", ipv4_dst="10.0.0.2")))["field.not_together"].errno
        == "EOPNOTSUPP"
    )
    assert isinstance(one.lower(tcp(ipv4_src="10.0.0.1")), Placement)


def test_what_the_nic_compares_on_its_own_is_a_caveat_unless_the_rule_says_it():
    own = flow_type(fields={"eth_dst": field(), "tp_dst": field()}, implicit=("eth_dst",))
    one = compiler(table(flow_types=(own,)))
    (caveat,) = one.lower(tcp(tp_dst=1)).caveats
    assert "catches less" in caveat
    assert one.lower(tcp(tp_dst=1, eth_dst="02:00:00:00:00:01")).caveats == ()


def test_shapes_take_the_listed_combinations_only():
    listed = table(mask_model="shapes", shapes=(shape(*FOUR), shape("ipv4_dst", "tp_dst")))
    assert isinstance(compiler(listed).lower(tcp(ipv4_dst="10.0.0.1", tp_dst=1)), Placement)
    found = reasons(compiler(listed).lower(tcp(ipv4_dst="10.0.0.1")))
    assert found["combination"].accepted == "{nw_src, nw_dst, tp_src, tp_dst} or {nw_dst, tp_dst}"
    assert found["combination"].errno == "EPROTONOSUPPORT"


def test_firmware_list_is_that_of_the_device():
    listed = table(mask_model="firmware_list", shapes=(shape("tp_src"),))
    live = state(listed, firmware_shapes=(("tcp4", frozenset({"tp_dst"})), ("udp4", frozenset({"tp_src"}))))
    one = Compiler([live], vfs=8)
    assert isinstance(one.lower(tcp(tp_dst=1)), Placement)
    assert "the firmware lists no" in reasons(one.lower(tcp(tp_src=1)))["combination"].message


def test_filters_that_are_ored_take_one_field():
    ored = table(
        combine="or",
        flow_types=(flow_type("ether", fixed={}, fields={"eth_type": field(), "vlan_pcp": field()}),),
    )
    assert isinstance(compiler(ored).lower(rule(eth_type=0x800)), Placement)
    found = reasons(compiler(ored).lower(rule(eth_type=0x800, vlan_pcp=3)))
    assert found["mask.widened"].errno == ""


def test_one_mask_per_port_is_fixed_by_the_first_rule_and_freed_with_the_last():
    free = {"eth_type": (0x800,)}
    types = (
        flow_type("tcp4", fields=dict.fromkeys(FOUR, "any")),
        flow_type("udp4", fixed=free | {"ip_proto": (17,)}, fields=dict.fromkeys(FOUR, "any")),
        flow_type("ip4", fixed=free | {"ip_proto": ()}, fields=dict.fromkeys(FOUR[:2], "any")),
    )
    one = compiler(table(mask_model="one_mask_per_port", flow_types=types))
    first, second = one.place_many(
        [tcp(ipv4_dst="10.0.0.0/8"), rule(eth_type=0x800, ip_proto=17, ipv4_dst="11.0.0.0/8")]
    )
    assert isinstance(first, Placement)
    assert second.flow_type == "udp4"
    assert reasons(one.lower(tcp(ipv4_dst="12.0.0.0/16")))["mask.second"].errno == "EINVAL"
    assert "mask.second" in reasons(
        one.lower(rule(ipv4_dst="12.0.0.0/8"))
    )  # whether L4 is compared is of the mask
    one.release(refs(first, second))
    assert isinstance(one.lower(tcp(ipv4_dst="12.0.0.0/16")), Placement)


def test_one_mask_is_shared_by_the_tables_of_a_bank():
    tables = [
        table(name, bank="fdir", mask_model="one_mask_per_port", actions=frozenset({action}))
        for name, action in (("a", "vf"), ("b", "drop"))
    ]
    one = compiler(*tables)
    one.place_many([tcp(ToVf(vf=1), tp_dst=1)])
    assert "mask.second" in reasons(one.lower(tcp(Drop(), tp_src=1)))
    assert one.lower(tcp(Drop(), tp_dst=2)).table == "b"


def test_one_input_set_per_flow_type():
    types = (flow_type("tcp4"), flow_type("udp4", fixed={"eth_type": (0x800,), "ip_proto": (17,)}))
    one = compiler(table(mask_model="one_input_set_per_flow_type", flow_types=types))
    first, other = one.place_many([tcp(tp_dst=1), rule(eth_type=0x800, ip_proto=17, tp_src=1)])
    assert isinstance(other, Placement)  # another flow type, another input set
    found = reasons(one.lower(tcp(tp_src=1)))
    assert found["mask.second"].accepted == "{tp_dst}"
    assert isinstance(one.lower(tcp(tp_dst=2)), Placement)
    one.release(refs(first))
    assert isinstance(one.lower(tcp(tp_src=1)), Placement)
