"""What a rule does, as the two ports that the data path keeps of it, and back."""

from __future__ import annotations

from dataclasses import dataclass

from nicoffload.errors import NicOffloadError, NotFoundError, NotSupportedError, Reason
from nicoffload.model import ACTION_NAMES, Action, Count, Drop, Mirror, ToPf, ToUplink, ToVf
from nicoffload_softnic import layout

Encoded = tuple[int, int, int]
"""Port or `layout.NO_PORT`, mirror port likewise, flags of the record."""


@dataclass(frozen=True, slots=True)
class Targets:
    """What rules can name.

    Args:
        vfs: How many VFs exist.
        device: For errors.
        source: What carries actions out, for errors.
    """

    vfs: int
    device: str
    source: str = "softnic.bpf.c: forward"


def encode(actions: tuple[Action, ...], targets: Targets) -> Encoded:
    """Return what the data path keeps of a rule's actions.

    Raises:
        NotFoundError: A VF that does not exist.
        NotSupportedError: An action that the data path lacks.
    """
    out, mirror, flags = layout.NO_PORT, layout.NO_PORT, 0
    has_fate = False
    for index, action in enumerate(actions):
        kind = type(action)
        if kind is Count:
            flags |= layout.RECORD_COUNT
        elif kind is Mirror:
            assert isinstance(action, Mirror)
            if mirror != layout.NO_PORT:
                raise _unsupported("two copies of a packet", index, targets, "at most one mirror")
            mirror = _checked(action.port, index, targets)
            flags |= layout.RECORD_MIRROR_LAST if has_fate else 0
        elif kind in {ToVf, ToPf, ToUplink, Drop}:
            out = _fate(action, index, targets)
            has_fate = True
        else:
            raise _unsupported(ACTION_NAMES[kind], index, targets, "vf, pf, uplink, drop, mirror, count")
    return out, mirror, flags


def decode(out: int, mirror: int, flags: int) -> tuple[Action, ...]:
    """Return the actions of a rule; the inverse of `encode`."""
    fate: Action
    if out == layout.NO_PORT:
        fate = Drop()
    elif out >= layout.FIRST_VF:
        fate = ToVf(vf=out - layout.FIRST_VF)
    else:
        fate = ToPf() if out == layout.PF else ToUplink()
    actions: list[Action] = [fate]
    if mirror != layout.NO_PORT:
        actions.insert(1 if flags & layout.RECORD_MIRROR_LAST else 0, Mirror(port=mirror))
    if flags & layout.RECORD_COUNT:
        actions.append(Count())
    return tuple(actions)


def _fate(action: Action, index: int, targets: Targets) -> int:
    if isinstance(action, ToVf):
        if action.queue:
            raise _unsupported("a queue within a VF", index, targets, "queue 0")
        return _checked(layout.FIRST_VF + action.vf, index, targets)
    if isinstance(action, ToPf):
        return layout.PF
    return layout.UPLINK if isinstance(action, ToUplink) else layout.NO_PORT


def _checked(port: int, index: int, targets: Targets) -> int:
    vf = port - layout.FIRST_VF
    if vf >= targets.vfs:
        raise NotFoundError(f"there is no VF {vf}", path=f"/actions/{index}", device=targets.device)
    return port


def _unsupported(what: str, index: int, targets: Targets, accepted: str) -> NicOffloadError:
    reason = Reason(
        code="action.unsupported",
        path=f"/actions/{index}",
        message=f"the data path has no {what}",
        accepted=accepted,
        source=targets.source,
    )
    return NotSupportedError(
        "the rule's actions can't be carried out",
        capability="flow_filters.flows",
        reasons=[reason],
        path=f"/actions/{index}",
        device=targets.device,
    )
