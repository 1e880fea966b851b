"""A flow rule: what to match, what to do, and which rule of ours it is."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field

from nicoffload.errors import InvalidRequestError
from nicoffload.model.action import ACTION_NAMES, FATES, Action
from nicoffload.model.match import Masked, Match

MAX_PRIORITY = 0xFFFF
_FATE_TYPES = frozenset(kind for kind, name in ACTION_NAMES.items() if name in FATES)


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowRule:
    """One rule, as asked for: the same on every NIC and machine.

    Args:
        match: Which packets.
        actions: What to do, in order; exactly one of them decides where the packet ends.
        priority: 0 to 65535, higher first, as in Open vSwitch. None says that no other rule of the caller overlaps,
            so that a NIC without priorities can hold it.
        rule_id: Names the rule for as long as it lives, also across restarts.

    Raises:
        InvalidRequestError: No fate or two of them, or a priority out of range.
    """

    match: Match
    actions: tuple[Action, ...]
    priority: int | None = None
    rule_id: uuid.UUID = field(default_factory=uuid.uuid4)

    def __post_init__(self) -> None:
        fates = 0
        for action in self.actions:
            kind = type(action)
            if kind in _FATE_TYPES:
                fates += 1
            elif kind not in ACTION_NAMES:
                raise InvalidRequestError(
                    f"{action!r} is no action", path="/actions", hint="see nicoffload.model"
                )
        if fates != 1:
            raise self._fates_error()
        if self.priority is not None and not 0 <= self.priority <= MAX_PRIORITY:
            raise InvalidRequestError(f"{self.priority} is not within 0 to {MAX_PRIORITY}", path="/priority")

    def _fates_error(self) -> InvalidRequestError:
        names = [ACTION_NAMES[type(action)] for action in self.actions]
        found = " and ".join(name for name in names if name in FATES) or "none"
        return InvalidRequestError(
            f"a rule has exactly one of {', '.join(sorted(FATES))}; found {found}", path="/actions"
        )

    @property
    def direction(self) -> str:
        """``tx`` for a rule on what a VF or the PF sends (it matches that in_port), else ``rx``."""
        port = self.match.in_port
        return "tx" if isinstance(port, Masked) and port.value > 0 else "rx"
