"""Whether a table carries out the actions of a rule and keeps its priority, and why not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from nicoffload.compiler.fields import answer
from nicoffload.compiler.words import names
from nicoffload.errors import Reason
from nicoffload.model import ACTION_NAMES, FIRST_VF_PORT, Action, FlowRule, Mirror, SetField, ToQueue, ToVf
from nicoffload.profiles.types import Table

_DECIDES = {
    "none": "nothing defines which of two overlapping rules wins",
    "most_specific": "the rule with more compared fields wins",
    "shape_rank": "the kind of filter decides which rule wins",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Targets:
    """What rules can deliver to.

    Args:
        vfs: VFs that exist.
        queues: Receive queues of the PF; None where unknown.
        vf_queues: Receive queues of a VF; None where unknown.
    """

    vfs: int
    queues: int | None
    vf_queues: int | None


def action_reasons(table: Table, rule: FlowRule, targets: Targets) -> list[Reason]:
    """Return everything that keeps a rule's actions and priority out of a table."""
    actions = rule.actions
    reasons = [
        reason for index, action in enumerate(actions) for reason in _one(table, index, action, targets)
    ]
    named = [ACTION_NAMES[type(action)] for action in actions]
    reasons += _repeated(table, named)
    reasons += _order(table, named)
    reasons += _together(table, named)
    reasons += _priority(table, rule)
    return reasons


def _one(table: Table, index: int, action: Action, targets: Targets) -> Iterator[Reason]:
    path = f"/actions/{index}"
    if ACTION_NAMES[type(action)] not in table.actions:
        yield _unsupported(table, path, action)
    if isinstance(action, ToVf):
        yield from _vf(table, path, action, targets)
    elif isinstance(action, ToQueue):
        yield from _queue(table, f"{path}/queue", "the PF", action.queue, targets.queues)
    elif isinstance(action, Mirror):
        yield from vf_exists(table, f"{path}/port", action.port - FIRST_VF_PORT, targets.vfs)
    elif isinstance(action, SetField):
        yield from _set_field(table, path, action)


def _unsupported(table: Table, path: str, action: Action) -> Reason:
    name = ACTION_NAMES[type(action)]
    carried = ", ".join(sorted(table.actions))
    if isinstance(action, ToVf) and "queue" in table.actions:
        errno, _ = answer(table.errors, "vf_target", "action")
        return Reason(
            code="action.vf_target",
            path=path,
            message=f"table {table.name} delivers to receive queues of the PF, not to a VF",
            accepted="a queue of the PF that was handed to the VM (queue:N)",
            source=table.source,
            errno=errno,
        )
    errno, _ = answer(table.errors, "action")
    return Reason(
        code="action.unsupported",
        path=path,
        message=f"table {table.name} has no action {name}",
        accepted=f"one of {carried}",
        source=table.action_rules.source or table.source,
        errno=errno,
    )


def _vf(table: Table, path: str, action: ToVf, targets: Targets) -> Iterator[Reason]:
    yield from vf_exists(table, f"{path}/vf", action.vf, targets.vfs)
    if table.vf_queue:
        yield from _queue(table, f"{path}/queue", f"VF {action.vf}", action.queue, targets.vf_queues)
    elif action.queue:
        errno, _ = answer(table.errors, "queue_range", "action")
        yield Reason(
            code="action.vf_queue",
            path=f"{path}/queue",
            message=f"table {table.name} can't name a queue within a VF",
            accepted="queue 0, and the VF's own distribution",
            source=table.source,
            errno=errno,
        )


def vf_exists(table: Table, path: str, vf: int, vfs: int) -> Iterator[Reason]:
    """Yield a reason where a VF does not exist; none for what is below 0, which is no VF."""
    if vf >= vfs:
        errno, _ = answer(table.errors, "vf_range")
        yield Reason(
            code="vf.missing",
            path=path,
            message=f"there is no VF {vf}",
            accepted=f"0 to {vfs - 1}" if vfs else "nothing, before VFs are created",
            source=table.source,
            errno=errno,
        )


def _queue(table: Table, path: str, whose: str, queue: int, queues: int | None) -> Iterator[Reason]:
    if queues is not None and queue >= queues:
        errno, _ = answer(table.errors, "queue_range")
        yield Reason(
            code="queue.range",
            path=path,
            message=f"{whose} has no receive queue {queue}",
            accepted=f"0 to {queues - 1}",
            source=table.source,
            errno=errno,
        )


def _set_field(table: Table, path: str, action: SetField) -> Iterator[Reason]:
    allowed = table.action_rules.set_fields
    if allowed is not None and action.field not in allowed:
        yield _rule(
            table, "action.set_field", path, f"{names([action.field])} can't be rewritten", names(allowed)
        )


def _repeated(table: Table, named: Sequence[str]) -> Iterator[Reason]:
    for name in dict.fromkeys(named):
        most = table.action_rules.at_most.get(name, 1)
        if named.count(name) > most:
            path = f"/actions/{[i for i, other in enumerate(named) if other == name][most]}"
            yield _rule(
                table,
                "action.repeated",
                path,
                f"{name} is there {named.count(name)} times",
                f"at most {most}",
            )


def _order(table: Table, named: Sequence[str]) -> Iterator[Reason]:
    levels = table.action_rules.order
    reached = 0
    for index, name in enumerate(named):
        places = [level for level, group in enumerate(levels) if name in group]
        if not places:
            continue
        later = [level for level in places if level >= reached]
        if not later:
            order = ", then ".join(" or ".join(sorted(group)) for group in levels)
            yield _rule(
                table, "action.order", f"/actions/{index}", f"{name} comes too late in the rule", order
            )
            return
        reached = later[0]


def _together(table: Table, named: Sequence[str]) -> Iterator[Reason]:
    for group in table.action_rules.not_together:
        if group.issubset(named):
            path = f"/actions/{max(named.index(name) for name in group)}"
            message = f"{' and '.join(sorted(group))} can't be in one rule"
            yield _rule(table, "action.together", path, message, f"not all of {', '.join(sorted(group))}")


def _priority(table: Table, rule: FlowRule) -> list[Reason]:
    if rule.priority is None or table.priority in ("honoured", "slot_ascending"):
        return []
    return [
        Reason(
            code="priority.unsupported",
            path="/priority",
            errno=answer(table.errors, "priority")[0],
            message=f"table {table.name} has no priorities: {_DECIDES[table.priority]}",
            accepted="no priority, for a rule that no other one overlaps",
            source=table.source,
        )
    ]


def _rule(table: Table, code: str, path: str, message: str, accepted: str) -> Reason:
    errno = table.action_rules.errno or answer(table.errors, "action")[0]
    source = table.action_rules.source or table.source
    return Reason(
        code=code,
        path=path,
        message=f"table {table.name}: {message}",
        accepted=accepted,
        source=source,
        errno=errno,
    )
