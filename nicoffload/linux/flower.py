"""Tables that tc flower fills, on the uplink and on representors: in bulk, beside other programs' filters."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from operator import is_

import numpy as np

from nicoffload.driver.contract import InstalledRule, Outcome, Placement, RuleRef, TableState
from nicoffload.errors import ConflictError, NicOffloadError, NotFoundError, NotSupportedError, Reason
from nicoffload.kernel.features import feature_command, set_feature
from nicoffload.kernel.netlink import Netlink
from nicoffload.kernel.seam import NETLINK_ROUTE
from nicoffload.kernel.tc import (
    Alike,
    Gact,
    Hook,
    Lowered,
    Placing,
    QueueStyle,
    Targets,
    TcFilter,
    TcFilters,
    Verdict,
    add_command,
    delete_command,
    lower_actions,
    protocol_of_match,
    qdisc,
)
from nicoffload.linux.coming import COMING
from nicoffload.linux.counting import CounterColumns, counter_facts
from nicoffload.linux.filter_reading import FilterReader, Known
from nicoffload.linux.hook_book import HookBook, Located
from nicoffload.linux.marks import OURS, PREFS, base_handle
from nicoffload.linux.mechanism import Mechanism
from nicoffload.linux.modes import change_mode, mode_command, obstacles
from nicoffload.linux.nic import UPLINK_PORT, LinuxNic, Ports, feature_name
from nicoffload.model import Action, FlowRule, Masked, Match, format_switch_port
from nicoffload.profiles.types import Table

_FULL_DUMP = 4096
"""Up to so many rules the time of their last use is read too, which makes the kernel's answer five times as long."""
_GET_COST = 16
"""Reading one filter by itself costs about as much as this many of a dump."""
_FEW = 8
"""Fewer rules with one template than this are written one by one."""


@dataclass(slots=True)
class _Group:
    """Rules that differ in the values of their fields only.

    Args:
        port: Switch port that they enter; None where they name none.
        example: One of them.
        places: Their places in the request.
    """

    port: int | None
    example: FlowRule
    places: list[int] = field(default_factory=list)


class FlowerTables(Mechanism):
    """The tables of a NIC that flower fills: one at a time, by the mode of the switch.

    Args:
        nic: The NIC.
        tables: Those of its profile, in order of preference.
        queues: How the driver is told of a receive queue.
        prefs: The prefs that our filters may have.
    """

    def __init__(
        self,
        nic: LinuxNic,
        tables: Sequence[Table],
        *,
        queues: QueueStyle = QueueStyle.NONE,
        prefs: range = PREFS,
    ) -> None:
        super().__init__(nic, tables)
        self._queues = queues
        self._prefs = prefs
        self._books: dict[int, HookBook] = {}
        self._rules: dict[int, Known] = {}
        self._shown: dict[int, Sequence[str]] = {}
        self._shown_books: dict[int, HookBook] = {}

    # ------------------------------------------------------------------------------------------------------- tables

    def states(self) -> Sequence[TableState]:
        """Return the tables. What is in use is what the hardware runs, of anybody, on every port of the NIC."""
        in_use = 0
        active = self._active()
        if active is not None:
            for ifindex in self.nic.ports().ifindexes().values():
                in_use += self._count_in_hardware(ifindex)
        states = []
        for table in self.tables:
            reasons = self.blocked(table)
            is_mode = _is_mode(reasons)
            against = tuple(obstacles(self.nic, flows=in_use)) if is_mode else ()
            states.append(
                TableState(
                    table=table,
                    rows=table.rows,
                    in_use=in_use * table.rows_per_rule if table is active else 0,
                    blocked=(*reasons, *against),
                    enable=self.cost(table, (*reasons, *against)),
                    mode=table.needs.eswitch_mode if is_mode else "",
                    enable_without_vfs=self.cost_without_vfs((*reasons, *against)),
                    on_each_vf=self._comes_off(table),
                )
            )
        return states

    def _comes_off(self, table: Table) -> bool:
        """Tell whether representors come with what a table needs turned off."""
        needs = table.needs
        return (
            bool(needs.feature)
            and needs.feature_default == "off"
            and self.nic.has_representors(needs.eswitch_mode or self.nic.eswitch_mode())
        )

    def enable(self, table: Table) -> None:
        """Change the mode of the switch, and turn on the feature on the uplink and on every representor."""
        mode = table.needs.eswitch_mode
        if mode and self.nic.eswitch_mode() not in (None, mode):
            self.set_mode(mode)
            if not table.needs.feature:
                return
        self._needed(table)
        for ifname in self._ifnames():
            set_feature(self.nic.kernel, ifname, feature_name(table.needs.feature), on=True)

    def enable_commands(self, table: Table) -> Sequence[str]:
        """Return the `devlink` and `ethtool` commands."""
        mode = table.needs.eswitch_mode
        commands = list(super().enable_commands(table))
        if self._comes_off(table):
            commands += [
                feature_command(one.ifname, feature_name(table.needs.feature), on=True)
                for one in self.nic.ports_ahead(mode).representors.values()
                if one.ifindex >= COMING
            ]
        if mode and self.nic.mode_ahead() not in (None, mode):
            return [mode_command(self.nic, mode), *commands]
        return commands

    def set_mode(self, mode: str) -> None:
        """Change the mode of the switch; the driver wants some rules out of the way first."""
        in_use = sum(map(self._count_in_hardware, self.nic.ports().ifindexes().values()))
        change_mode(self.nic, mode, flows=in_use)
        self._books.clear()  # mlx5 makes network devices anew

    def _ifnames(self) -> list[str]:
        return list(self.nic.ports().names().values())

    def _active(self) -> Table | None:
        """Return the table that the NIC has in its present mode."""
        mode = self.nic.eswitch_mode()
        for table in self.tables:
            if not table.needs.eswitch_mode or mode in (None, table.needs.eswitch_mode):
                return table
        return None

    def _count_in_hardware(self, ifindex: int) -> int:
        with TcFilters(self.nic.kernel, Hook.ingress(ifindex), device=self.nic.device) as filters:
            try:
                return int(np.count_nonzero(filters.counters().in_hw))
            except NicOffloadError:  # filters of another classifier have no short form
                return sum(state.in_hw is True for state in filters.dump())

    # -------------------------------------------------------------------------------------------------------- rules

    def create(self, placements: Sequence[Placement]) -> Sequence[Outcome]:
        """Install rules in the hardware alone (``skip_sw``), so that a driver's refusal is an error."""
        outcomes: list[Outcome] = [_NO_ANSWER] * len(placements)
        self._explainer = self.explainer()
        self.forget_shown()
        targets = self._targets(self.nic.ports())
        by_port: dict[int | None, list[_Group]] = {}
        for group in _grouped(placements):
            by_port.setdefault(group.port, []).append(group)
        for port, groups in by_port.items():
            try:
                ifindex = self._ifindex(targets, UPLINK_PORT if port is None else port)
                book = self._book(ifindex)
                self._ensure_qdisc(ifindex)
            except NicOffloadError as error:
                for group in groups:
                    for place in group.places:
                        outcomes[place] = error
                continue
            with TcFilters(self.nic.kernel, Hook.ingress(ifindex), device=self.nic.device) as filters:
                for group in groups:
                    self._install(filters, book, group, placements, targets, outcomes)
        return outcomes

    def _install(
        self,
        filters: TcFilters,
        book: HookBook,
        group: _Group,
        placements: Sequence[Placement],
        targets: Targets,
        outcomes: list[Outcome],
    ) -> None:
        try:
            like = self.lower(group.example, targets)
            protocol = protocol_of_match(like.match)
            priority = self._priority(group.example, placements[group.places[0]])
            spans = book.take(protocol, priority, len(group.places))
        except NicOffloadError as error:
            error.device = error.device or self.nic.device
            for place in group.places:
                outcomes[place] = error
            return
        start = 0
        base = base_handle(names_port=group.port is not None, priority=priority)
        for pref, number, count in spans:
            places = group.places[start : start + count]
            start += count
            rules = [placements[place].rule for place in places]
            refused = self._write(filters, replace(like, pref=pref), rules, base | number)
            retry = [row for row, error in refused.items() if isinstance(error, ConflictError)]
            if retry and self._reread(book):
                # Another process took those handles since this one read them.
                for row in retry:
                    again = book.take(protocol, priority, 1)[0]
                    item = replace(like, pref=again[0])
                    refused.pop(row)
                    located = Located(book.ifindex, again[0], base | again[1], protocol)
                    fault = self._write(filters, item, [rules[row]], located.handle).get(0)
                    self._settle(book, placements, places[row], located, fault, outcomes)
            moved = frozenset(retry)
            for row, place in enumerate(places):
                if row not in moved or row in refused:
                    located = Located(book.ifindex, pref, base | number + row, protocol)
                    self._settle(book, placements, place, located, refused.get(row), outcomes)

    def _settle(
        self,
        book: HookBook,
        placements: Sequence[Placement],
        place: int,
        located: Located,
        error: NicOffloadError | None,
        outcomes: list[Outcome],
    ) -> None:
        """Note what became of one rule."""
        placement = placements[place]
        if error is not None:
            outcomes[place] = self.refused(error, placement)
            return
        rule = placement.rule
        number = rule.rule_id.int
        book.ours[number] = located
        ref = RuleRef(rule_id=rule.rule_id, table=placement.table, slot=None)
        self._rules[number] = rule, ref
        outcomes[place] = ref

    def _write(
        self, filters: TcFilters, like: TcFilter, rules: Sequence[FlowRule], handle: int
    ) -> dict[int, NicOffloadError]:
        """Install rules of one shape, and return row to error of those that were refused."""
        handles = np.arange(handle, handle + len(rules), dtype=np.uint32)
        if len(rules) < _FEW:
            items = [
                replace(
                    like,
                    match=_without_port(rule),
                    handle=int(handles[row]),
                    rule_id=rule.rule_id,
                )
                for row, rule in enumerate(rules)
            ]
            found = filters.add_many(items)
            return {row: one for row, one in enumerate(found) if isinstance(one, NicOffloadError)}
        return filters.add_columns(
            replace(like, rule_id=rules[0].rule_id),
            _columns(rules),
            handles,
            cookies=_cookies(rules),
        )

    def destroy(self, refs: Sequence[RuleRef]) -> Sequence[NicOffloadError | None]:
        """Remove rules by their cookies. The qdisc stays: a virtual switch may have come to rely on it meanwhile."""
        self.forget_shown()
        located = self._locate(refs)
        answers: list[NicOffloadError | None] = [
            None if one is not None else self.not_there(ref) for ref, one in zip(refs, located, strict=True)
        ]
        by_hook: dict[int, list[int]] = {}
        for place, one in enumerate(located):
            if one is not None:
                by_hook.setdefault(one.ifindex, []).append(place)
        for ifindex, places in by_hook.items():
            book = self._book(ifindex)
            with TcFilters(self.nic.kernel, Hook.ingress(ifindex), device=self.nic.device) as filters:
                found = filters.delete_many([one.ref() for place in places if (one := located[place])])
            for place, error in zip(places, found, strict=True):
                rule_id = refs[place].rule_id
                answers[place] = None if error is None else self.not_removed(error, refs[place])
                if rule_id is not None and (error is None or isinstance(error, NotFoundError)):
                    book.ours.pop(rule_id.int, None)
                    self._rules.pop(rule_id.int, None)
        return answers

    def dump(self, refs: Sequence[RuleRef] | None) -> Sequence[InstalledRule]:
        """Return the filters of every port: ours with their ids, those of others that the hardware runs without."""
        table = self._active()
        if table is None:
            return []
        ports = self.nic.ports()
        reader = FilterReader(table.name, self._targets(ports), self._prefs, self._rules)
        if refs is None:
            found: list[InstalledRule] = []
            for port, ifindex in sorted(ports.ifindexes().items()):
                for alike in self._read_alike(ifindex, (0,)):
                    found += reader.rules(alike, port)
            return found
        located = self._locate(refs)
        port_of = {ifindex: port for port, ifindex in ports.ifindexes().items()}
        wanted: dict[int, list[Located]] = {}
        for one in located:
            if one is not None:
                wanted.setdefault(one.ifindex, []).append(one)
        read = [
            rule
            for ifindex, those in wanted.items()
            for rule in self._read_those(reader, ifindex, those, port_of.get(ifindex, UPLINK_PORT))
        ]
        if len(read) == len(refs) and all(map(is_, [rule.ref for rule in read], refs)):
            return read  # filters that were made together come in the order in which they were made
        there = {rule.ref.rule_id.int: rule for rule in read if rule.ref.rule_id is not None}
        return [
            there[ref.rule_id.int] for ref in refs if ref.rule_id is not None and ref.rule_id.int in there
        ]

    def count(self, refs: Sequence[RuleRef], rows: Sequence[int], into: CounterColumns) -> None:
        """Read what the hardware counted of rules."""
        table = self._active()
        if table is None or table.counters is None:
            return
        located = self._locate(refs)
        facts = counter_facts(table.counters, "nic:rule")
        idle = "last_used" in table.counters.values and len(refs) <= _FULL_DUMP
        for ifindex in {one.ifindex for one in located if one is not None}:
            with TcFilters(self.nic.kernel, Hook.ingress(ifindex), device=self.nic.device) as filters:
                try:
                    found = filters.counters(idle=idle)
                except NicOffloadError:
                    found = filters.counters(idle=True)
            index = {bytes(cookie): at for at, cookie in enumerate(found.cookies) if found.ours[at]}
            for ref, row, one in zip(refs, rows, located, strict=True):
                if one is None or one.ifindex != ifindex or ref.rule_id is None:
                    continue
                at = index.get(ref.rule_id.bytes)
                if at is None or not (found.in_hw[at] and found.hw_counted[at]):
                    continue
                into.valid[row] = True
                into.packets[row] = found.hw_packets[at]
                into.bytes[row] = found.hw_bytes[at]
                into.epoch[row] = one.pref << 32 | one.handle
                into.facts[row] = facts
                if found.idle_ns[at] >= 0:
                    into.last_used_ns[row] = into.time_ns - int(found.idle_ns[at])

    def commands(self, placement: Placement) -> Sequence[str]:
        """Return the `tc` commands, the one that makes the qdisc included where it is needed.

        A rule has the same commands until rules are made or removed, and no two rules have one handle.
        """
        number = placement.rule.rule_id.int
        found = self._shown.get(number)
        if found is None:
            found = self._shown[number] = self._commands(placement)
        return found

    def removal_commands(self, refs: Sequence[RuleRef]) -> Sequence[Sequence[str]]:
        """Return the `tc` commands."""
        self.forget_shown()
        if not refs:
            return ()
        name_of = self._name_of(self.nic.ports())
        return [
            () if one is None else [delete_command(one.ref(), Hook.ingress(one.ifindex), name_of)]
            for one in self._locate(refs)
        ]

    def _commands(self, placement: Placement) -> Sequence[str]:
        mode = next((one.needs.eswitch_mode for one in self.tables if one.name == placement.table), "")
        ports = self.nic.ports_ahead(mode)
        targets = self._targets(ports)
        rule = placement.rule
        port = _port(rule)
        ifindex = self._ifindex(targets, UPLINK_PORT if port is None else port)
        like = self.lower(rule, targets)
        priority = self._priority(rule, placement)
        commands = []
        if ifindex not in self._shown_books:
            # A book of its own: to show a command takes no number.
            is_there = ifindex < COMING
            self._shown_books[ifindex] = self._load(ifindex) if is_there else HookBook(ifindex, self._prefs)
            if not is_there or not self._has_qdisc(ifindex):
                commands.append(f"tc qdisc add dev {ports.names()[ifindex]} clsact")
        book = self._shown_books[ifindex]
        pref, number, _ = book.take(protocol_of_match(like.match), priority, 1)[0]
        handle = base_handle(names_port=port is not None, priority=priority) | number
        item = replace(like, pref=pref, handle=handle)
        return [*commands, add_command(item, Hook.ingress(ifindex), self._name_of(ports))]

    def _name_of(self, ports: Ports) -> Callable[[int], str]:
        """Return what names the devices of a command; a mechanism whose targets are others overrides it."""
        return ports.names().__getitem__

    # ------------------------------------------------------------------------------------------- for plugins to refine

    def lower(self, rule: FlowRule, targets: Targets) -> TcFilter:
        """Return the filter of a rule, without its place.

        Raises:
            NotSupportedError: tc can't say it, or a target is not there.
        """
        lowered = lower_actions(rule.actions, rule.match, targets)
        if not lowered.actions:
            # Drivers that deliver by traffic class look at no action, and the rule's id needs one to be kept in.
            lowered = Lowered(actions=(Gact(verdict=Verdict.PASS),), hw_tc=lowered.hw_tc)
        return TcFilter(
            match=_without_port(rule),
            actions=lowered.actions,
            pref=self._prefs.start,
            placing=Placing.HARDWARE,
            rule_id=rule.rule_id,
            hw_tc=lowered.hw_tc,
        )

    def not_there(self, ref: RuleRef) -> NicOffloadError:
        """Return the error for a rule that no port has."""
        return NotFoundError(f"rule {ref.rule_id} is not in table {ref.table}", device=self.nic.device)

    # ------------------------------------------------------------------------------------------------------ insides

    def forget_shown(self) -> None:
        """Show commands as if none had been shown before."""
        self._shown.clear()
        self._shown_books.clear()

    def _targets(self, ports: Ports) -> Targets:
        return Targets(ifindexes=ports.ifindexes(), queues=self._queues)

    def _ifindex(self, targets: Targets, port: int) -> int:
        ifindex = targets.ifindexes.get(port)
        if ifindex is None:
            name = format_switch_port(port)
            known = ", ".join(format_switch_port(one) for one in sorted(targets.ifindexes))
            reason = Reason(
                code="port.absent",
                path="/match/in_port",
                message=f"no device stands for {name}, so no filter can hang on it",
                accepted=known,
            )
            raise NotSupportedError(
                f"rules can't be hung on {name}",
                capability="flow_filters.flower",
                reasons=[reason],
                path="/match/in_port",
                device=self.nic.device,
            )
        return ifindex

    def _priority(self, rule: FlowRule, placement: Placement) -> int | None:
        """Return the priority that the filter's pref has to keep; None where the table knows none."""
        honoured = any(
            table.name == placement.table and table.priority == "honoured" for table in self.tables
        )
        return rule.priority if honoured else None

    def _book(self, ifindex: int) -> HookBook:
        book = self._books.get(ifindex)
        if book is None:
            book = self._books[ifindex] = self._load(ifindex)
        return book

    def _load(self, ifindex: int) -> HookBook:
        book = HookBook(ifindex, self._prefs)
        for alike in self._read_alike(ifindex, (0,)):
            ref = alike.example.ref
            mine = ref.kind == "flower" and ref.chain == 0 and bool(alike.cookies)
            for place, (handle, pref) in enumerate(zip(alike.handles, alike.prefs, strict=True)):
                ours = mine and handle >= OURS and pref in self._prefs
                number = int.from_bytes(alike.cookies[place], "big") if ours else None
                book.note(pref, handle, ref.protocol, ref.chain, number)
        return book

    def _reread(self, book: HookBook) -> bool:
        fresh = self._load(book.ifindex)
        changed = fresh.ours != book.ours
        book.replace_with(fresh)
        return changed

    def _read_alike(self, ifindex: int, prefs: Iterable[int]) -> list[Alike]:
        with TcFilters(self.nic.kernel, Hook.ingress(ifindex), device=self.nic.device) as filters:
            return [alike for pref in prefs for alike in filters.dump_alike(pref=pref)]

    def _read_those(
        self, reader: FilterReader, ifindex: int, those: Sequence[Located], port: int
    ) -> Iterator[InstalledRule]:
        """Yield the rules at some places: one by one where they are few of many, else by whole prefs."""
        if len(those) * _GET_COST <= len(self._books[ifindex].ours):
            with TcFilters(self.nic.kernel, Hook.ingress(ifindex), device=self.nic.device) as filters:
                found = filters.get_many([one.ref() for one in those])
            for state in found:
                if state is not None and (rule := reader.rule(state, port)) is not None:
                    yield rule
            return
        for alike in self._read_alike(ifindex, sorted({one.pref for one in those})):
            yield from reader.rules(alike, port)

    def _locate(self, refs: Sequence[RuleRef]) -> list[Located | None]:
        """Return where rules are; what this process does not know is read from the kernel once."""
        ports = self.nic.ports().ifindexes().values()
        for ifindex in ports:
            self._book(ifindex)
        books = [self._books[ifindex] for ifindex in ports]
        found = _look_up(refs, books)
        if any(one is None for one in found):
            for book in books:
                self._reread(book)
            found = _look_up(refs, books)
        return found

    def _has_qdisc(self, ifindex: int) -> bool:
        with Netlink(self.nic.kernel, NETLINK_ROUTE, device=self.nic.device) as netlink:
            return qdisc.find(netlink, ifindex) is not None

    def _ensure_qdisc(self, ifindex: int) -> None:
        with Netlink(self.nic.kernel, NETLINK_ROUTE, device=self.nic.device) as netlink:
            qdisc.ensure(netlink, ifindex)


def _is_mode(reasons: Sequence[Reason]) -> bool:
    return any(reason.code == "table.eswitch_mode" for reason in reasons)


_NO_ANSWER = NicOffloadError("the kernel did not answer")


def _grouped(placements: Sequence[Placement]) -> list[_Group]:
    """Return rules by what a template has to say; equal shapes and actions are nearly always one object each."""
    groups: dict[object, _Group] = {}
    actions_of: dict[int, tuple[Action, ...]] = {}
    same: dict[tuple[Action, ...], tuple[Action, ...]] = {}
    for place, placement in enumerate(placements):
        rule = placement.rule
        match, actions = rule.match, rule.actions
        one = actions_of.get(id(actions))
        if one is None:
            one = actions_of[id(actions)] = same.setdefault(actions, actions)
        eth_type, ip_proto, frag = match.eth_type, match.ip_proto, match.ip_frag
        port = match.in_port
        key = (
            id(match.shape),
            id(one),
            rule.priority,
            placement.table,
            port.value if type(port) is Masked else None,
            eth_type.value if type(eth_type) is Masked else -1,
            ip_proto.value if type(ip_proto) is Masked else -1,
            frag.value if type(frag) is Masked else -1,
        )
        group = groups.get(key)
        if group is None:
            group = groups[key] = _Group(_port(rule), rule)
        group.places.append(place)
    return list(groups.values())


def _port(rule: FlowRule) -> int | None:
    port = rule.match.in_port
    return port.value if isinstance(port, Masked) else None


def _without_port(rule: FlowRule) -> Match:
    return rule.match if rule.match.in_port is None else rule.match.replace(in_port=None)


def _columns(rules: Sequence[FlowRule]) -> Mapping[str, np.ndarray]:
    """Return the values of rules of one shape, field by field."""
    fixed = {"eth_type", "ip_proto", "ip_frag", "in_port"}
    names = [name for name, _ in rules[0].match.shape]
    columns: dict[str, np.ndarray] = {}
    for name, values in zip(names, zip(*(rule.match.values for rule in rules), strict=True), strict=True):
        if name in fixed:
            continue
        if name.startswith(("ipv6", "tun_ipv6")):
            joined = b"".join(value.to_bytes(16, "big") for value in values)
            columns[name] = np.frombuffer(joined, np.uint8).reshape(-1, 16)
        else:
            columns[name] = np.array(values, np.uint64)
    return columns


def _cookies(rules: Sequence[FlowRule]) -> np.ndarray:
    joined = b"".join([rule.rule_id.int.to_bytes(16, "big") for rule in rules])
    return np.frombuffer(joined, np.uint8).reshape(-1, 16)


def _look_up(refs: Sequence[RuleRef], books: Sequence[HookBook]) -> list[Located | None]:
    found: list[Located | None] = []
    if len(books) == 1:
        where = books[0].ours.get
        return [where(ref.rule_id.int) if ref.rule_id is not None else None for ref in refs]
    for ref in refs:
        number = ref.rule_id.int if ref.rule_id is not None else -1
        found.append(next((one for book in books if (one := book.ours.get(number)) is not None), None))
    return found
