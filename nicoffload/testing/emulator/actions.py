"""What the emulated hardware does with a packet that a rule matches."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nicoffload.model import (
    ACTION_NAMES,
    FATES,
    FIRST_VF_PORT,
    Action,
    Drop,
    Mirror,
    Police,
    PopVlan,
    PushVlan,
    SetField,
    ToQueue,
    ToUplink,
    ToVf,
    TunnelSet,
)
from nicoffload.testing.emulator import assumptions
from nicoffload.testing.emulator.answer import Refused, refuse
from nicoffload.testing.emulator.spec import TableSpec

DROPPED = -1
UPLINK = 0
PF = 1
_VLAN_BYTES = 4


@dataclass(frozen=True, slots=True)
class Plan:
    """What becomes of a packet.

    Args:
        port: Switch port that it goes to; -1 for none.
        mirrors: Switch ports that get a copy.
        police: (bits per second, burst in bytes), or None.
        added_bytes: What tags and tunnels add to the frame.
    """

    port: int
    mirrors: tuple[int, ...]
    police: tuple[int, int] | None
    added_bytes: int


@dataclass(frozen=True, slots=True)
class Targets:
    """What an action can name at present.

    Args:
        vfs: How many VFs exist.
        unbound: VFs without their driver on the host.
        queues_per_vf: Receive queues of a VF that a rule can name.
        pf_queues: Receive queues of the PF.
    """

    vfs: int
    unbound: frozenset[int]
    queues_per_vf: int
    pf_queues: int = assumptions.PF_QUEUES


def make_plan(table: TableSpec, actions: tuple[Action, ...], targets: Targets) -> Plan:
    """Return what a table makes of a rule's actions.

    Raises:
        Refused: It can't do one of them, or not so many, or not in this order.
    """
    names = [ACTION_NAMES[type(action)] for action in actions]
    _check_names(table, names)
    _check_arrangement(table, names)
    for at, action in enumerate(actions):
        _check_one(table, action, targets, f"/actions/{at}")
    fate = next(action for action, name in zip(actions, names, strict=True) if name in FATES)
    police = next((action for action in actions if isinstance(action, Police)), None)
    return Plan(
        port=_port(table, fate, targets),
        mirrors=tuple(action.port for action in actions if isinstance(action, Mirror)),
        police=(police.rate_bps, police.burst_bytes) if police else None,
        added_bytes=sum(_added_bytes(action) for action in actions),
    )


def _port(table: TableSpec, fate: Action, targets: Targets) -> int:
    match fate:
        case ToVf(vf=vf, queue=queue):
            return FIRST_VF_PORT + (_pool(table.vf_stride, vf, queue, targets) if table.vf_stride else vf)
        case ToUplink():
            return UPLINK
        case Drop():
            return DROPPED
        case _:
            return PF


def _pool(stride: Mapping[str, Any], vf: int, queue: int, targets: Targets) -> int:
    """Return the pool of the queue that the driver computes: it counts by the queues that the PF has beside VFs."""
    kept: int = stride["queues_of_many"] if targets.vfs + 1 > stride["many_pools"] else stride["queues"]
    return (vf * min(targets.pf_queues, kept) + queue) // kept


def _check_one(table: TableSpec, action: Action, targets: Targets, path: str) -> None:
    match action:
        case ToVf():
            _check_vf(table, action, targets, path)
        case ToQueue(queue=queue) if queue >= targets.pf_queues:
            refuse(table.errors, "queue_range", f"there is no queue {queue}", path=path)
        case Mirror(port=port) if port >= FIRST_VF_PORT + targets.vfs:
            refuse(table.errors, "vf_range", f"there is no port {port}", path=path)
        case SetField(field=field) if table.set_fields is not None and field not in table.set_fields:
            refuse(table.errors, "action", f"can't rewrite {field}", path=path, errno=table.action_errno)


def _check_names(table: TableSpec, names: list[str]) -> None:
    for at, name in enumerate(names):
        if name not in table.actions:
            condition = "vf_target" if name == "vf" and "vf_target" in table.errors else "action"
            answer = table.errors.get(condition) or "EOPNOTSUPP"
            raise Refused(answer, condition, f"no such action: {name}", f"/actions/{at}")


def _check_arrangement(table: TableSpec, names: list[str]) -> None:
    for name in set(names):
        if names.count(name) > table.at_most.get(name, 1):
            refuse(table.errors, "action", f"{name} too often", path="/actions", errno=table.action_errno)
    reached = 0
    for name in names:
        levels = [level for level, members in enumerate(table.order) if name in members]
        reached = next((level for level in levels if level >= reached), -1 if levels else reached)
        if reached < 0:
            refuse(
                table.errors, "action", "actions in another order", path="/actions", errno=table.action_errno
            )
    for group in table.not_together:
        if group <= set(names):
            text = f"{' and '.join(sorted(group))} exclude each other"
            refuse(table.errors, "action", text, path="/actions", errno=table.action_errno)


def _check_vf(table: TableSpec, action: ToVf, targets: Targets, path: str) -> None:
    if action.vf >= targets.vfs:
        refuse(table.errors, "vf_range", f"there is no VF {action.vf}", path=path)
    if action.vf in targets.unbound and table.needs.get("vf_driver_on_host"):
        refuse(table.errors, "vf_target", f"VF {action.vf} has no driver on the host", path=path)
    if action.queue and not table.vf_queue:
        refuse(table.errors, "queue_range", "a rule can't name a queue of a VF", path=path)
    if action.queue >= targets.queues_per_vf and table.vf_queue:
        refuse(table.errors, "queue_range", f"VF {action.vf} has no queue {action.queue}", path=path)


def _added_bytes(action: Action) -> int:
    if isinstance(action, PushVlan):
        return _VLAN_BYTES
    if isinstance(action, PopVlan):
        return -_VLAN_BYTES
    if isinstance(action, TunnelSet):
        return assumptions.TUNNEL_BYTES[":" in action.dst]
    return 0
