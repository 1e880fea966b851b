"""Rules that a profile's tables nearly take, as hypothesis strategies. Reads the profile's document, nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from hypothesis import strategies as st

from nicoffload.errors import InvalidRequestError
from nicoffload.model import (
    FIELDS,
    Action,
    Count,
    Drop,
    FlowRule,
    Kind,
    Masked,
    Match,
    Mirror,
    ModifyVlan,
    PopVlan,
    PortRange,
    PushVlan,
    SetField,
    ToPf,
    ToQueue,
    ToUplink,
    ToVf,
    TunnelUnset,
)

PF_MAC = 0x02_00_00_00_FF_00

_POOLS: dict[str, tuple[int, ...]] = {
    "in_port": (0, 2, 3),
    "eth_src": (0x02_00_00_00_00_11, 0x02_00_00_00_00_12),
    "eth_dst": (PF_MAC, 0x02_00_00_00_00_01, 1 << 40),
    "eth_type": (0x0800, 0x86DD, 0x0806, 0x88CC, 0x88F7),
    "ip_proto": (6, 17, 132, 1, 58, 47),
    "tp_src": (0, 80, 1000),
    "tp_dst": (0, 80, 443),
    "ipv4_src": (0x0A000001, 0x0A000002),
    "ipv4_dst": (0x0A000001, 0x0A000103),
}

_FATES: dict[str, st.SearchStrategy[Action]] = {
    "vf": st.builds(ToVf, vf=st.integers(0, 7), queue=st.sampled_from((0, 0, 0, 1))),
    "queue": st.builds(ToQueue, queue=st.integers(0, 15)),
    "pf": st.just(ToPf()),
    "uplink": st.just(ToUplink()),
    "drop": st.just(Drop()),
}

_EXTRAS: dict[str, st.SearchStrategy[Action]] = {
    "mirror": st.builds(Mirror, port=st.integers(0, 4)),
    "push_vlan": st.builds(PushVlan, vid=st.integers(1, 9)),
    "pop_vlan": st.just(PopVlan()),
    "mod_vlan": st.builds(ModifyVlan, vid=st.integers(1, 9)),
    "set_field": st.sampled_from(
        (
            SetField(field="eth_dst", value=Masked(5, FIELDS["eth_dst"].full_mask)),
            SetField(field="ip_ttl", value=Masked(5, 0xFF)),
        )
    ),
    "tunnel_unset": st.just(TunnelUnset()),
    "count": st.just(Count()),
}

_ODD_FATES = st.one_of(
    st.builds(ToVf, vf=st.integers(0, 200)), st.builds(ToQueue, queue=st.integers(0, 99)), *_FATES.values()
)


@st.composite
def rules(draw: st.DrawFn, document: dict[str, Any]) -> list[FlowRule]:
    """Return rules, most of which at least one table takes: of all kinds, of one, or of one that compare the same."""
    tables = document["tables"]
    narrow = list(_narrow(tables))
    if narrow and draw(st.booleans()):
        table, kind, name = draw(st.sampled_from(narrow))
        return draw(st.lists(_rule([table], kind, [name], may_slip=False), min_size=5, max_size=8))
    if draw(st.booleans()):
        return draw(st.lists(_rule(tables), min_size=1, max_size=5))
    # What rules forbid each other shows only where several are taken that resemble each other.
    table = draw(st.sampled_from(tables))
    kind = draw(st.sampled_from(table["flow_types"]))
    names = draw(st.sampled_from((None, draw(_names(table, kind)))))
    return draw(st.lists(_rule([table], kind, names, may_slip=False), min_size=2, max_size=8))


def _narrow(tables: list[dict[str, Any]]) -> Iterator[tuple[dict[str, Any], dict[str, Any], str]]:
    """Yield the fields of which a table holds only a few values, or sends each to one place."""
    for table in tables:
        limits = [*table["capacity"].get("limits", ()), *table.get("one_target_per_value", ())]
        for name in {limit["field"] for limit in limits}:
            yield from ((table, kind, name) for kind in table["flow_types"] if name in kind["fields"])


@st.composite
def _rule(
    draw: st.DrawFn,
    tables: list[dict[str, Any]],
    kind: dict[str, Any] | None = None,
    names: list[str] | None = None,
    *,
    may_slip: bool = True,
) -> FlowRule:
    table = draw(st.sampled_from(tables))
    kind = kind or draw(st.sampled_from(table["flow_types"]))
    fields = {
        name: _exact(name, draw(st.sampled_from(values))) for name, values in kind["fixed"].items() if values
    }
    wanted = names or draw(_names(table, kind))
    for name in wanted if may_slip else _tidied(kind, wanted, is_alone=table["combine"] == "or"):
        if name not in fields:
            fields[name] = draw(_value(name, kind["fields"].get(name), may_slip=may_slip))
    for _ in range(draw(st.sampled_from((0, 0, 0, 0, 1, 2))) if may_slip else 0):
        name = draw(st.sampled_from(list(FIELDS)))
        fields[name] = draw(_value(name, None))
    if may_slip and draw(st.integers(0, 19)) == 0 and fields:
        del fields[draw(st.sampled_from(sorted(fields)))]
    actions = draw(_actions(table["actions"], may_slip=may_slip))
    ranks = may_slip or table["priority"] in {"honoured", "slot_ascending"}
    priority = draw(st.sampled_from((None, None, None, 1, 2, 3))) if ranks else None
    try:
        return FlowRule(match=Match(**fields), actions=actions, priority=priority)
    except InvalidRequestError:
        # What no NIC is ever asked: a port without a protocol and the like.
        return FlowRule(match=Match.of(ipv4_dst="10.0.0.1", ip_proto=6, tp_dst=80), actions=actions)


def _names(table: dict[str, Any], kind: dict[str, Any]) -> st.SearchStrategy[list[str]]:
    some = (
        st.lists(st.sampled_from(sorted(kind["fields"])), unique=True, max_size=5)
        if kind["fields"]
        else st.just([])
    )
    needed = [n for n, rule in kind["fields"].items() if _mask_rule(rule) in ("required", "group_bit")]
    some = some.map(lambda names: [*dict.fromkeys([*needed, *names])])
    listed = [s["fields"] for s in table.get("shapes", ()) if kind["name"] in s["flow_types"]]
    return st.one_of(st.sampled_from(listed), some) if listed else some


def _tidied(kind: dict[str, Any], names: list[str], *, is_alone: bool) -> list[str]:
    """Return fields that go together: none that is not compared, all that belong to one, one where there may be one."""
    kept = [name for name in names if _mask_rule(kind["fields"][name]) != "ignored"]
    for group in kind.get("together", ()):
        if set(kept) & set(group["fields"]):
            kept = [*dict.fromkeys([*kept, *group["fields"]])]
    for group in kind.get("not_together", ()):
        if set(group["fields"]) <= set(kept):
            kept.remove(group["fields"][0])
    needed = kind.get("at_least_one", ())
    if needed and not set(kept) & set(needed):
        kept.append(needed[0])
    return kept[-1:] if is_alone else kept


def _mask_rule(rule: Any) -> str:
    return rule if isinstance(rule, str) else rule["mask"]


@st.composite
def _value(draw: st.DrawFn, name: str, rule: Any, *, may_slip: bool = True) -> Masked | PortRange:
    spec = FIELDS[name]
    wanted = _mask_rule(rule) if rule is not None else "exact"
    pool = _POOLS.get(name, (0, 1, 2))
    value = draw(st.sampled_from(pool))
    odd = may_slip and draw(st.integers(0, 4)) == 0
    if isinstance(rule, dict) and "values" in rule and not odd:
        value = draw(st.sampled_from(rule["values"]))
    if wanted == "group_bit" and not odd:
        return Masked(draw(st.sampled_from((0, 1))) << 40, 1 << 40)
    if may_slip and spec.kind is Kind.PORT and draw(st.integers(0, 19)) == 0:
        return PortRange(value, value + draw(st.integers(1, 9)))
    full = spec.full_mask
    masks = [full] * 6
    if wanted == "any" or odd or (may_slip and wanted in ("exact_or_ignored", "ignored")):
        masks += [full & ~1, full >> 1 or full, full ^ (full >> max(spec.bits // 2, 1)) or full]
    if wanted == "prefix" or odd:
        masks += [full ^ (full >> max(spec.bits // 2, 1)), full ^ (full >> spec.bits)]
    if wanted == "exact_or_group_bit":
        masks += [1 << 40]
    mask = draw(st.sampled_from([mask for mask in masks if mask]))
    return Masked(value & mask, mask)


@st.composite
def _actions(draw: st.DrawFn, names: list[str], *, may_slip: bool = True) -> tuple[Action, ...]:
    fates = [name for name in names if name in _FATES]
    fate = draw(
        _ODD_FATES
        if not fates or (may_slip and draw(st.integers(0, 9)) == 0)
        else _FATES[draw(st.sampled_from(fates))]
    )
    known = [name for name in names if name in _EXTRAS]
    extras: list[Action] = []
    if known and draw(st.integers(0, 3)) == 0:
        extras = [draw(_EXTRAS[name]) for name in draw(st.lists(st.sampled_from(known), max_size=3))]
    elif may_slip and draw(st.integers(0, 19)) == 0:
        extras = [draw(st.one_of(*_EXTRAS.values()))]
    return (*extras, fate)


def _exact(name: str, value: int) -> Masked:
    return Masked(value, FIELDS[name].full_mask)
