"""Contradictions within a profile that its schema can't see."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from nicoffload.errors import InvalidRequestError, errno_number
from nicoffload.model.fields import FIELDS, Kind
from nicoffload.schema import Fault

Document = Mapping[str, Any]

_RULE_COUNTERS = frozenset({"packets", "bytes", "last_used"})
_WITH_SHAPES = frozenset({"shapes", "firmware_list"})
_MAC_MASKS = frozenset({"group_bit", "exact_or_group_bit"})


def find_contradictions(document: Document) -> list[Fault]:
    """Return every contradiction in a document that fits the schema."""
    checks: Sequence[Callable[[Document], Iterable[Fault]]] = (
        _check_pci_ids,
        _check_vfs,
        _check_queues,
        _check_tables,
        _check_rates,
        _check_statistics,
        _check_quirks,
        lambda whole: _check_errnos(whole, ""),
    )
    return [fault for check in checks for fault in check(document)]


def _fault(path: str, message: str) -> Fault:
    return Fault(path=path, message=message)


def _twice(names: Iterable[object]) -> Iterator[int]:
    seen: set[object] = set()
    for place, name in enumerate(names):
        if name in seen:
            yield place
        seen.add(name)


def _check_pci_ids(document: Document) -> Iterator[Fault]:
    places = {
        f"/pci_ids/{key}/{place}": pci_id
        for key in ("pf", "vf", "without_offload")
        for place, pci_id in enumerate(document["pci_ids"].get(key, ()))
    }
    for index in _twice(places.values()):
        path, pci_id = list(places.items())[index]
        yield _fault(path, f"{pci_id} is there twice")


def _check_vfs(document: Document) -> Iterator[Fault]:
    if (document["sriov"] is None) != (document["vf"] is None):
        yield _fault("/vf", "a family has both sriov and vf, or neither (null)")
    if document["sriov"] is None and document["pci_ids"]["vf"]:
        yield _fault("/pci_ids/vf", "there are ids of VFs, and sriov is null")
    for name, setting in (document["vf"] or {}).items():
        if isinstance(setting, Mapping) and setting.get("not_in_mode") and document["eswitch"] is None:
            yield _fault(f"/vf/{name}/not_in_mode", "eswitch is null: there are no modes")


def _check_queues(document: Document) -> Iterator[Fault]:
    left = (document["sriov"] or {}).get("pf_queues_with_vfs")
    if isinstance(left, list) and [one["max_vfs"] for one in left] != sorted(
        {one["max_vfs"] for one in left}
    ):
        yield _fault("/sriov/pf_queues_with_vfs", "the steps are told lowest max_vfs first, each once")


def _check_rates(document: Document) -> Iterator[Fault]:
    for name in ("min_tx", "max_tx"):
        rate = document["rates"][name]
        largest = rate.get("largest_bps")
        if isinstance(largest, int) and rate.get("smallest_bps", 0) > largest:
            yield _fault(f"/rates/{name}/smallest_bps", f"is above largest_bps ({largest})")
    devlink = document["rates"]["devlink"] or {}
    for name in ("priority_range", "weight_range"):
        low, high = devlink.get(name, (0, 0))
        if low > high:
            yield _fault(f"/rates/devlink/{name}", f"{low} is above {high}")


def _check_statistics(document: Document) -> Iterator[Fault]:
    for name in ("vf", "port"):
        counters = document["statistics"][name] or {"values": ()}
        for place, value in enumerate(counters["values"]):
            if value in _RULE_COUNTERS:
                yield _fault(f"/statistics/{name}/values/{place}", f"{value} is a counter of rules")


def _check_quirks(document: Document) -> Iterator[Fault]:
    for place in _twice(quirk["id"] for quirk in document["quirks"]):
        yield _fault(f"/quirks/{place}/id", f"{document['quirks'][place]['id']!r} is there twice")
    names = [table["name"] for table in document["tables"]]
    for place, quirk in enumerate(document["quirks"]):
        table = quirk.get("warns", {}).get("table")
        if table is not None and table not in names:
            yield _fault(
                f"/quirks/{place}/warns/table", f"{table!r} is no table; there are {', '.join(names)}"
            )


def _check_errnos(part: Any, path: str) -> Iterator[Fault]:
    """Check that every errno has a number: the pattern of the schema knows their form only."""
    items = part.items() if isinstance(part, Mapping) else enumerate(part) if isinstance(part, list) else ()
    for key, value in items:
        here = f"{path}/{key}"
        named = path.endswith(("/errors", "/field_errors")) or str(key).endswith(
            ("errno", "_resetting", "_rule")
        )
        if named and isinstance(value, str):
            try:
                errno_number(value)
            except InvalidRequestError as cause:
                yield _fault(here, cause.message)
        else:
            yield from _check_errnos(value, here)


def _check_tables(document: Document) -> Iterator[Fault]:
    tables = document["tables"]
    names = [table["name"] for table in tables]
    for place in _twice(names):
        yield _fault(f"/tables/{place}/name", f"{names[place]!r} is there twice")
    banks: dict[str, Document] = {}
    for place, table in enumerate(tables):
        path = f"/tables/{place}"
        for index, other in enumerate(table.get("excludes", ())):
            if other not in names or other == table["name"]:
                yield _fault(
                    f"{path}/excludes/{index}", f"{other!r} is no other table; there are {', '.join(names)}"
                )
        first = banks.setdefault(table.get("bank", table["name"]), table)
        for key in ("capacity", "slots", "mask_model"):
            if _shared(table, key) != _shared(first, key):
                yield _fault(
                    f"{path}/{key}", f"differs from that of {first['name']}, which is of the same bank"
                )
        if table.get("needs", {}).get("eswitch_mode") and document["eswitch"] is None:
            yield _fault(f"{path}/needs/eswitch_mode", "eswitch is null: there are no modes")
        yield from _check_table(table, path)


def _shared(table: Document, key: str) -> object:
    """Return what tables of one bank have in common; the lowest location is a matter of how one is asked."""
    if key == "capacity":
        return _rows(table)
    return (
        {name: value for name, value in table[key].items() if name != "first"}
        if key == "slots"
        else table[key]
    )


def _rows(table: Document) -> object:
    return table["capacity"]["rows"]


def _check_table(table: Document, path: str) -> Iterator[Fault]:
    picker, model = table["slots"]["picker"], table["mask_model"]
    if (picker == "caller") != ("occupied" in table["slots"]):
        yield _fault(f"{path}/slots", "occupied is said where the caller picks the location, and only there")
    if table["priority"] == "slot_ascending" and picker != "caller":
        yield _fault(f"{path}/priority", "slots order rules only where the caller picks them")
    if table["priority"] == "shape_rank" and model not in _WITH_SHAPES:
        yield _fault(f"{path}/priority", f"mask model {model} has no shapes that could order rules")
    if model == "shapes" and not table.get("shapes"):
        yield _fault(f"{path}/shapes", "mask model shapes needs at least one")
    if model not in _WITH_SHAPES and table.get("shapes"):
        yield _fault(f"{path}/shapes", f"mask model {model} has none")
    yield from _check_actions(table, path)
    flow_types = {}
    for place, flow_type in enumerate(table["flow_types"]):
        if flow_type["name"] in flow_types:
            yield _fault(f"{path}/flow_types/{place}/name", f"{flow_type['name']!r} is there twice")
        flow_types[flow_type["name"]] = flow_type
        yield from _check_flow_type(flow_type, f"{path}/flow_types/{place}")
    for place, shape in enumerate(table.get("shapes", ())):
        yield from _check_shape(shape, flow_types, f"{path}/shapes/{place}")


def _check_actions(table: Document, path: str) -> Iterator[Fault]:
    actions = set(table["actions"])
    counters = table["counters"]
    if "count" in actions and counters is None:
        yield _fault(f"{path}/actions", "there is an action count, and counters is null")
    for place, value in enumerate(counters["values"] if counters else ()):
        if value not in _RULE_COUNTERS:
            yield _fault(f"{path}/counters/values/{place}", f"{value} is no counter of rules")
    if table.get("vf_queue") and "vf" not in actions:
        yield _fault(f"{path}/vf_queue", "there is no action vf")
    rules = table.get("action_rules", {})
    named = {*rules.get("at_most", ())}
    for group in (*rules.get("order", ()), *rules.get("not_together", ())):
        named.update(group)
    if "set_fields" in rules:
        named.add("set_field")
    for action in sorted(named - actions):
        yield _fault(f"{path}/action_rules", f"speaks of {action}, which is none of the table's actions")


def _check_flow_type(flow_type: Document, path: str) -> Iterator[Fault]:
    fixed, fields = flow_type["fixed"], flow_type["fields"]
    for name in sorted(set(fixed) & set(fields)):
        yield _fault(f"{path}/fields/{name}", "is in fixed, too")
    for name in sorted(set(flow_type.get("field_errors", ())) & (set(fields) | set(fixed))):
        yield _fault(f"{path}/field_errors/{name}", "the flow type has this field")
    groups = [("at_least_one", flow_type.get("at_least_one", ()))]
    groups += [
        (key, group["fields"]) for key in ("together", "not_together") for group in flow_type.get(key, ())
    ]
    for key, names in groups:
        for name in set(names) - set(fields):
            yield _fault(f"{path}/{key}", f"{name} is none of the flow type's fields")
    for name, values in fixed.items():
        yield from _check_values(name, values, f"{path}/fixed/{name}")
    for name, rule in fields.items():
        yield from _check_field_rule(
            name, {"mask": rule} if isinstance(rule, str) else rule, f"{path}/fields/{name}"
        )


def _check_field_rule(name: str, rule: Document, path: str) -> Iterator[Fault]:
    if rule["mask"] in _MAC_MASKS and FIELDS[name].kind is not Kind.MAC:
        yield _fault(path, f"{rule['mask']} is for MAC addresses")
    bounds = [rule[key] for key in ("min", "max") if key in rule]
    yield from _check_values(name, [*rule.get("values", ()), *bounds], path)
    if bounds != sorted(bounds):
        yield _fault(path, f"min {bounds[0]} is above max {bounds[1]}")


def _check_values(name: str, values: Sequence[int], path: str) -> Iterator[Fault]:
    full = FIELDS[name].full_mask
    for value in values:
        if not 0 <= value <= full:
            yield _fault(path, f"{value} does not fit {FIELDS[name].bits} bits")


def _check_shape(shape: Document, flow_types: Mapping[str, Document], path: str) -> Iterator[Fault]:
    for place, name in enumerate(shape["flow_types"]):
        if name not in flow_types:
            known = ", ".join(flow_types)
            yield _fault(
                f"{path}/flow_types/{place}", f"{name!r} is no flow type of the table; there are {known}"
            )
            continue
        for field in shape["fields"]:
            if field not in flow_types[name]["fields"]:
                yield _fault(f"{path}/fields", f"{field} is no field of flow type {name}")
