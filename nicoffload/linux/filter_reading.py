"""Filters of tc as rules: ours with all that their marks say, those of others as far as the model has words."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from nicoffload.driver.contract import InstalledRule, RuleRef
from nicoffload.errors import NicOffloadError
from nicoffload.kernel.tc import Alike, FilterState, Targets, held_actions, lower_actions, raise_actions
from nicoffload.linux.hook_book import is_ours
from nicoffload.linux.marks import NAMES_PORT, OURS, read_marks
from nicoffload.linux.nic import UPLINK_PORT
from nicoffload.linux.reading import unreadable
from nicoffload.model import FlowRule, Masked, Match, PortRange

_PORT_MASK = 0xFFFF
Known = tuple[FlowRule, RuleRef]
"""A rule that this process installed, and where."""


class FilterReader:
    """Turns filters into rules.

    Args:
        table: Name of the table that they are in.
        targets: Where ports are.
        prefs: The prefs that ours may have.
        known: Number of a rule id to the rule that this process installed, and where. A filter that is what the
            kernel makes of that rule reads back as it, whatever the kernel rounded.
    """

    def __init__(self, table: str, targets: Targets, prefs: range, known: Mapping[int, Known]) -> None:
        self._table = table
        self._targets = targets
        self._prefs = prefs
        self._known = known

    def rule(self, state: FilterState, port: int) -> InstalledRule | None:
        """Return the rule of a filter; None for one of others that the hardware does not run.

        Args:
            state: The filter.
            port: Switch port that it hangs on.
        """
        if not self._is_ours(state):
            return self._foreign(state, port) if state.in_hw else None
        cookie = state.filter.rule_id
        assert cookie is not None
        ref = RuleRef(rule_id=cookie, table=self._table, slot=None)
        in_hardware = state.in_hw is True
        marks = read_marks(state.ref.handle)
        match = _with_port(state.filter.match, port) if marks.names_port else state.filter.match
        known = self._known.get(cookie.int)
        if known is not None and known[0].match == match and self._does(state, known[0]):
            return InstalledRule(ref=ref, rule=known[0], in_hardware=in_hardware)
        actions, foreign = raise_actions(
            state.filter.actions, state.filter.match, self._targets, state.filter.hw_tc
        )
        try:
            rule = FlowRule(match=match, actions=actions, priority=marks.priority, rule_id=cookie)
        except NicOffloadError as error:
            return unreadable(ref, "; ".join([*state.foreign, *foreign]) or str(error), match)
        return InstalledRule(
            ref=ref, rule=rule, in_hardware=in_hardware, foreign="; ".join([*state.foreign, *foreign])
        )

    def rules(self, alike: Alike, port: int) -> Iterator[InstalledRule]:
        """Yield the rules of filters that are alike; those that this process installed are only compared.

        Args:
            alike: The filters.
            port: Switch port that they hang on.
        """
        example = alike.example
        if example.filter.rule_id is None or not is_ours(example.ref, self._prefs):
            places: Iterable[int] = range(len(alike.handles))
        else:
            places = []
            yield from self._recognized(alike, port, places)
        for place in places:
            rule = self.rule(_state_of(alike, place), port)
            if rule is not None:
                yield rule

    def _recognized(self, alike: Alike, port: int, rest: list[int]) -> list[InstalledRule]:
        """Return the rules of this process that read back as they are, and note the places of the others."""
        example = alike.example
        plain, with_port = example.filter.match.shape, _with_port(example.filter.match, port).shape
        does: dict[int, bool] = {}
        rules: list[FlowRule] = []
        refs: list[RuleRef] = []
        known_of, from_bytes = self._known.get, int.from_bytes
        for place, (cookie, handle, values) in enumerate(
            zip(alike.cookies, alike.handles, alike.values, strict=True)
        ):
            known = known_of(from_bytes(cookie, "big"))
            if known is not None and handle >= OURS:
                rule, ref = known
                match = rule.match
                if handle & NAMES_PORT:
                    same = match.values == (port, *values) and match.shape == with_port
                else:
                    same = match.values == values and match.shape == plain
                if same:
                    key = id(rule.actions)
                    if key not in does:
                        does[key] = self._does(example, rule)
                    if does[key]:
                        rules.append(rule)
                        refs.append(ref)
                        continue
            rest.append(place)
        return InstalledRule.many(refs, rules, in_hardware=example.in_hw is True)

    def _is_ours(self, state: FilterState) -> bool:
        return state.filter.rule_id is not None and is_ours(state.ref, self._prefs)

    def _does(self, state: FilterState, known: FlowRule) -> bool:
        """Tell whether a filter does what the kernel makes of a rule."""
        try:
            lowered = lower_actions(known.actions, known.match, self._targets)
        except NicOffloadError:
            return False
        return state.filter.hw_tc == lowered.hw_tc and (
            held_actions(lowered.actions) == state.filter.actions or not lowered.actions
        )

    def _foreign(self, state: FilterState, port: int) -> InstalledRule:
        ref = RuleRef(rule_id=None, table=self._table, slot=None)
        match = state.filter.match if port == UPLINK_PORT else _with_port(state.filter.match, port)
        actions, strange = raise_actions(
            state.filter.actions, state.filter.match, self._targets, state.filter.hw_tc
        )
        foreign = [*state.foreign, *strange, *([f"chain {state.ref.chain}"] if state.ref.chain else [])]
        if foreign:
            return unreadable(ref, "; ".join(foreign), match)
        try:
            return InstalledRule(ref=ref, rule=FlowRule(match=match, actions=actions))
        except NicOffloadError as error:
            return unreadable(ref, str(error), match)


def _state_of(alike: Alike, place: int) -> FilterState:
    """Return one filter of those that are alike, in full but for its counters."""
    example = alike.example
    match = example.filter.match
    fields = {
        name: PortRange(*value) if isinstance(value, tuple) else Masked(value, mask)
        for (name, mask), value in zip(match.shape, alike.values[place], strict=True)
    }
    handle, pref = alike.handles[place], alike.prefs[place]
    cookie = alike.cookies[place] if alike.cookies else b""
    rule_id = uuid.UUID(bytes=cookie) if cookie and handle >= OURS else None
    return replace(
        example,
        ref=replace(example.ref, handle=handle, pref=pref),
        filter=replace(
            example.filter, match=Match(**fields), handle=handle, pref=max(pref, 1), rule_id=rule_id
        ),
        counters=None,
    )


def _with_port(match: Match, port: int) -> Match:
    return match.replace(in_port=Masked(port, _PORT_MASK))
