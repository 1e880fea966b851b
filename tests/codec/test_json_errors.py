"""JSON that is wrong is refused: whatever the schema refuses, and what contradicts itself."""

from __future__ import annotations

import copy
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nicoffload.codec import RuleTextError, parse_rule, rule_from_json, rule_to_json
from nicoffload.codec.actions import FORMS
from nicoffload.errors import InvalidRequestError
from nicoffload.model import ACTION_NAMES, FIELDS
from nicoffload.schema import find_faults, load_schema

SOUND = rule_to_json(
    parse_rule(
        "priority=5,tcp,nw_dst=10.0.0.5,tp_dst=80-90 actions=push_vlan:5,police:1M:64k,mirror:pf,"
        "set_field:10.0.0.1->nw_dst,tunnel_set(id=1,src=1.1.1.1,dst=1.1.1.2),vf:1.2"
    )
)


@pytest.mark.parametrize(
    ("document", "path", "says"),
    [
        ([], "", "not an object"),
        ({}, "", "'actions' is missing"),
        ({"actions": []}, "/actions", "too short"),
        ({"actions": [{"type": "vf"}]}, "/actions/0", "'vf' is missing"),
        ({"actions": [{"type": "vf", "fv": 1}]}, "/actions/0", "did you mean vf?"),
        ({"actions": [{"type": "drpo"}]}, "/actions/0/type", "did you mean drop?"),
        ({"actions": [{"type": "vf", "vf": True}]}, "/actions/0/vf", "a whole number"),
        ({"actions": [{"type": "vf", "vf": 4096}]}, "/actions/0/vf", "above 4095"),
        ({"actions": [{"type": "drop"}], "prioritty": 1}, "/prioritty", "did you mean priority?"),
        ({"actions": [{"type": "drop"}], "priority": None}, "/priority", "whole number"),
        (
            {"actions": [{"type": "drop"}], "match": {"ipv4_dts": "1.2.3.4"}},
            "/match/ipv4_dts",
            "did you mean ipv4_dst?",
        ),
        ({"actions": [{"type": "drop"}], "match": {"tp_dst": 80}}, "/match/tp_dst", "means nothing unless"),
        (
            {"actions": [{"type": "drop"}], "match": {"ipv4_dst": "1.2.3"}},
            "/match/ipv4_dst",
            "no IPv4 address",
        ),
        ({"actions": [{"type": "drop"}], "match": {"vlan_vid": 4096}}, "/match/vlan_vid", "above 4095"),
        ({"actions": [{"type": "drop"}], "match": {"in_port": 1}}, "/match/in_port", "1 is a number"),
        ({"actions": [{"type": "drop"}], "match": {"in_port": "1"}}, "/match/in_port", "'1' is a number"),
        ({"actions": [{"type": "drop"}, {"type": "pf"}]}, "/actions", "exactly one of"),
        ({"actions": [{"type": "drop"}], "rule_id": "1"}, "/rule_id", "form"),
        (
            {"actions": [{"type": "pf"}, {"type": "tunnel_set", "tun_id": 1, "src": "x", "dst": "1.1.1.1"}]},
            "/actions/1",
            "tunnel end",
        ),
        (
            {"actions": [{"type": "pf"}, {"type": "set_field", "field": "tp_dst", "value": "1-2"}]},
            "/actions/1",
            "one value",
        ),
    ],
)
def test_each_fault_has_its_pointer(document, path, says):
    with pytest.raises(InvalidRequestError) as caught:
        rule_from_json(document)
    assert says in f"{caught.value} {caught.value.hint}"
    assert caught.value.path == path


def test_every_fault_is_listed():
    with pytest.raises(InvalidRequestError) as caught:
        rule_from_json(
            {"priority": -1, "match": {"tp_dst": 70000}, "actions": [{"type": "vf"}]}, source="rules.json"
        )
    for part in ("3 faults", "rules.json", "/priority", "/match/tp_dst", "/actions/0"):
        assert part in str(caught.value)


SCRAP = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 70000) | st.floats(allow_nan=False) | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=5,
)


def places(value, at=()):
    """Return the path of every value in a document."""
    yield at
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from places(inner, (*at, key))


@st.composite
def damaged(draw):
    """A sound document in which one value is another, a key is more, or a key is gone."""
    document = copy.deepcopy(SOUND)
    *way, last = draw(st.sampled_from([place for place in places(document) if place]))
    parent = document
    for key in way:
        parent = parent[key]
    match draw(st.sampled_from(["change", "remove", "add"])):
        case "change":
            parent[last] = draw(SCRAP)
        case "remove":
            del parent[last]
        case "add":
            target = parent[last] if isinstance(parent[last], dict) else document
            target[draw(st.text(max_size=6))] = draw(SCRAP)
    return document


@given(damaged())
def test_what_the_schema_refuses_is_refused(document):
    faults = find_faults(document, "flow-rule")
    try:
        rule_from_json(document)
    except InvalidRequestError:
        return
    assert faults == ()


@given(SCRAP)
def test_no_value_gets_past_the_error_family(document):
    with pytest.raises(InvalidRequestError):
        rule_from_json(document)


def test_the_schema_has_the_fields_of_the_model_with_their_widths():
    schema = load_schema("flow-rule")["$defs"]
    widths = {
        name: schema[spec["$ref"].removeprefix("#/$defs/")]["maximum"]
        for name, spec in schema["match"]["properties"].items()
    }
    assert widths == {name: spec.full_mask for name, spec in FIELDS.items()}
    assert schema["action_set_field"]["properties"]["field"]["enum"] == list(FIELDS)


def test_the_schema_has_the_actions_of_the_model_with_their_arguments():
    schema = load_schema("flow-rule")["$defs"]
    names = schema["action"]["properties"]["type"]["enum"]
    assert names == list(ACTION_NAMES.values()) == list(FORMS)
    for kind, name in ACTION_NAMES.items():
        assert set(schema[f"action_{name}"]["properties"]) == {"type", *kind.__dataclass_fields__}


def test_a_large_tunnel_key_survives_readers_that_have_no_64_bit_numbers():
    rule = parse_rule("tun_id=18446744073709551615 actions=pf")
    document = json.loads(json.dumps(rule_to_json(rule)))
    assert document["match"] == {"tun_id": "18446744073709551615"}
    assert rule_from_json(document) == rule


def test_text_error_is_one_of_the_family():
    assert issubclass(RuleTextError, InvalidRequestError)
