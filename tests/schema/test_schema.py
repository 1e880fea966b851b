"""A broken document is explained: where, what, what would be accepted, what was probably meant."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from pathlib import Path

import pytest

from nicoffload.errors import InvalidRequestError, PolicyError, ProfileError
from nicoffload.schema import find_faults, load_schema, pointer, validate

PROFILE = Path(__file__).parents[2] / "plugins" / "intel" / "nicoffload_intel" / "profiles" / "ixgbe.json"


@pytest.fixture(scope="module")
def sound():
    return json.loads(PROFILE.read_text(encoding="utf-8"))


@pytest.fixture
def document(sound):
    return copy.deepcopy(sound)


def only_fault(document):
    faults = find_faults(document, "nic-profile")
    assert len(faults) == 1, [str(fault) for fault in faults]
    return faults[0]


def test_a_sound_document_passes(document):
    assert find_faults(document, "nic-profile") == ()
    validate(document, "nic-profile")


def test_a_misspelt_key_gets_the_one_that_was_meant(document):
    document["tables"][0]["capactiy"] = document["tables"][0].pop("capacity")
    missing, unknown = find_faults(document, "nic-profile")
    assert (missing.path, missing.message) == ("/tables/0", "the key 'capacity' is missing")
    assert unknown.path == "/tables/0/capactiy"
    assert unknown.hint == "did you mean capacity?"
    assert "accepted: name, mechanism" in unknown.message


def test_a_misspelt_name_from_a_closed_list_of_keys_gets_the_one_that_was_meant(document):
    document["tables"][0]["errors"]["slot_rnage"] = "EINVAL"
    fault = only_fault(document)
    assert fault.path == "/tables/0/errors/slot_rnage"
    assert fault.hint == "did you mean slot_range?"


def test_a_misspelt_value_gets_the_one_that_was_meant(document):
    document["tables"][0]["mask_model"] = "one_mask_per_prot"
    fault = only_fault(document)
    assert fault.path == "/tables/0/mask_model"
    assert '"one_mask_per_prot" is none of free, one_mask_per_port' in fault.message
    assert fault.hint == "did you mean one_mask_per_port?"


@pytest.mark.parametrize(
    ("rule", "path", "hint"),
    [
        ("exakt", "", "did you mean exact?"),
        ({"mask": "exakt"}, "/mask", "did you mean exact?"),
        ({"mask": "exact", "valuse": [1]}, "/valuse", "did you mean values?"),
    ],
)
def test_of_several_forms_the_one_that_was_meant_is_explained(document, rule, path, hint):
    document["tables"][0]["flow_types"][0]["fields"]["ipv4_src"] = rule
    fault = only_fault(document)
    assert fault.path == "/tables/0/flow_types/0/fields/ipv4_src" + path
    assert fault.hint == hint


def test_where_no_form_was_meant_all_are_named(document):
    document["sriov"] = 7
    fault = only_fault(document)
    assert fault.path == "/sriov"
    assert fault.message == "7 is not accepted; accepted: null or an object"


def test_an_enum_within_a_choice_is_named_with_the_form_of_the_other_branch(document):
    document["tables"][0]["duplicate"]["answer"] = "replase"
    fault = only_fault(document)
    assert "accepted: replace, allowed, unknown or a text of the form" in fault.message
    assert fault.hint == "did you mean replace?"


def test_types_are_named_in_words(document):
    document["sriov"]["max_vfs"] = "63"
    assert only_fault(document).message == '"63" is a text, not a whole number or null'


def test_all_faults_are_listed_and_the_path_holds_them_all(document):
    document["sriov"]["max_vfs"] = "63"
    document["sriov"]["sysfs_write"] = 3
    with pytest.raises(ProfileError) as caught:
        validate(document, "nic-profile", error=ProfileError, source="x.json")
    assert caught.value.path == "/sriov"
    assert "2 faults (in x.json):" in caught.value.message
    assert "/sriov/max_vfs: " in caught.value.message
    assert "/sriov/sysfs_write: " in caught.value.message


def test_the_error_is_of_the_class_asked_for(document):
    document["family"] = 1
    with pytest.raises(InvalidRequestError) as caught:
        validate(document, "nic-profile")
    assert not isinstance(caught.value, ProfileError | PolicyError)
    with pytest.raises(PolicyError):
        validate(document, "nic-profile", error=PolicyError)


@pytest.mark.parametrize(
    "document", [None, [], "", 0, {1: 2}, {"family": float("nan")}, {"tables": [[]]}, {b"": 1}]
)
def test_anything_else_is_refused_in_words(document):
    with pytest.raises(ProfileError) as caught:
        validate(document, "nic-profile", error=ProfileError)
    assert "Traceback" not in str(caught.value)


def test_a_long_value_is_cut(document):
    document["family"] = "X" * 10_000
    assert len(only_fault(document).message) < 300


def test_pointers_are_escaped():
    assert pointer(["a/b", 0, "c~d"]) == "/a~1b/0/c~0d"
    assert pointer([]) == ""


def test_every_schema_is_one():
    from jsonschema import Draft202012Validator

    names = sorted(path.name for path in (Path(__file__).parents[2] / "schemas").glob("*.schema.json"))
    assert "nic-profile.schema.json" in names
    for name in names:
        schema = load_schema(name.removesuffix(".schema.json"))
        Draft202012Validator.check_schema(schema)
        assert schema["$id"].endswith(name)


def test_jsonschema_is_not_imported_before_a_document_is_checked():
    code = "import sys, nicoffload.schema, nicoffload.profiles; sys.exit('jsonschema' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
