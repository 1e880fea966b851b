"""What holds for every profile that this repository brings."""

from __future__ import annotations

import dataclasses

import pytest

from nicoffload.profiles import check_families
from nicoffload.profiles.types import Counters, Duplicate, FieldRule, Needs, Rate, Setting
from nicoffload.schema import load_schema

FAMILIES = (
    "i40e", "ice", "igb_82576", "igb_i210", "igb_i350", "igb_i354", "ixgbe", "mlx4", "mlx5",
    "sfc_ef10", "sfc_ef100", "sfc_falcon", "sfc_siena", "sfn5122f", "netdevsim", "softnic",
    "softnic_u32",
)  # fmt: skip

# PCI ids as the sheet has them: 3.4, 4.4, 5.4, 6.5, 7.5, 8.3, 9, 10.4, 11, 12.
PF_IDS = {
    "igb_82576": "8086: 10c9 10e6 10e7 10e8 1526 150a 1518 150d",
    "igb_i350": "8086: 1521 1522 1523 1524",
    "igb_i210": "8086: 1533 1536 1537 1538 157b 157c",
    "igb_i354": "8086: 1f40 1f41 1f45 1539",
    "ixgbe": "8086: 10f7 10f8 10f9 10fb 10fc 1507 1514 1517 151c 1529 152a 154a 154d 154f 1557 1558 1528 1560 1563 "
    "15d1 15aa 15ab 15ac 15ad 15ae 15b0 15c2 15c3 15c4 15c6 15c7 15c8 15ce 15e4 15e5",
    "i40e": "8086: 1572 1574 1580 1581 1583 1584 1585 1586 1587 1588 1589 158a 158b 15ff 104e 104f 0dd2 0cf8 0d58 "
    "37ce 37cf 37d0 37d1 37d2 37d3 0dda",
    "ice": "8086: 1591 1592 1593 1599 159a 159b 188a 188b 188c 188d 188e 124c 124d 124e 124f 151d 1890 1891 1892 "
    "1893 1894 1897 1898 1899 189a 1888 579c 579d 579e 579f 12d1 12d2 12d3 12d4 12d5 12d8 12da 12dc 12dd 12de",
    "mlx5": "15b3: 1011 1013 1015 1017 1019 101b 101d 101f 1021 1023 1025 1027 2101 a2d2 a2d6 a2dc a2df",
    "mlx4": "15b3: 1003 1007 1005 1006 1008 1009 100a 100b 100c 100d 100e 100f 1010 6340 634a 6354 6732 673c 6368 "
    "6750 6372 675a 6764 6746 676e",
    "sfc_falcon": "1924: 0710",
    "sfc_siena": "1924: 0803 0813",
    "sfc_ef10": "1924: 0903 0923 0a03 0b03 0c03 2c03 8c03 ac03",
    "sfc_ef100": "10ee: 0100",
    "sfn5122f": "1924:",
    "netdevsim": "0000:",
    "softnic": "0000:",
    "softnic_u32": "0000:",
}
VF_IDS = {
    "igb_82576": "8086: 10ca",
    "igb_i350": "8086: 1520",
    "igb_i210": "8086:",
    "igb_i354": "8086:",
    "ixgbe": "8086: 10ed 1515 1565 15a8 15c5 152e 1530 1564 15a9 57ad",
    "i40e": "8086: 154c 1571 37cd 1889",
    "ice": "8086: 1889",
    "mlx5": "15b3: 1012 1014 1016 1018 101a 101c 101e a2d3",
    "mlx4": "15b3: 1002 1004",
    "sfc_falcon": "1924:",
    "sfc_siena": "1924: 1803 1813",
    "sfc_ef10": "1924: 1903 1923 1a03 1b03",
    "sfc_ef100": "10ee: 1100",
    "sfn5122f": "1924:",
    "netdevsim": "0000:",
    "softnic": "0000:",
    "softnic_u32": "0000:",
}
WITHOUT_OFFLOAD = {
    "igb_i354": "8086: 150e 150f 1510 1511 1516 1527 10a7 10a9 10d6",
    "ixgbe": "8086: 10b6 10c6 10c7 10c8 150b 10db 10dd 10e1 10ec 10f1 10f4 1508",
    "sfc_falcon": "1924: 0703",
}


def ids(text):
    vendor, *devices = text.replace(":", "").split()
    return {f"{vendor}:{device}" for device in devices}


def test_all_families_are_there(catalog):
    assert catalog.families() == sorted(FAMILIES)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_profile_is_sound(catalog, family):
    assert catalog.get(family).family == family


@pytest.mark.parametrize("family", FAMILIES)
def test_pci_ids_are_those_of_the_driver(catalog, family):
    found = catalog.get(family).pci_ids
    assert set(found.pf) == ids(PF_IDS[family])
    assert set(found.vf) == ids(VF_IDS[family])
    assert set(found.without_offload) == ids(WITHOUT_OFFLOAD.get(family, "0000:"))


def test_no_pci_id_is_in_two_families_of_a_vendor(catalog):
    check_families([catalog.get(family) for family in FAMILIES])


def sourceless(part, path=""):
    """Return the places that state something and name no source."""
    if not isinstance(part, dict):
        inner = enumerate(part) if isinstance(part, list) else ()
        return [place for key, value in inner for place in sourceless(value, f"{path}/{key}")]
    wanted = (
        "mechanism" in part
        or "supported" in part
        or "errors" in part
        or ("values" in part and "byte_basis" in part)
    )
    wanted |= (
        {"id", "about"} <= set(part) or "search_depth" in part or path.endswith(("/needs", "/action_rules"))
    )
    own = [path] if wanted and not part.get("source") else []
    return own + [place for key, value in part.items() for place in sourceless(value, f"{path}/{key}")]


@pytest.mark.parametrize("family", FAMILIES)
def test_every_table_setting_and_quirk_names_its_source(documents, family):
    assert sourceless(documents[family]) == []
    assert sourceless({"rates": {"min_tx": {"supported": "no"}}}) == ["/rates/min_tx"]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_source_names_a_file_of_the_kernel_or_the_paper(documents, family):
    for quirk in documents[family]["quirks"]:
        source = quirk["source"]
        if documents[family]["provenance"]["kind"] == "own-source":
            continue  # its source is ours, and the page's links say whether the file is there
        assert ".c" in source or "FlexivOffload" in source or source == "sfc/falcon", quirk


@pytest.mark.parametrize("family", FAMILIES)
def test_no_field_that_is_silently_left_out_of_a_match_is_without_a_quirk(catalog, family):
    """Silent widening is the worst class for an abstraction: a person must be able to read of it."""
    profile = catalog.get(family)
    for table in profile.tables:
        for flow_type in table.flow_types:
            for name, rule in flow_type.fields.items():
                if (
                    rule.mask in ("ignored", "exact_or_ignored")
                    and name.startswith("vlan")
                    and family != "ixgbe"
                ):
                    assert any("VLAN" in quirk.text for quirk in profile.quirks)


def test_every_quirk_about_code_that_was_not_stated_is_marked(catalog):
    """The sheet's [inf] marks: 3.1, 3.2, 4.1, 7.1, 7.2, 8.1."""
    inferred = {
        (family, quirk.id) for family in FAMILIES for quirk in catalog.get(family).quirks if quirk.inferred
    }
    assert inferred == {
        ("igb_i350", "fields_are_alternatives"),
        ("igb_i210", "fields_are_alternatives"),
        ("igb_i354", "fields_are_alternatives"),
        ("igb_i350", "flower_vlan_priority_unshifted"),
        ("igb_i210", "flower_vlan_priority_unshifted"),
        ("igb_i354", "flower_vlan_priority_unshifted"),
        ("ixgbe", "vf_queue_may_be_another_vf"),
        ("mlx5", "five_l2_fields"),
        ("mlx5", "matchall_shares_limit"),
        ("mlx4", "lower_slot_first"),
    }


def test_no_profile_claims_a_byte_basis_that_no_source_states(catalog):
    for family in FAMILIES:
        if family.startswith("softnic"):
            continue  # its source is ours
        profile = catalog.get(family)
        counters = [
            profile.statistics.vf,
            profile.statistics.port,
            *(table.counters for table in profile.tables),
        ]
        assert {one.byte_basis for one in counters if one is not None} <= {"unknown"}


@pytest.mark.parametrize(
    ("definition", "kind", "renamed"),
    [
        ("setting", Setting, {}),
        ("rate", Rate, {}),
        ("counters", Counters, {}),
    ],
)
def test_the_value_has_the_names_of_the_schema(definition, kind, renamed):
    names = set(load_schema("nic-profile")["$defs"][definition]["properties"])
    assert {renamed.get(name, name) for name in names} == {field.name for field in dataclasses.fields(kind)}


def test_nested_values_have_the_names_of_the_schema():
    table = load_schema("nic-profile")["$defs"]["table"]["properties"]
    for part, kind in (("needs", Needs), ("duplicate", Duplicate)):
        assert set(table[part]["properties"]) == {field.name for field in dataclasses.fields(kind)}
    rule = load_schema("nic-profile")["$defs"]["field_rule"]["oneOf"][1]["properties"]
    assert set(rule) == {field.name for field in dataclasses.fields(FieldRule)}
