"""The emulated NIC with its driver: requests that change it, and the clock that it lives by."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

from nicoffload.model import FlowRule
from nicoffload.packets import PacketBatch
from nicoffload.testing.emulator.actions import DROPPED
from nicoffload.testing.emulator.answer import Refused, refuse
from nicoffload.testing.emulator.changes import Changes
from nicoffload.testing.emulator.config import (
    Config,
    first_features,
    first_mode,
    first_vfs,
    make_tables,
    refresh_ns,
)
from nicoffload.testing.emulator.counters import PortCounters, RuleCounters
from nicoffload.testing.emulator.entry import Entry
from nicoffload.testing.emulator.faults import Faults
from nicoffload.testing.emulator.path import Path
from nicoffload.testing.emulator.spec import TableSpec
from nicoffload.testing.emulator.sriov import FIRST_VF_PORT, Sriov
from nicoffload.testing.emulator.state import Store
from nicoffload.testing.emulator.tables import Table
from nicoffload.testing.emulator.vfs import Vf

_IN_THE_WAY = {"vfs_present": "VFs exist", "flows_present": "rules are installed"}


class Device:
    """One emulated NIC.

    Args:
        document: Its profile.
        config: How it is at first.
        faults: What goes wrong.
        store: Where its state is kept; None for memory.
    """

    def __init__(
        self, document: Mapping[str, Any], config: Config, faults: Faults, store: Store | None = None
    ) -> None:
        self.document = document
        self.config = config
        self.faults = faults
        self.now_ns = 0
        self.link_bps = config.link_bps
        self.changes = Changes()
        self.path = Path(self)
        self.ports = PortCounters(FIRST_VF_PORT)
        self.sriov = Sriov(self, document)
        self._store = store
        self._speed_bps = config.link_bps
        self.carrier_changes = 0
        """How often the carrier went or came."""
        self._clear()
        self.mode = first_mode(document, config)
        self.features = first_features(self.tables, config)
        self.sriov.make(first_vfs(document, config), ready_ns=0)
        faults.start(self)

    def _clear(self) -> None:
        self.tables = make_tables(self.document, self.config)
        self._by_name = {table.spec.name: table for table in self.tables}
        self.rules = RuleCounters()
        self.rules.refresh_ns = max((refresh_ns(table.spec) for table in self.tables), default=0)
        self._next_entry = 1

    # Requests -------------------------------------------------------------------------------------------------------

    @contextmanager
    def session(self) -> Iterator[None]:
        """Hold the state file, if there is one, so that no other process works on the NIC meanwhile."""
        if self._store is None:
            yield
            return
        with self._store.locked(self):
            yield

    def create(self, table_name: str, rule: FlowRule, flow_type: str, slot: int | None) -> Entry:
        """Install a rule.

        Args:
            table_name: Where.
            rule: The rule.
            flow_type: As the request encodes it; empty for the first that takes the rule.
            slot: Location, where the caller picks it.

        Raises:
            Refused: The driver's answer.
        """
        rows_left = None
        self.check("flow_create")
        table = self._table(table_name)
        if blocked := self.blocked(table.spec):
            raise Refused(*blocked)
        entry = table.prepare(rule, flow_type, slot, self.sriov.targets())
        for rival in table.rivals:
            if rival.entries:
                refuse(table.spec.errors, "excluded", f"table {rival.spec.name} holds rules", path="/table")
        if rule.rule_id.int in table.by_rule:
            answer = table.spec.errors.get("duplicate") or "EEXIST"
            raise Refused(answer, "cookie", f"cookie {rule.rule_id} is in use", "/rule_id")
        if self.faults.active:
            rows_left = self.faults.rows_left(table)
            if self.does_nothing("flow_create"):
                return entry
        replaced = table.insert(entry, self._next_entry, rows_left)
        self._next_entry += 1
        entry.counter = self.rules.open()
        for gone in replaced:
            self._let_go(gone)
        self.changes.add(entry.filters)
        if self._store is not None:
            self._store.put_entry(self, entry, replaced)
        return entry

    def destroy(self, table_name: str, rule_id: uuid.UUID | None, slot: int | None) -> None:
        """Remove a rule, by cookie where the table has them, else by location.

        Raises:
            Refused: The driver's answer; condition ``missing`` when there is no such rule.
        """
        self.check("flow_destroy")
        table = self._table(table_name)
        entry = self.find(table, rule_id, slot)
        if entry is None:
            answer = table.spec.errors.get("missing") or "ENOENT"
            raise Refused(answer, "missing", "there is no such rule")
        if self.does_nothing("flow_destroy"):
            return
        table.remove(entry)
        self._let_go(entry)
        if self._store is not None:
            self._store.drop_entry(entry)

    def enable(self, table_name: str) -> None:
        """Turn on what a table needs.

        Raises:
            Refused: The driver's answer.
        """
        self.check("table_enable")
        needs = self._table(table_name).spec.needs
        wanted = needs.get("eswitch_mode")
        if wanted and wanted != self.mode:
            self.set_mode(wanted)
        feature = needs.get("feature")
        if feature and not self.features.get(feature, True):
            self.features[feature] = True
            if needs.get("feature_disruption") in ("vf_reset", "link_flap"):
                self.sriov.reset_all()
        self.features["mqprio"] = self.features["mqprio"] or bool(needs.get("mqprio"))
        self.changed()

    def set_mode(self, mode: str) -> None:
        """Change the eswitch mode.

        Raises:
            Refused: The family has no such mode, or VFs or flows are in the way.
        """
        eswitch = self.document["eswitch"]
        if eswitch is None or mode not in eswitch["modes"]:
            raise Refused("EOPNOTSUPP", "mode", f"no eswitch mode {mode}")
        if mode == self.mode:
            return
        for condition in sorted(self.stands_against_mode(), reverse=True):
            refuse(eswitch["errors"], condition, _IN_THE_WAY[condition])
        self.mode = mode
        self.changed()

    def stands_against_mode(self) -> frozenset[str]:
        """Return the conditions that keep the driver from changing the eswitch's mode now."""
        errors = (self.document["eswitch"] or {"errors": {}})["errors"]
        present = {
            "vfs_present": bool(self.sriov.vfs),
            "flows_present": any(table.entries for table in self.tables),
        }
        return frozenset(name for name, so in present.items() if so and errors.get(name))

    def erase(self, table_name: str) -> None:
        """Remove every rule of a table, as a driver does whose feature is turned off."""
        table = self._table(table_name)
        for entry in tuple(table.entries.values()):
            table.remove(entry)
            self._let_go(entry)
            if self._store is not None:
                self._store.drop_entry(entry)

    def unload(self) -> None:
        """Let the driver go: rules and VFs go with it, and the next one finds the NIC as at first."""
        self._clear()
        self.mode = first_mode(self.document, self.config)
        self.features = first_features(self.tables, self.config)
        self.sriov.make(0, ready_ns=0)
        self.changed()

    def set_link(self, bps: int) -> None:
        """Let the link come up at a speed, or go down (0), as the far end does; some drivers lose rates by it."""
        if bps == self.link_bps:
            return
        events = {"link_change"}
        # A driver compares with the speed at which the rates were set, so going down and up again loses nothing.
        if bps and bps != self._speed_bps:
            events.add("link_speed_change")
        # Another speed without a way down is a negotiation, for which the carrier goes and comes.
        self.carrier_changes += 2 if bps and self.link_bps else 1
        self.link_bps, self._speed_bps = bps, bps or self._speed_bps
        self.sriov.lose_rates(events)
        self.changed()

    # Questions ------------------------------------------------------------------------------------------------------

    def table(self, name: str) -> Table | None:
        """Return a table by name."""
        return self._by_name.get(name)

    def find(self, table: Table, rule_id: uuid.UUID | None, slot: int | None) -> Entry | None:
        """Return the rule of a table with this cookie, or at this location."""
        if table.spec.picker == "none":
            return None if rule_id is None else table.by_rule.get(rule_id.int)
        return None if slot is None else table.at(slot)

    def blocked(self, spec: TableSpec) -> tuple[str, str, str] | None:
        """Return why a table takes no rules at present: errno, condition, text; None where it does."""
        needs = spec.needs
        if not needs:
            return None
        errno = needs.get("errno") or spec.errors.get("not_enabled") or "EOPNOTSUPP"
        feature, mode = needs.get("feature"), needs.get("eswitch_mode")
        if mode and mode != self.mode:
            return (errno, "eswitch_mode", f"the eswitch is in {self.mode} mode, not {mode}")
        does = [feature, *needs.get("feature_or", ())] if feature else []
        if does and not any(self.features.get(name, True) for name in does):
            return (errno, "feature", f"feature {feature} is off")
        if needs.get("mqprio") and not self.features["mqprio"]:
            return (errno, "mqprio", "no traffic classes are set up")
        return None

    def live_tables(self) -> list[Table]:
        """Return the tables that look at packets, in the order in which they do."""
        return [table for table in self.tables if table.space and self.blocked(table.spec) is None]

    @property
    def speed_bps(self) -> int:
        """Speed of the link, or that which it had last while it is down."""
        return self._speed_bps

    @property
    def pf_queues(self) -> int:
        """Receive queues of the physical function, of which VFs can take some away."""
        left, vfs = (self.document["sriov"] or {}).get("pf_queues_with_vfs"), len(self.sriov.vfs)
        if isinstance(left, list):
            left = next((step["queues"] for step in left if vfs <= step["max_vfs"]), None)
        return min(left, self.config.pf_queues) if left and vfs else self.config.pf_queues

    def counts_l3(self, entry: Entry) -> bool:
        """Return whether the counter of a rule leaves out what is before the network header."""
        counters = self._by_name[entry.table].spec.counters
        return bool(counters and counters.get("byte_basis") == "l3")

    # Time and packets -----------------------------------------------------------------------------------------------

    def advance(self, time_ns: int) -> None:
        """Move the clock; what is due until then happens."""
        if time_ns <= self.now_ns:
            return
        before, self.now_ns = self.now_ns, time_ns
        if any(before < vf.ready_ns <= time_ns for vf in self.sriov.vfs):
            self.changes.add_all()
        if self.faults.active:
            self.faults.on_time(self)

    def next_event_ns(self) -> int | None:
        """Return when packets go another way without a request; None where they don't."""
        due = [vf.ready_ns for vf in self.sriov.vfs if vf.ready_ns > self.now_ns]
        if self.faults.active and (at := self.faults.next_time_ns(self.now_ns)) is not None:
            due.append(at)
        return min(due, default=None)

    def receive(self, batch: PacketBatch, start: int, stop: int, in_port: int) -> npt.NDArray[np.int32]:
        """Send packets into a switch port, in their own time; return the port of each (-1 dropped)."""
        delivered: list[npt.NDArray[np.int32]] = []
        self.rules.poll(self.now_ns)
        at = start
        while at < stop:
            cut = self._next_cut(batch, at, stop)
            if cut == at:
                continue
            if self.faults.gone:
                delivered.append(np.full(cut - at, DROPPED, np.int32))
            else:
                delivered.append(self.path.receive(batch, at, cut, in_port))
            self.faults.count_packets(cut - at, self)
            self.now_ns = max(self.now_ns, int(batch.time_ns[cut - 1]))
            at = cut
        return delivered[0] if len(delivered) == 1 else np.concatenate([np.empty(0, np.int32), *delivered])

    def _next_cut(self, batch: PacketBatch, at: int, stop: int) -> int:
        """Return where the next stretch of packets ends during which nothing changes by itself."""
        if self.faults.active and (packets := self.faults.packets_left()) is not None:
            stop = min(stop, at + packets)
        due = self.next_event_ns()
        if due is None:
            return stop
        late = np.flatnonzero(batch.time_ns[at:stop] >= due)
        if not len(late):
            return stop
        if late[0] == 0:
            self.advance(due)
        return at + int(late[0])

    # For the parts of the device ------------------------------------------------------------------------------------

    def check(self, operation: str) -> None:
        """Let a fault answer an operation.

        Raises:
            Refused: It does.
        """
        if self.faults.active:
            self.faults.check(operation, self)

    def does_nothing(self, operation: str) -> bool:
        """Return whether a fault keeps an operation from being carried out."""
        return self.faults.active and self.faults.does_nothing(operation)

    def changed(self, vfs: Sequence[Vf] | None = None) -> None:
        """Note that VFs (None: all, and more than VFs) are not as they were."""
        self.changes.add_all()
        if self._store is not None:
            self._store.put_device(self, vfs)

    def load(self, known: Mapping[str, Any], vfs: list[Vf], next_entry: int) -> None:
        """Become the NIC of a state file; its tables are empty then."""
        self._clear()
        self._next_entry = next_entry
        self.sriov.adopt(vfs)
        self.ports = PortCounters(FIRST_VF_PORT + len(vfs))
        self.ports.values[:] = known["ports"]
        self.ports.epoch = known["epoch"]
        self.now_ns = known["now_ns"]
        self.mode = known["mode"]
        self.link_bps, self._speed_bps = known.get("link", (self.config.link_bps, self.config.link_bps))
        self.features = dict(known["features"])
        self.faults.load(known["faults"], self)
        self.changes.add_all()

    def _table(self, name: str) -> Table:
        found = self._by_name.get(name)
        if found is None:
            raise Refused("EOPNOTSUPP", "table", f"no table {name}")
        return found

    def _let_go(self, entry: Entry) -> None:
        if not entry.ghost:
            self.rules.close(entry.counter)
            self.path.drop_police(entry)
        self.changes.add(entry.filters)
