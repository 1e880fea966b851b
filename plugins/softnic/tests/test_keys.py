"""Matches become keys and come back as they were; no kernel is needed."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from nicoffload.model import FIELDS, Masked, Match
from nicoffload_softnic import actions, keys, layout
from nicoffload_softnic.classes import ClassTable

KINDS = {
    "udp4": ({"eth_type": 0x0800, "ip_proto": 17}, ("ipv4_src", "ipv4_dst", "tp_src", "tp_dst")),
    "icmp4": ({"eth_type": 0x0800, "ip_proto": 1}, ("ipv4_src", "ipv4_dst", "icmp_type", "icmp_code")),
    "tcp6": ({"eth_type": 0x86DD, "ip_proto": 6}, ("ipv6_src", "ipv6_dst", "tp_src", "tp_dst")),
    "icmp6": ({"eth_type": 0x86DD, "ip_proto": 58}, ("ipv6_src", "icmp_type", "icmp_code")),
    "ip": ({"eth_type": 0x0800}, ("ipv4_dst", "ip_tos", "ip_ttl", "ip_frag")),
    "arp": ({"eth_type": 0x0806}, ()),
    "any": ({}, ()),
}
COMMON = ("eth_src", "eth_dst", "vlan_vid", "vlan_dei", "vlan_pcp")


@st.composite
def matches(draw):
    fixed, own = KINDS[draw(st.sampled_from(sorted(KINDS)))]
    fields = {name: Masked(value, FIELDS[name].full_mask) for name, value in fixed.items()}
    for name in draw(st.sets(st.sampled_from((*COMMON, *own)))):
        mask = draw(st.integers(1, FIELDS[name].full_mask))
        fields[name] = Masked(draw(st.integers(0, mask)) & mask, mask)
    if draw(st.booleans()):
        fields["in_port"] = Masked(draw(st.integers(0, 129)), 0xFFFF)
    return Match(**fields)


@given(matches())
def test_a_match_comes_back_as_it_was(match):
    form = keys.form_of(match.shape)
    key = keys.encode(form, [match.values])[0].tobytes()
    assert keys.decode(key, form.mask) == match


@given(st.lists(matches(), min_size=2, max_size=2, unique=True))
def test_two_matches_never_become_one_key_in_one_class(two):
    made = []
    for match in two:
        form = keys.form_of(match.shape)
        made.append((form.mask, keys.encode(form, [match.values])[0].tobytes()))
    assert made[0] != made[1]


@given(matches())
def test_a_key_has_no_bit_outside_its_mask_but_what_names_its_port(match):
    form = keys.form_of(match.shape)
    key = bytearray(keys.encode(form, [match.values])[0].tobytes())
    key[layout.IN_PORT_GIVEN_AT] = 0
    assert all(value & ~mask == 0 for value, mask in zip(key, form.mask, strict=True))


@given(
    st.sampled_from([layout.NO_PORT, 0, 1, 2, 129]),
    st.sampled_from([layout.NO_PORT, 0, 1, 2, 129]),
    st.sampled_from([0, layout.RECORD_COUNT]),
    st.booleans(),
)
def test_actions_come_back_as_they_were(out, mirror, count, last):
    flags = count | (layout.RECORD_MIRROR_LAST if last and mirror != layout.NO_PORT else 0)
    decoded = actions.decode(out, mirror, flags)
    assert actions.encode(decoded, actions.Targets(128, "soft:x")) == (out, mirror, flags)


class Waits:
    """Stands in for the kernel: notes that packets were waited for."""

    def __init__(self):
        self.count = 0

    def await_readers(self):
        self.count += 1


def table():
    import numpy as np

    config, banks = np.zeros(1, layout.CONFIG)[0], np.zeros(2, layout.CLASSES)
    kernel = Waits()
    return ClassTable(kernel, config, banks), config, banks, kernel


def mask(number):
    return bytes([number]) + bytes(layout.KEY_BYTES - 1)


def test_classes_are_tried_highest_rank_first_and_read_back():
    classes, config, banks, kernel = table()
    low, high = classes.find(mask(1), named=False), classes.find(bytes([0] * 40 + [1] + [0] * 23), named=True)
    classes.raise_rank({low.number: 5 << layout.RANK_BITS, high.number: 9 << layout.RANK_BITS})
    low.rules = high.rules = 1
    bank = banks[config["bank"]]
    assert bank["count"] == 2
    assert bank["item"]["max_rank"][0] > bank["item"]["max_rank"][1]
    assert kernel.count == 1
    again = ClassTable(kernel, config, banks)
    again.read()
    for one in (low, high):
        found = again.by_number(one.number)
        assert (found.mask, found.named, found.is_short) == (one.mask, one.named, one.is_short)
    assert (low.is_short, high.is_short) == (True, False)


def test_a_rule_of_the_same_priority_costs_no_new_bank():
    classes, config, _, _ = table()
    one = classes.find(mask(1), named=False)
    classes.raise_rank({one.number: 7})
    bank = int(config["bank"])
    classes.raise_rank({one.number: 99})
    assert config["bank"] == bank


def test_all_classes_in_use_leaves_no_room_until_one_is_empty():
    classes, _, _, _ = table()
    made = [classes.find(mask(number), named=False) for number in range(1, layout.MAX_CLASSES + 1)]
    for one in made:
        classes.raise_rank({one.number: 1})
        one.rules = 1
    assert classes.find(mask(200), named=False) is None
    made[3].rules = 0
    assert classes.find(mask(200), named=False).number == made[3].number
