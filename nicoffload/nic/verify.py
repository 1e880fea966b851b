"""Compares what was asked for with what the NIC reports."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence
from operator import is_

from nicoffload.codec import format_rule
from nicoffload.driver.contract import InstalledRule, RuleRef
from nicoffload.errors import VerificationError
from nicoffload.model import Action, Count, FlowRule

Content = tuple[object, object, tuple[Action, ...]]


def content_of(rule: FlowRule) -> Content:
    """Return what makes two rules the same to a NIC: fields, masks, values and actions.

    `Count` is left out: a NIC that counts every rule does not report that it was asked to.
    """
    actions = rule.actions
    if len(actions) > 1:
        actions = tuple(action for action in actions if not isinstance(action, Count))
    return rule.match.shape, rule.match.values, actions


def same_rule(asked: FlowRule, found: FlowRule) -> bool:
    """Tell whether a rule that was read is the one asked for. A priority counts where both have one."""
    if asked is found:
        return True
    if asked.priority is not None and found.priority is not None and asked.priority != found.priority:
        return False
    return content_of(asked) == content_of(found)


def all_as_asked(asked: Sequence[FlowRule], refs: Sequence[RuleRef], found: Sequence[InstalledRule]) -> bool:
    """Tell whether all rules read back in their order as the very objects that were asked for.

    That is what a driver returns which compared them itself. No is no verdict: they may be equal, or in another order.

    Args:
        asked: The rules.
        refs: Where the driver says that they are.
        found: What it read.
    """
    return (
        len(asked) == len(refs) == len(found)
        and all(map(is_, [each.rule for each in found], asked))
        and all(map(is_, [each.ref for each in found], refs))
    )


class Reading:
    """Rules as read from the NIC, to be looked up by cookie and by location.

    Args:
        installed: The rules.
    """

    def __init__(self, installed: Iterable[InstalledRule]) -> None:
        self.rules = tuple(installed)
        self._by_cookie: dict[uuid.UUID, list[InstalledRule]] = {}
        self._by_place: dict[tuple[str, int], InstalledRule] = {}
        for each in self.rules:
            ref = each.ref
            if ref.rule_id is not None:
                self._by_cookie.setdefault(ref.rule_id, []).append(each)
            if ref.slot is not None:
                self._by_place[ref.table, ref.slot] = each

    def with_cookie(self, rule_id: uuid.UUID) -> Sequence[InstalledRule]:
        """Return the rules that carry an id."""
        return self._by_cookie.get(rule_id, ())

    def at(self, ref: RuleRef) -> InstalledRule | None:
        """Return what is where a rule is recorded: the rule with its cookie, else what is in its location."""
        if ref.rule_id is not None and (found := self._by_cookie.get(ref.rule_id)):
            return found[0]
        if ref.slot is None:
            return None
        there = self._by_place.get((ref.table, ref.slot))
        return there if there is not None and there.ref.rule_id is None else None


def not_as_asked(asked: FlowRule, found: InstalledRule | None, device: str) -> VerificationError:
    """Return what is wrong with a rule that a driver said it installed."""
    expected = format_rule(asked)
    if found is None:
        return VerificationError(
            f"the call that adds rule {asked.rule_id} succeeded, and the rule is not in the NIC",
            expected=expected,
            actual="",
            device=device,
        )
    actual = format_rule(found.rule)
    return VerificationError(
        f"rule {asked.rule_id} reads back as {actual}, not as {expected}",
        expected=expected,
        actual=actual,
        device=device,
    )
