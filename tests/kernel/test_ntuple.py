"""Rules of the receive classifier: the same bytes as ethtool sends, and a table that no driver can confuse."""

from __future__ import annotations

import dataclasses
import errno
import random
import shutil
import struct
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nicoffload.errors import (
    DeviceBusyError,
    InvalidRequestError,
    KernelError,
    NotFoundError,
    NotSupportedError,
    ResourceExhaustedError,
    VerificationError,
)
from nicoffload.kernel.ntuple import (
    FlowType,
    NtupleRule,
    NtupleTable,
    add_command,
    flow_type,
    lower_rule,
    raise_rule,
)
from nicoffload.kernel.ntuple_layout import RXNFC_BYTES, decode_rule, encode_rule, location_of
from nicoffload.model import Drop, FlowRule, Masked, Match, PopVlan, ToPf, ToQueue, ToVf
from tests.kernel.classifier import ANY, INSERT, LIST, RULE, Driver, table
from tests.kernel.random_ntuple import random_rule, random_rules
from tests.kernel.recording import RecordingKernel, refusal

C_COMPILER = shutil.which("cc") and Path("/usr/include/linux/ethtool.h").exists()


def test_bytes_of_every_flow_type_stay_what_they_are(golden):
    rules = random_rules(54, seed=3)
    lines = [f"{add_command('nic0', rule)}\n{encode_rule(INSERT, rule).hex()}\n" for rule in rules]
    golden.check_text("golden/ntuple.txt", "".join(lines))


@pytest.mark.skipif(not C_COMPILER, reason="needs a C compiler and linux/ethtool.h")
def test_the_structures_are_those_of_the_c_compiler(tmp_path):
    source = tmp_path / "layout.c"
    source.write_text(
        """
        #include <stddef.h>
        #include <linux/ethtool.h>
        #define at(part, place) _Static_assert(offsetof(struct ethtool_rxnfc, part) == place, #part)
        _Static_assert(sizeof(struct ethtool_rxnfc) == 192, "size");
        at(data, 8); at(fs.flow_type, 16); at(fs.h_u, 20); at(fs.h_ext, 72); at(fs.m_u, 92); at(fs.m_ext, 144);
        at(fs.h_u.ah_ip4_spec.spi, 28); at(fs.h_u.esp_ip6_spec.spi, 52); at(fs.h_u.esp_ip6_spec.tclass, 56);
        at(fs.ring_cookie, 168); at(fs.location, 176); at(rule_cnt, 184); at(rule_locs, 188);
        """,
        "ascii",
    )
    done = subprocess.run(["cc", "-fsyntax-only", str(source)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@given(seed=st.integers(0, 1 << 32), flow=st.sampled_from(FlowType), location=st.integers(0, 0xFFFF_FFFB))
def test_what_is_written_is_read(seed, flow, location):
    rule = random_rule(random.Random(seed), flow, location)
    state = decode_rule(encode_rule(INSERT, rule))
    assert (state.rule, state.foreign, state.location) == (rule, "", location)


@given(data=st.binary(min_size=RXNFC_BYTES, max_size=RXNFC_BYTES + 8))
def test_whatever_a_driver_answers_is_a_rule_or_foreign(data):
    state = decode_rule(data)
    assert (state.rule is None) == bool(state.foreign)


@given(seed=st.integers(0, 1 << 32), changes=st.lists(st.tuples(st.integers(16, 187), st.integers(0, 255))))
def test_a_rule_that_was_tampered_with_is_a_rule_or_foreign(seed, changes):
    chance = random.Random(seed)
    data = bytearray(encode_rule(INSERT, random_rule(chance, chance.choice(list(FlowType)), 1)))
    for place, value in changes:
        data[place] = value
    state = decode_rule(bytes(data))
    assert (state.rule is None) == bool(state.foreign)
    if state.rule is not None:
        assert decode_rule(encode_rule(INSERT, state.rule)).rule == state.rule


def test_an_answer_cut_short_is_refused():
    with pytest.raises(KernelError, match="191 of 192"):
        decode_rule(bytes(191))


def test_foreign_rules_say_what_is_foreign():
    plain = encode_rule(INSERT, RULE)
    for offset, form, value, word in (
        (16, "=I", 0x04, "flow type 0x4"),
        (168, "=Q", 0xFFFF_FFFF_FFFF_FFFE, "ring cookie"),
        (92 + 13, "=B", 1, "no field"),
    ):
        data = bytearray(plain)
        struct.pack_into(form, data, offset, value)
        assert word in decode_rule(bytes(data)).foreign


@pytest.mark.parametrize(
    ("match", "flow"),
    [
        (Match.of(eth_type=0x0800, ip_proto=6, tp_dst=80), FlowType.TCP4),
        (Match.of(eth_type=0x86DD, ip_proto=132), FlowType.SCTP6),
        (Match.of(ipv6_dst="2001:db8::/32"), FlowType.IP6),
        (Match.of(ipv4_src="10.0.0.1", ip_proto="0x6/0xf"), FlowType.IP4),
        (Match.of(eth_type=0x0800, ip_proto=50), FlowType.IP4),
        (Match.of(eth_type=0x0800, eth_dst="02:00:00:00:00:01"), FlowType.ETHER),
        (Match.of(vlan_vid=5), FlowType.ETHER),
        (Match(), FlowType.ETHER),
    ],
)
def test_a_flow_rule_goes_there_and_back(match, flow):
    rule = FlowRule(match=match, actions=(ToVf(vf=0),))
    lowered = lower_rule(rule, location=4)
    assert flow_type(match) is lowered.flow is flow
    read = decode_rule(encode_rule(INSERT, lowered)).rule
    assert read is not None
    assert raise_rule(read, rule_id=rule.rule_id) == rule


def test_a_vf_is_its_index_and_one_in_the_ring_cookie():
    for fate, cookie in (
        (ToVf(vf=0, queue=7), 0x1_0000_0007),
        (ToVf(vf=254), 0xFF_0000_0000),
        (ToQueue(queue=9), 9),
        (Drop(), 0xFFFF_FFFF_FFFF_FFFF),
    ):
        data = encode_rule(INSERT, dataclasses.replace(RULE, fate=fate))
        assert struct.unpack_from("=Q", data, 168) == (cookie,)
    with pytest.raises(InvalidRequestError, match="up to 254"):
        dataclasses.replace(RULE, fate=ToVf(vf=255))


def test_all_that_does_not_fit_is_named():
    rule = FlowRule(
        match=Match.of(ipv4_dst="10.0.0.1", ip_ttl=3, eth_src="02:00:00:00:00:01", ip_proto=6, tp_dst="1-9"),
        actions=(PopVlan(), ToPf()),
    )
    with pytest.raises(NotSupportedError) as refused:
        lower_rule(rule, device="nic0")
    assert [reason.path for reason in refused.value.reasons] == [
        "/match/eth_src",
        "/match/ip_ttl",
        "/match/tp_dst",
        "/actions",
        "/actions",
    ]


def test_a_rule_of_the_classifier_that_the_model_has_no_words_for_is_not_raised():
    with pytest.raises(NotSupportedError) as refused:
        raise_rule(dataclasses.replace(RULE, user_defined=Masked(1, 1), rss_context=1))
    assert [reason.path for reason in refused.value.reasons] == ["/rss_context", "/user_defined"]


def test_a_field_of_another_flow_type_is_refused():
    with pytest.raises(InvalidRequestError, match="type udp4"):
        NtupleRule(flow=FlowType.UDP4, match=Match.of(eth_type=0x0800, ip_proto=6), fate=Drop())
    with pytest.raises(InvalidRequestError, match="plain IP"):
        dataclasses.replace(RULE, l4_bytes=Masked(1, 1))


def test_rules_are_counted_listed_read_and_deleted():
    driver = Driver()
    ours = table(driver)
    places = [ours.insert(dataclasses.replace(RULE, fate=ToQueue(queue=queue))) for queue in range(3)]
    assert places == [7, 6, 5]
    info = ours.info()
    assert (info.rules, info.size, info.driver_chooses) == (3, 8, False)
    assert [(state.location, state.rule.fate.queue) for state in ours.rules()] == [(5, 2), (6, 1), (7, 0)]
    ours.delete(6)
    assert ours.locations() == [5, 7]
    assert ours.insert(dataclasses.replace(RULE, location=0)) == 0


def test_a_driver_that_chooses_is_asked_to_and_tells():
    driver = Driver(chooses=True)
    kernel = RecordingKernel(ethtool=driver)
    assert [NtupleTable(kernel, "nic0").insert(RULE) for _ in range(2)] == [0, 1]
    assert location_of(kernel.ioctls[-1]) == ANY
    assert NtupleTable(kernel, "nic0").info().driver_chooses


def test_where_a_driver_does_not_tell_the_rule_is_looked_up():
    driver = Driver(chooses=True)

    def silent(asked):
        answer = driver(asked)
        return asked if asked[0] == INSERT else answer

    other = dataclasses.replace(RULE, fate=Drop())
    assert [table(silent).insert(one) for one in (other, RULE)] == [0, 1]
    with pytest.raises(VerificationError, match="did not say where") as caught:
        table(silent).insert(RULE)  # like one that is there: which of them is it?
    assert caught.value.uncertain


@pytest.mark.parametrize("number", [errno.ENOENT, errno.EINVAL])
def test_an_empty_slot_is_not_found_by_whichever_errno(number):
    ours = table(Driver(empty=number))
    for call in (ours.get, ours.delete):
        with pytest.raises(NotFoundError):
            call(3)


def test_without_a_slot_there_is_none_to_give():
    driver = Driver(size=1)
    table(driver).insert(RULE)
    with pytest.raises(ResourceExhaustedError) as full:
        table(driver).insert(RULE)
    assert (full.value.limit, full.value.in_use) == (1, 1)
    with pytest.raises(InvalidRequestError, match="free slot"):
        table(Driver(tells=False)).insert(RULE)


def test_a_device_without_a_classifier_says_so():
    with pytest.raises(NotSupportedError) as refused:
        NtupleTable(RecordingKernel(), "nic0", device="0000:01:00.0").info()
    assert refused.value.capability == "ntuple"
    assert refused.value.device == "0000:01:00.0"


def test_a_list_that_always_grows_is_given_up():
    def grows(asked):
        if asked[0] == LIST:
            raise refusal(errno.EMSGSIZE)
        return asked

    with pytest.raises(DeviceBusyError, match="again and again"):
        table(grows).rules()


def test_a_driver_that_claims_too_much_is_not_believed():
    def claims(asked):
        answer = bytearray(asked)
        struct.pack_into("=I", answer, 184, 5 if asked[0] == LIST else 1)
        return bytes(answer)

    with pytest.raises(KernelError, match="5 rules in a list of 1"):
        table(claims).rules()


@pytest.mark.parametrize(
    ("flow", "number", "ether", "proto", "spi_at"),
    [
        (FlowType.AH4, 0x09, 0x0800, 51, 8),
        (FlowType.ESP4, 0x0A, 0x0800, 50, 8),
        (FlowType.AH6, 0x0B, 0x86DD, 51, 32),
        (FlowType.ESP6, 0x0C, 0x86DD, 50, 32),
    ],
)
def test_ipsec_is_told_by_its_index(flow, number, ether, proto, spi_at):
    rule = NtupleRule(
        flow=flow,
        match=Match.of(eth_type=ether, ip_proto=proto),
        fate=ToQueue(queue=3),
        location=1,
        spi=Masked(0xC0FFEE, 0xFFFF_FFFF),
    )
    data = encode_rule(INSERT, rule)
    assert struct.unpack_from("=I", data, 16) == (number,)
    assert struct.unpack_from(">I", data, 20 + spi_at) == (0xC0FFEE,)
    assert decode_rule(data).rule == rule
    with pytest.raises(NotSupportedError) as refused:
        raise_rule(rule)
    assert refused.value.reasons[0].path == "/spi"
    with pytest.raises(InvalidRequestError, match="AH and ESP"):
        dataclasses.replace(RULE, spi=Masked(1, 1))
