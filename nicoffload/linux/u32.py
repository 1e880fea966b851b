"""Tables that tc u32 fills, as ixgbe takes them: addresses in one filter, ports in a hash table that it leads to."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from nicoffload.driver.contract import InstalledRule, Outcome, Placement, RuleRef, TableState
from nicoffload.errors import (
    ConflictError,
    InvalidRequestError,
    NicOffloadError,
    NotFoundError,
    NotSupportedError,
    Reason,
    ResourceExhaustedError,
)
from nicoffload.kernel.netlink import Netlink
from nicoffload.kernel.seam import NETLINK_ROUTE
from nicoffload.kernel.tc import (
    FilterRef,
    Hook,
    Placing,
    Targets,
    U32Filter,
    U32Filters,
    U32Key,
    U32State,
    linked_keys,
    lower_actions,
    qdisc,
    raise_actions,
)
from nicoffload.linux.counting import CounterColumns
from nicoffload.linux.marks import PREFS
from nicoffload.linux.mechanism import Mechanism
from nicoffload.linux.nic import UPLINK_PORT, LinuxNic
from nicoffload.linux.reading import table_of, unreadable
from nicoffload.linux.u32_shown import ShownFilters
from nicoffload.model import FIRST_VF_PORT, FlowRule
from nicoffload.profiles.types import Table

PREF = PREFS.stop - 1
"""The one pref of ours: the driver knows the root table of the first pref of u32 only (ixgbe_main.c, uhtid 0x800)."""
ROOT = 0x800
_LINK_TABLES = range(1, 10)
"""Tables that the driver keeps (IXGBE_MAX_LINK_HANDLE 10)."""
_PLACE = 0xFFFFF
_NODE = 0xFFF

Header = tuple[U32Key, ...]


@dataclass(slots=True)
class _Graph:
    """What stands there of ours.

    Args:
        links: Words of a leading filter to that filter.
        rules: Location to filter.
        nodes: Numbers that are taken in the root table.
        foreign: Whether somebody else has u32 filters on the hook.
    """

    links: dict[Header, U32State] = field(default_factory=dict)
    rules: dict[int, U32State] = field(default_factory=dict)
    nodes: set[int] = field(default_factory=set)
    foreign: list[U32State] = field(default_factory=list)

    def tables(self) -> set[int]:
        """Return the numbers of the tables that something leads to, or that hold rules of others.

        Prefs of one hook share their tables, so another program's may be among those that the driver keeps.
        """
        led_to = {state.item.link for state in [*self.links.values(), *self.foreign] if state.item.link}
        return led_to | {state.item.table for state in self.foreign}

    def has_filters(self) -> bool:
        """Tell whether our pref has any filter."""
        return bool(self.rules or self.links) or any(state.ref.pref == PREF for state in self.foreign)

    def of_table(self, number: int) -> int:
        """Return how many rules a table has, of ours and of others."""
        return sum(state.item.table == number for state in [*self.rules.values(), *self.foreign])


class U32Tables(Mechanism):
    """The tables of a NIC that u32 fills. The location of a rule is the number of its filter.

    tc answers success where a driver refuses a filter of u32, also with ``skip_sw`` (cls_u32.c:u32_change): so what was
    installed is read back, and what the hardware did not take is removed and refused.

    Args:
        nic: The NIC.
        tables: Those of its profile, in order of preference.
    """

    def __init__(self, nic: LinuxNic, tables: Sequence[Table]) -> None:
        super().__init__(nic, tables)
        self._shown: dict[int, Sequence[str]] = {}
        self._shown_graph: _Graph | None = None
        """What would stand there after the commands that were shown."""

    def states(self) -> Sequence[TableState]:
        """Return the tables. Rows that another mechanism's rules take are told by that mechanism."""
        blocked = [self.blocked(table) for table in self.tables]
        used = 0
        if not all(blocked):
            with contextlib.suppress(NicOffloadError):
                used = len(self._read().rules)
        return [
            TableState(
                table=table,
                rows=table.rows,
                in_use=used * table.rows_per_rule,
                blocked=reasons,
                enable=self.cost(table, reasons),
            )
            for table, reasons in zip(self.tables, blocked, strict=True)
        ]

    def create(self, placements: Sequence[Placement]) -> Sequence[Outcome]:
        """Install rules; what the hardware did not take is removed again, and refused."""
        self.forget_shown()
        self._explainer = self.explainer()
        outcomes: dict[int, Outcome] = {}
        ifindex = self.nic.pf().ifindex
        self._ensure_qdisc(ifindex)
        targets = self._targets()
        items: dict[int, U32Filter] = {}
        with self._open(ifindex) as filters:
            graph = self._read(filters)
            for place, placement in enumerate(placements):
                try:
                    items[place] = self._item(filters, graph, placement, targets)
                except NicOffloadError as error:
                    error.device = error.device or self.nic.device
                    outcomes[place] = error
            for place, answer in zip(items, filters.add_many(list(items.values())), strict=True):
                placement = placements[place]
                outcomes[place] = (
                    self.refused(answer, placement)
                    if isinstance(answer, NicOffloadError)
                    else RuleRef(rule_id=placement.rule.rule_id, table=placement.table, slot=placement.slot)
                )
            self._verify(filters, placements, items, outcomes)
            self._sweep(filters, self._read(filters))
        return [outcomes[place] for place in range(len(placements))]

    def destroy(self, refs: Sequence[RuleRef]) -> Sequence[NicOffloadError | None]:
        """Remove rules by location, and the tables that are left without any."""
        self.forget_shown()
        with self._open(self.nic.pf().ifindex) as filters:
            graph = self._read(filters)
            found = [_find(graph, ref) for ref in refs]
            standing = [state.ref for state in found if state is not None]
            errors = iter(filters.delete_many(standing))
            answers = [
                self.not_there(ref) if state is None else self._removed(next(errors), ref)
                for ref, state in zip(refs, found, strict=True)
            ]
            self._sweep(filters, self._read(filters))
        return answers

    def dump(self, refs: Sequence[RuleRef] | None) -> Sequence[InstalledRule]:
        """Return the filters that the hardware runs: ours with their ids, those of others without."""
        targets = self._targets()
        graph = self._read()
        if refs is not None:
            wanted = [_find(graph, ref) for ref in refs]
            return [self._installed(state, targets) for state in wanted if state is not None]
        found = [self._installed(state, targets) for _, state in sorted(graph.rules.items())]
        return found + [
            self._installed(state, targets) for state in graph.foreign if state.in_hw and not state.item.link
        ]

    def count(self, refs: Sequence[RuleRef], rows: Sequence[int], into: CounterColumns) -> None:
        """Do nothing: the driver counts no rule."""

    def commands(self, placement: Placement) -> Sequence[str]:
        """Return the `tc` commands, those that make the qdisc and the rule's table included.

        A rule has the same commands until rules are made or removed, and those of many, run in order, each work. The
        number that a rule is to have is taken for free.
        """
        number = placement.rule.rule_id.int
        found = self._shown.get(number)
        if found is None:
            found = self._shown[number] = self._commands(placement)
        return found

    def _commands(self, placement: Placement) -> Sequence[str]:
        pf = self.nic.pf()
        told = self._told()
        if not self._shown:
            with Netlink(self.nic.kernel, NETLINK_ROUTE, device=self.nic.device) as netlink:
                if qdisc.find(netlink, pf.ifindex) is None:
                    told.commands.append(f"tc qdisc add dev {pf.ifname} clsact")
        graph = self._shown_graph = self._shown_graph or self._read()
        graph.rules.pop(placement.slot or 0, None)
        told.add_many([self._item(told, graph, placement, self._targets())])
        return told.commands

    def removal_commands(self, refs: Sequence[RuleRef]) -> Sequence[Sequence[str]]:
        """Return the `tc` commands; a rule that is the last of its table takes along what led to it."""
        self.forget_shown()
        if not refs:
            return ()
        graph = self._shown_graph = self._read()
        found = []
        for ref in refs:
            told = self._told()
            state = _find(graph, ref)
            if state is not None:
                told.delete_many([state.ref])
                del graph.rules[state.ref.handle & _PLACE]
                self._sweep(told, graph)
            found.append(told.commands)
        return found

    def _told(self) -> ShownFilters:
        pf = self.nic.pf()
        names = {pf.ifindex: pf.ifname, **dict(self._vf_names().values())}
        return ShownFilters(Hook.ingress(pf.ifindex), names.__getitem__)

    def forget_shown(self) -> None:
        """Show commands as if none had been shown before."""
        self._shown.clear()
        self._shown_graph = None

    # ------------------------------------------------------------------------------------------ for plugins to refine

    def not_there(self, ref: RuleRef) -> NicOffloadError:
        """Return the error for a rule that is not there."""
        return NotFoundError(f"rule {ref.rule_id} is not in table {ref.table}", device=self.nic.device)

    def slots(self) -> set[int]:
        """Return the locations that rules of ours have."""
        return set(self._read().rules)

    # ------------------------------------------------------------------------------------------------------- insides

    def _removed(self, error: NicOffloadError | None, ref: RuleRef) -> NicOffloadError | None:
        return None if error is None else self.not_removed(error, ref)

    def _open(self, ifindex: int) -> U32Filters:
        return U32Filters(self.nic.kernel, Hook.ingress(ifindex), device=self.nic.device)

    def _read(self, filters: U32Filters | None = None) -> _Graph:
        if filters is None:
            with self._open(self.nic.pf().ifindex) as own:
                return self._read(own)
        graph = _Graph()
        try:
            states = filters.dump()
        except NotFoundError:
            return graph  # nothing hangs there
        for state in states:
            if state.item.table == ROOT:
                graph.nodes.add(state.item.node)
            if state.ref.pref != PREF:
                graph.foreign.append(state)
            elif state.item.link:
                graph.links[state.item.keys] = state
            elif state.item.rule_id is None:
                graph.foreign.append(state)
            else:
                graph.rules[state.ref.handle & _PLACE] = state
        return graph

    def _words(self, placement: Placement) -> tuple[Header, Header]:
        header, ports = linked_keys(placement.rule.match)
        return tuple(header), tuple(ports)

    def _item(
        self, filters: U32Filters | ShownFilters, graph: _Graph, placement: Placement, targets: Targets
    ) -> U32Filter:
        """Return the filter of a rule; makes what leads to its table where that is not there."""
        slot = placement.slot
        if slot is None or not self.tables[0].first_slot <= slot <= _NODE:
            raise InvalidRequestError(
                f"u32 can't name location {slot}", path="/slot", hint="name one from 1 to 2045"
            )
        if slot in graph.rules:
            raise ConflictError(f"slot {slot} holds another rule", path="/slot")
        header, ports = self._words(placement)
        table = ROOT
        item = self._filter(placement, table, targets)
        if ports:
            table = self._table_for(filters, graph, header)
            item = self._filter(placement, table, targets)
        elif slot in graph.nodes:
            raise ConflictError(f"slot {slot} is the number of a filter that leads to a table", path="/slot")
        graph.nodes.add(slot if table == ROOT else 0)
        graph.rules[slot] = U32State(
            ref=FilterRef(pref=PREF, handle=item.handle, chain=0, protocol=item.protocol, kind="u32"),
            item=item,
            match=placement.rule.match,
            in_hw=None,
            counters=None,
        )
        return item

    def _filter(self, placement: Placement, table: int, targets: Targets) -> U32Filter:
        rule = placement.rule
        header, ports = self._words(placement)
        lowered = lower_actions(rule.actions, rule.match, targets)
        return U32Filter(
            keys=ports or header,
            actions=lowered.actions,
            pref=PREF,
            node=placement.slot or 0,
            table=table,
            placing=Placing.HARDWARE,
            rule_id=rule.rule_id,
        )

    def _table_for(self, filters: U32Filters | ShownFilters, graph: _Graph, header: Header) -> int:
        """Return the table of the rules with these words before their ports."""
        known = graph.links.get(header)
        if known is not None:
            return known.item.link
        number = self._free_table(graph)
        with contextlib.suppress(ConflictError):  # it is there, and empty
            filters.add_table(PREF, number)
        item = _link(header, number, self._free_node(graph))
        [answer] = filters.add_many([item])
        if isinstance(answer, NicOffloadError):
            raise answer
        graph.nodes.add(item.node)
        graph.links[header] = U32State(ref=answer, item=item, match=None, in_hw=None, counters=None)
        return number

    def _free_table(self, graph: _Graph) -> int:
        taken = graph.tables()
        for number in _LINK_TABLES:
            if number not in taken:
                return number
        raise ResourceExhaustedError(
            "the driver leads to nine tables of ports, one for each pair of addresses and protocol, and all are in use",
            limit=len(_LINK_TABLES),
            in_use=len(taken),
            device=self.nic.device,
            hint="match the same addresses, or use the ntuple table",
        )

    def _free_node(self, graph: _Graph) -> int:
        """Return a number for a filter that leads to a table, from above, where rules come last."""
        rows = min(self.tables[0].rows or _NODE + 1, _NODE + 1)
        taken = graph.nodes | set(graph.rules)
        return next(node for node in range(rows - 1, 0, -1) if node not in taken)

    def _verify(
        self,
        filters: U32Filters,
        placements: Sequence[Placement],
        items: Mapping[int, U32Filter],
        outcomes: dict[int, Outcome],
    ) -> None:
        """Remove and refuse what the hardware did not take."""
        after = self._read(filters)
        first_pref = not any(state.ref.pref < PREF for state in after.foreign)
        for place in items:
            placement, outcome = placements[place], outcomes[place]
            if isinstance(outcome, NicOffloadError) or placement.slot is None:
                continue
            state = after.rules.get(placement.slot)
            if state is not None and state.in_hw:
                continue
            if state is not None:
                filters.delete_many([state.ref])
            outcomes[place] = self.refused(self._not_taken(placement, first_pref=first_pref), placement)

    def _not_taken(self, placement: Placement, *, first_pref: bool) -> NotSupportedError:
        table = next(table for table in self.tables if table.name == placement.table)
        message = "the driver did not take the filter into the hardware, and tc does not say why"
        if not first_pref:
            message += (
                "; u32 filters of another program come first, and the driver knows the first pref's only"
            )
        reason = Reason(
            code="u32.not_in_hardware", path="/match", message=message, source=table.source, errno="EINVAL"
        )
        return NotSupportedError(
            f"rule {placement.rule.rule_id} was not installed",
            capability=f"flow_filters.{table.name}",
            reasons=[reason],
            device=self.nic.device,
            errno=22,
            hint="rules that stand there may have other masks; the ntuple table says more",
        )

    def _sweep(self, filters: U32Filters | ShownFilters, graph: _Graph) -> None:
        """Remove what leads to tables without rules, and the tables."""
        for header, state in tuple(graph.links.items()):
            if graph.of_table(state.item.link):
                continue
            del graph.links[header]
            table = FilterRef(
                pref=PREF, handle=state.item.link << 20, chain=0, protocol=state.ref.protocol, kind="u32"
            )
            # With the last filter of a pref its tables go by themselves.
            filters.delete_many([state.ref, table] if graph.has_filters() else [state.ref])

    def _installed(self, state: U32State, targets: Targets) -> InstalledRule:
        name = self.tables[0].name if state.match is None else table_of(self.tables, state.match).name
        ref = RuleRef(rule_id=state.item.rule_id, table=name, slot=state.ref.handle & _PLACE)
        in_hardware = state.in_hw is True
        if state.match is None or state.foreign:
            return unreadable(ref, "; ".join(state.foreign))
        actions, foreign = raise_actions(state.item.actions, state.match, targets, None)
        if foreign:
            return unreadable(ref, "; ".join(foreign), state.match)
        try:
            rule = (
                FlowRule(match=state.match, actions=actions, rule_id=ref.rule_id)
                if ref.rule_id is not None
                else FlowRule(match=state.match, actions=actions)
            )
        except NicOffloadError as error:
            return unreadable(ref, str(error), state.match)
        return InstalledRule(ref=ref, rule=rule, in_hardware=in_hardware)

    def _targets(self) -> Targets:
        """Return where VFs are: the driver finds one by the network device that its own driver made on this host."""
        ports = {FIRST_VF_PORT + vf: index for vf, (index, _) in self._vf_names().items()}
        return Targets(ifindexes={UPLINK_PORT: self.nic.pf().ifindex, **ports})

    def _vf_names(self) -> dict[int, tuple[int, str]]:
        found = {}
        for vf, address in enumerate(self.nic.vf_addresses()):
            for name in _names(self.nic, f"bus/pci/devices/{address}/net"):
                with contextlib.suppress(OSError, ValueError):
                    found[vf] = (int(self.nic.kernel.read_sysfs(f"class/net/{name}/ifindex")), name)
        return found

    def _ensure_qdisc(self, ifindex: int) -> None:
        with Netlink(self.nic.kernel, NETLINK_ROUTE, device=self.nic.device) as netlink:
            qdisc.ensure(netlink, ifindex)


def _find(graph: _Graph, ref: RuleRef) -> U32State | None:
    """Return the filter of a rule; None where another stands in its location, or none."""
    state = graph.rules.get(ref.slot) if ref.slot is not None else None
    if state is None or (ref.rule_id is not None and state.item.rule_id != ref.rule_id):
        return None
    return state


def _names(nic: LinuxNic, folder: str) -> Iterable[str]:
    try:
        return nic.kernel.list_sysfs(folder)
    except OSError:
        return ()


def _link(header: Header, table: int, node: int) -> U32Filter:
    return U32Filter(keys=header, actions=(), pref=PREF, node=node, link=table, placing=Placing.HARDWARE)
