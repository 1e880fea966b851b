"""Profiles are read whole or refused with every fault; contradictions that a schema can't see are found."""

from __future__ import annotations

import json

import pytest

from nicoffload.errors import NotFoundError, ProfileError
from nicoffload.profiles import Catalog, check_families, load_profile, parse_profile


def first_table(change):
    return lambda document: change(document["tables"][0])


def flow_type(change):
    return lambda document: change(document["tables"][0]["flow_types"][0])


CONTRADICTIONS = [
    ("/tables/1/name", lambda d: d["tables"][1].update(name="fdir"), "'fdir' is there twice"),
    ("/tables/0/excludes/0", first_table(lambda t: t.update(excludes=["u33"])), "no other table"),
    ("/tables/0/excludes/0", first_table(lambda t: t.update(excludes=["fdir"])), "no other table"),
    (
        "/tables/0/errors/full",
        first_table(lambda t: t["errors"].update(full="EFULL")),
        "no errno is called 'EFULL'",
    ),
    (
        "/tables/0/shapes",
        first_table(lambda t: t.update(shapes=[{"flow_types": ["tcp4"], "fields": []}])),
        "has none",
    ),
    ("/tables/1/capacity", lambda d: d["tables"][1]["capacity"].update(rows=7), "of the same bank"),
    ("/tables/1/slots", lambda d: d["tables"][1].update(slots={"picker": "none"}), "of the same bank"),
    (
        "/tables/0/slots",
        lambda d: (d["tables"].pop(), d["tables"][0]["slots"].pop("occupied")),
        "occupied is said where",
    ),
    (
        "/tables/0/priority",
        first_table(lambda t: t.update(priority="shape_rank")),
        "no shapes that could order",
    ),
    ("/tables/0/actions", first_table(lambda t: t["actions"].append("count")), "counters is null"),
    ("/tables/0/vf_queue", first_table(lambda t: t.update(actions=["queue"])), "no action vf"),
    ("/tables/0/action_rules", first_table(lambda t: t.update(action_rules={"set_fields": []})), "set_field"),
    (
        "/tables/0/counters/values/0",
        first_table(lambda t: t.update(counters={"values": ["rx_bytes"], "source": "a.c"})),
        "no counter of rules",
    ),
    (
        "/tables/0/needs/eswitch_mode",
        first_table(lambda t: t["needs"].update(eswitch_mode="legacy")),
        "no modes",
    ),
    (
        "/tables/0/flow_types/1/name",
        lambda d: d["tables"][0]["flow_types"][1].update(name="tcp4"),
        "there twice",
    ),
    (
        "/tables/0/flow_types/0/fields/ip_proto",
        flow_type(lambda f: f["fields"].update(ip_proto="exact")),
        "in fixed, too",
    ),
    (
        "/tables/0/flow_types/0/field_errors/tp_dst",
        flow_type(lambda f: f.update(field_errors={"tp_dst": "EINVAL"})),
        "has this field",
    ),
    (
        "/tables/0/flow_types/0/at_least_one",
        flow_type(lambda f: f.update(at_least_one=["eth_dst"])),
        "none of the flow type's fields",
    ),
    (
        "/tables/0/flow_types/0/together",
        flow_type(lambda f: f.update(together=[{"fields": ["eth_dst"], "errno": None}])),
        "none of the",
    ),
    (
        "/tables/0/flow_types/0/fixed/ip_proto",
        flow_type(lambda f: f["fixed"].update(ip_proto=[300])),
        "does not fit 8 bits",
    ),
    (
        "/tables/0/flow_types/0/fields/tp_dst",
        flow_type(lambda f: f["fields"].update(tp_dst={"mask": "any", "min": 9, "max": 1})),
        "is above max",
    ),
    (
        "/tables/0/flow_types/0/fields/tp_dst",
        flow_type(lambda f: f["fields"].update(tp_dst="group_bit")),
        "for MAC addresses",
    ),
    (
        "/statistics/vf/values/5",
        lambda d: d["statistics"]["vf"]["values"].append("last_used"),
        "a counter of rules",
    ),
    ("/rates/max_tx/smallest_bps", lambda d: d["rates"]["max_tx"].update(largest_bps=1), "above largest_bps"),
    ("/vf", lambda d: d.update(sriov=None, pci_ids={**d["pci_ids"], "vf": []}), "both sriov and vf"),
    ("/vf/trust/not_in_mode", lambda d: d["vf"]["trust"].update(not_in_mode="switchdev"), "no modes"),
    ("/quirks/1/id", lambda d: d["quirks"][1].update(id=d["quirks"][0]["id"]), "there twice"),
    (
        "/quirks/0/warns/table",
        lambda d: d["quirks"][0].update(warns={"table": "none"}),
        "'none' is no table",
    ),
    (
        "/sriov/pf_queues_with_vfs",
        lambda d: d["sriov"].update(
            pf_queues_with_vfs=[{"max_vfs": 9, "queues": 2}, {"max_vfs": 4, "queues": 4}]
        ),
        "lowest max_vfs first",
    ),
    ("/pci_ids/vf/0", lambda d: d["pci_ids"]["vf"].insert(0, d["pci_ids"]["pf"][0]), "there twice"),
]


@pytest.mark.parametrize(("path", "change", "words"), CONTRADICTIONS, ids=[row[0] for row in CONTRADICTIONS])
def test_a_contradiction_is_found(document, path, change, words):
    change(document)
    with pytest.raises(ProfileError) as caught:
        parse_profile(document, "ixgbe.json")
    assert caught.value.path == path
    assert words in caught.value.message
    assert "(in ixgbe.json)" in caught.value.message


def test_a_shape_names_flow_types_and_fields_of_its_table(documents):
    document = json.loads(json.dumps(documents["sfc_siena"]))
    document["tables"][0]["shapes"][0]["flow_types"][0] = "tcp5"
    document["tables"][0]["shapes"][1]["fields"].append("ip_ttl")
    with pytest.raises(ProfileError) as caught:
        parse_profile(document)
    assert caught.value.path == "/tables/0/shapes"
    assert "/tables/0/shapes/0/flow_types/0: 'tcp5' is no flow type of the table; there are tcp4" in str(
        caught.value
    )
    assert "/tables/0/shapes/1/fields: ip_ttl is no field of flow type tcp4" in str(caught.value)


def test_mask_model_shapes_needs_one(documents):
    document = json.loads(json.dumps(documents["sfc_siena"]))
    document["tables"][0]["shapes"] = []
    with pytest.raises(ProfileError, match="needs at least one"):
        parse_profile(document)


def test_the_file_is_named_after_the_family(tmp_path, document):
    path = tmp_path / "ixgbee.json"
    path.write_text(json.dumps(document), encoding="utf-8")
    with pytest.raises(ProfileError) as caught:
        load_profile(path)
    assert caught.value.path == "/family"
    assert caught.value.hint == "name the file ixgbe.json"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "x.json"),
        (b"{", "x.json"),
        (b"\xff\xfe", "not UTF-8"),
        (b'{"family": NaN}', "NaN is no JSON"),
        (b'{"family": "x", "family": "y"}', "twice"),
        (b"[" * 100_000, "x.json"),
        (b"[]", "not an object"),
    ],
    ids=["empty", "cut", "binary", "nan", "twice", "deep", "list"],
)
def test_a_file_that_is_no_profile_is_refused_by_name(tmp_path, content, words):
    path = tmp_path / "x.json"
    path.write_bytes(content)
    with pytest.raises(ProfileError) as caught:
        load_profile(path)
    assert words in caught.value.message
    assert "x.json" in caught.value.message


def test_a_file_that_can_not_be_read_is_refused_by_name(tmp_path):
    with pytest.raises(ProfileError, match=r"gone\.json: can't be read: No such file"):
        load_profile(tmp_path / "gone.json")


def test_a_catalog_reads_a_profile_when_it_is_asked_for(tmp_path, document):
    (tmp_path / "ixgbe.json").write_text(json.dumps(document), encoding="utf-8")
    (tmp_path / "broken.json").write_text("{", encoding="utf-8")
    catalog = Catalog(sorted(tmp_path.iterdir()))
    assert catalog.families() == ["broken", "ixgbe"]
    assert catalog.get("ixgbe") is catalog.get("ixgbe")
    with pytest.raises(ProfileError):
        catalog.get("broken")


def test_a_catalog_names_the_family_that_was_meant(catalog):
    with pytest.raises(NotFoundError) as caught:
        catalog.get("ixgeb")
    assert caught.value.hint == "did you mean ixgbe?"
    with pytest.raises(NotFoundError) as caught:
        Catalog([]).get("ixgbe")
    assert caught.value.hint == "no plugin brings profiles"


def test_one_nic_in_two_families_is_found(documents, document):
    other = json.loads(json.dumps(documents["igb_i210"]))
    other["pci_ids"]["pf"].append(document["pci_ids"]["without_offload"][0])
    with pytest.raises(ProfileError, match="is also in ixgbe"):
        check_families([parse_profile(document), parse_profile(other)])


def test_the_document_can_not_be_changed_through_the_profile(document):
    profile = parse_profile(document)
    with pytest.raises(TypeError):
        profile.document["family"] = "other"
    with pytest.raises(TypeError):
        profile.table("fdir").errors["full"] = "EINVAL"


def test_defaults_are_those_of_the_schema(documents):
    table = parse_profile(json.loads(json.dumps(documents["mlx5"]))).table("flower_fdb")
    assert (table.bank, table.rows_per_rule, table.hash, table.occupied) == ("flower_fdb", 1, None, "")
    assert table.flow_types[-1].fixed == {}
