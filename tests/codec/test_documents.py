"""YAML and JSON from outside: what is wrong has its line and column; nothing is read as what it does not look like."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nicoffload.codec import load_document, load_json, load_yaml
from nicoffload.errors import InvalidRequestError, PolicyError


def test_yaml_is_read_as_it_looks():
    text = "mac: 12:00:00:00:00:01\nfrag: no\nday: 2001-01-01\nn: 5\nf: 1.5\nnone:\nhex: 0x10\nzip: 010\ngo: true\n"
    assert load_yaml(text) == {
        "mac": "12:00:00:00:00:01",
        "frag": "no",
        "day": "2001-01-01",
        "n": 5,
        "f": 1.5,
        "none": None,
        "hex": 16,
        "zip": "010",
        "go": True,
    }


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: 1\nb: [1, 2\n", "line 3, column 1"),
        ("a: 1\n  b: 2\n", "line 2, column 4"),
        ("a: 1\na: 2\n", "line 2, column 1: the key a is given twice"),
        ("a:\n  b: 1\n  b: 2\n", "line 3, column 3: the key b is given twice"),
        ("a: &x 1\nb: *x\n", "line 1, column 4: anchors"),
        ("a: !!python/name:os.system x\n", "line 1, column 4: anchors, aliases and tags"),
        ("1: 2\n", "line 1, column 1: a key is text"),
        ("? [a]\n: 2\n", "a key is text"),
        ("a: 1\n---\nb: 2\n", "another document"),
        ("a: \x01", "unacceptable character"),
        ("\t- a", "line 1"),
        ("", "holds nothing"),
        ("  \n\n", "holds nothing"),
        ("- " * 5000 + "a", "nested too deeply"),
        ("[" * 5000, "nested too deeply"),
    ],
)
def test_broken_yaml_has_its_place(text, says):
    with pytest.raises(InvalidRequestError) as caught:
        load_document(text, "state.yaml")
    assert str(caught.value).startswith("state.yaml: ")
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"a": 1,\n "b": }', "line 2, column 7"),
        ('{"a": 1, "a": 2}', "the key /a is given twice"),
        ('{"a": [{"b": 1, "b": 2}]}', "the key /a/0/b is given twice"),
        ('{"a": NaN}', "NaN is no JSON"),
        ('{"a": 1}\n{"b": 2}', "line 2, column 1: something follows"),
        ("[" * 100_000, "nested too deeply"),
        ("1" * 5000, "limit"),
        ("", "holds nothing"),
    ],
)
def test_broken_json_has_its_place(text, says):
    with pytest.raises(InvalidRequestError) as caught:
        load_document(text, "state.json")
    assert str(caught.value).startswith("state.json: ")
    assert says in str(caught.value)


def test_the_form_is_told_by_name_or_by_beginning():
    assert load_document("{a: 1}", "x.yaml") == {"a": 1}
    assert load_document('{"a": 1}', "-") == {"a": 1}
    assert load_document("a: 1", "-") == {"a": 1}


def test_the_caller_says_what_is_raised():
    with pytest.raises(PolicyError):
        load_document("a: [", "policy.yaml", error=PolicyError)
    with pytest.raises(PolicyError):
        load_json("{", "policy.json", error=PolicyError)


@given(st.text(alphabet=st.sampled_from("ab:-[]{}!&*?|>'\"#%@`,\n\t 01.~"), max_size=40))
def test_no_text_gets_past_the_error_family(text):
    for load in (load_document, load_yaml, load_json):
        with contextlib.suppress(InvalidRequestError):
            load(text, "x")
