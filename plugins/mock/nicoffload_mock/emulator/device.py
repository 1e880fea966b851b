"""The emulated NIC with its driver: requests that change it, and the clock that it lives by."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from nicoffload.model import FlowRule
from nicoffload.packets import PacketBatch
from nicoffload_mock import assumptions
from nicoffload_mock.emulator import vfs as vf_rules
from nicoffload_mock.emulator.actions import DROPPED, Targets
from nicoffload_mock.emulator.answer import Refused, refuse
from nicoffload_mock.emulator.bucket import TokenBucket, apply_rate
from nicoffload_mock.emulator.changes import Changes
from nicoffload_mock.emulator.counters import PortCounters, RuleCounters
from nicoffload_mock.emulator.faults import Faults
from nicoffload_mock.emulator.path import Path
from nicoffload_mock.emulator.spec import TableSpec, read_table
from nicoffload_mock.emulator.state import Store
from nicoffload_mock.emulator.tables import Bank, Entry, Table
from nicoffload_mock.emulator.vfs import Vf

_FIRST_VF_PORT = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """How an emulated NIC is at first.

    Args:
        seed: Settles what a profile leaves undefined.
        link_bps: Speed of the port.
        vfs: How many VFs exist at first; None for the default.
        mode: Eswitch mode at first; empty for the default.
        prepared: Whether VFs exist, features are on and the eswitch is in switchdev mode where it can be.
        rows: Table to its capacity, where it is not the profile's.
    """

    seed: int = 0
    link_bps: int = assumptions.LINK_BPS
    vfs: int | None = None
    mode: str = ""
    prepared: bool = True
    rows: Mapping[str, int] = field(default_factory=dict)


class Device:
    """One emulated NIC.

    Args:
        document: Its profile.
        config: How it is at first.
        faults: What goes wrong.
        store: Where its state is kept; None for memory.
    """

    def __init__(self, document: Mapping[str, Any], config: Config, faults: Faults, store: Store | None = None) -> None:
        self.document = document
        self.config = config
        self.faults = faults
        self.now_ns = 0
        self.changes = Changes()
        self.path = Path(self)
        self.vfs: list[Vf] = []
        self.ports = PortCounters(_FIRST_VF_PORT)
        self._store = store
        self._reset_tables()
        self.mode = _first_mode(document, config)
        self.features = _first_features(self.specs, prepared=config.prepared)
        self._make_vfs(_first_vfs(document, config), ready_ns=0)
        faults.start(self)

    def _reset_tables(self) -> None:
        documents = self.document["tables"]
        self.specs = [read_table(doc, self.config.rows.get(doc["name"])) for doc in documents]
        banks: dict[str, Bank] = {}
        for spec in self.specs:
            banks.setdefault(spec.bank, Bank(spec.rows))
        self.tables = [Table(spec, banks[spec.bank], self.config.seed) for spec in self.specs]
        self._by_name = {table.spec.name: table for table in self.tables}
        for table in self.tables:
            table.rivals = [
                other
                for other in self.tables
                if other.spec.name in table.spec.excludes or table.spec.name in other.spec.excludes
            ]
        self.rules = RuleCounters()
        self.rules.refresh_ns = max((_refresh_ns(spec) for spec in self.specs), default=0)
        self._next_entry = 1
        self._targets: Targets | None = None
        self._buckets: dict[int, TokenBucket] = {}

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

        Raises:
            Refused: The driver's answer.
        """
        rows_left = None
        if self.faults.active:
            self.faults.check("flow_create", self)
        table = self._table(table_name)
        if blocked := self.blocked(table.spec):
            raise Refused(blocked[0], blocked[1], blocked[2])
        entry = table.prepare(rule, flow_type, slot, self.targets())
        for rival in table.rivals:
            if rival.entries:
                refuse(table.spec.errors, "excluded", f"table {rival.spec.name} holds rules", path="/table")
        if rule.rule_id.int in table.by_rule:
            raise Refused(table.spec.errors.get("duplicate") or "EEXIST", "cookie", f"cookie {rule.rule_id} is in use", "/rule_id")
        if self.faults.active:
            rows_left = self.faults.rows_left(table)
            if self.faults.does_nothing("flow_create", self):
                return entry
        replaced = table.insert(entry, self._next_entry, rows_left)
        self._next_entry += 1
        entry.counter = self.rules.open()
        for gone in replaced:
            self._let_go(gone, erased=table.spec.erases_old)
        self.changes.add(entry.filters)
        if self._store is not None:
            self._store.put_entry(self, entry, replaced)
        return entry

    def destroy(self, table_name: str, rule_id: uuid.UUID | None, slot: int | None) -> None:
        """Remove a rule, by cookie where the table has them, else by location.

        Raises:
            Refused: The driver's answer; condition ``missing`` when there is no such rule.
        """
        if self.faults.active:
            self.faults.check("flow_destroy", self)
        table = self._table(table_name)
        entry = self.find(table, rule_id, slot)
        if entry is None:
            answer = table.spec.errors.get("missing") or "ENOENT"
            raise Refused(answer, "missing", "there is no such rule")
        if self.faults.active and self.faults.does_nothing("flow_destroy", self):
            return
        table.remove(entry)
        self._let_go(entry, erased=True)
        if self._store is not None:
            self._store.drop_entry(self, entry)

    def find(self, table: Table, rule_id: uuid.UUID | None, slot: int | None) -> Entry | None:
        """Return the rule of a table with this cookie, or at this location."""
        if table.spec.picker == "none":
            return None if rule_id is None else table.by_rule.get(rule_id.int)
        if slot is None:
            return None
        row = slot & ((1 << table.slot_shift) - 1) if table.spec.picker == "driver" else slot
        entry = table.bank.slots.get(row)
        return entry if entry is not None and entry.table == table.spec.name and entry.slot == slot else None

    def enable(self, table_name: str) -> None:
        """Turn on what a table needs.

        Raises:
            Refused: The driver's answer.
        """
        self._check("table_enable")
        spec = self._table(table_name).spec
        needs = spec.needs
        wanted = needs.get("eswitch_mode")
        if wanted and wanted != self.mode:
            self.set_mode(wanted)
        feature = needs.get("feature")
        if feature and not self.features.get(feature, True):
            self.features[feature] = True
            if needs.get("feature_disruption") in ("vf_reset", "link_flap"):
                for vf in self.vfs:
                    self._start_reset(vf)
        self.features["mqprio"] = self.features["mqprio"] or bool(needs.get("mqprio"))
        self._changed()

    def set_mode(self, mode: str) -> None:
        """Change the eswitch mode.

        Raises:
            Refused: The family has no such mode, or VFs or flows are in the way.
        """
        eswitch = self.document["eswitch"]
        if eswitch is None or mode not in eswitch["modes"]:
            raise Refused("EOPNOTSUPP", "mode", f"no eswitch mode {mode}")
        errors = eswitch["errors"]
        if self.vfs and "vfs_present" in errors:
            refuse(errors, "vfs_present", "VFs exist")
        if any(table.entries for table in self.tables) and "flows_present" in errors:
            refuse(errors, "flows_present", "rules are installed")
        self.mode = mode
        self._changed()

    def set_vf_count(self, count: int) -> None:
        """Write sriov_numvfs.

        Raises:
            Refused: The kernel's or the driver's answer.
        """
        self._check("vf_count")
        doc = self.document["sriov"]
        if doc is None:
            raise Refused("ENOENT", "sriov", "no SR-IOV")
        if count > self.vf_limit():
            errors = doc["errors"]
            answer = errors.get("above_total") or errors.get("too_many") or "ERANGE"
            raise Refused(answer, "too_many", f"at most {self.vf_limit()} VFs")
        if count == len(self.vfs):
            return
        write = doc.get("sysfs_write", "works" if doc["method"] == "sysfs" else "ENOENT")
        if write not in ("works", "no_effect"):
            raise Refused(write, "sriov", "VFs are not made here")
        if write == "no_effect" or (self.faults.active and self.faults.does_nothing("vf_count", self)):
            return
        if count and self.vfs:
            raise Refused(doc["errors"].get("not_zero_first") or "EBUSY", "vfs_present", "write 0 first")
        ready_ns = self.now_ns + assumptions.RESET_NS + self.faults.slow_ns()
        self._make_vfs(count - min(count, self.faults.missing_vfs()), ready_ns)
        self._changed()

    def set_vf(self, index: int, name: str, value: vf_rules.Value) -> None:
        """Change one setting of a VF.

        Raises:
            Refused: The driver's answer.
        """
        self._check("vf_set")
        vf = self._vf(index)
        if self.faults.active and self.faults.does_nothing("vf_set", self):
            return
        if vf_rules.change(self.document["vf"], vf, name, value, self.mode):
            self._start_reset(vf)
        self._changed(vf)

    def reset_vf(self, index: int) -> None:
        """Start a function level reset.

        Raises:
            Refused: The driver's answer.
        """
        self._check("vf_reset")
        vf = self._vf(index)
        if self.faults.active and self.faults.does_nothing("vf_reset", self):
            return
        self._start_reset(vf)
        self._changed(vf)

    def bind_vf(self, index: int, driver: str) -> None:
        """Bind a VF to a driver, or unbind it.

        Raises:
            Refused: No such VF, or no such driver.
        """
        self._check("vf_bind")
        if index >= len(self.vfs):
            raise Refused("ENOENT", "vf_range", f"there is no VF {index}", "/vf")
        if driver not in ("", "vfio-pci", self.document.get("vf_driver")):
            raise Refused("ENOENT", "driver", f"no driver {driver!r}", "/driver")
        if self.faults.active and self.faults.does_nothing("vf_bind", self):
            return
        self.vfs[index].driver = driver
        self._targets = None
        self._changed(self.vfs[index])

    def set_rate(self, index: int, kind: str, bps: int) -> None:
        """Set a VF's ``min_tx`` or ``max_tx``; 0 clears it.

        Raises:
            Refused: The driver's answer.
        """
        self._check("rate_set")
        vf = self._vf(index)
        doc = self.document["rates"][kind]
        setting = apply_rate(doc, bps, self.config.link_bps)
        if kind == "min_tx" and doc.get("sum_within_link"):
            others = sum(other.min_tx.applied for other in self.vfs if other is not vf)
            if others + setting.applied > self.config.link_bps:
                raise Refused(doc.get("range_errno", "EINVAL"), "rate_sum", "guarantees exceed the link", f"/{kind}")
        if self.faults.active and self.faults.does_nothing("rate_set", self):
            return
        setattr(vf, kind, setting)
        self._buckets.pop(index, None)
        self._changed(vf)

    # Questions ------------------------------------------------------------------------------------------------------

    def blocked(self, spec: TableSpec) -> tuple[str, str, str] | None:
        """Return why a table takes no rules at present: errno, condition, text; None where it does."""
        needs = spec.needs
        if not needs:
            return None
        errno = needs.get("errno") or spec.errors.get("not_enabled") or "EOPNOTSUPP"
        feature, mode = needs.get("feature"), needs.get("eswitch_mode")
        if mode and mode != self.mode:
            return (errno, "eswitch_mode", f"the eswitch is in {self.mode} mode, not {mode}")
        if feature and not self.features.get(feature, True):
            return (errno, "feature", f"feature {feature} is off")
        if needs.get("mqprio") and not self.features["mqprio"]:
            return (errno, "mqprio", "no traffic classes are set up")
        return None

    def targets(self) -> Targets:
        """Return what actions can name."""
        if self._targets is None:
            sriov = self.document["sriov"]
            queues = (sriov or {}).get("queues_per_vf") or assumptions.QUEUES_PER_VF
            host = self.document.get("vf_driver")
            unbound = frozenset(vf.index for vf in self.vfs if vf.driver in ("", "vfio-pci") or vf.driver != host)
            self._targets = Targets(len(self.vfs), unbound, queues)
        return self._targets

    def vf_limit(self) -> int:
        """Return how many VFs there can be."""
        return _vf_limit(self.document)

    def is_ready(self, vf: Vf) -> bool:
        """Return whether a VF is out of its reset."""
        return vf.ready_ns <= self.now_ns

    def live_tables(self) -> list[Table]:
        """Return the tables that look at packets, in the order in which they do."""
        return [table for table in self.tables if table.space and self.blocked(table.spec) is None]

    def counts_l3(self, entry: Entry) -> bool:
        """Return whether the counter of a rule leaves out what is before the network header."""
        counters = self._by_name[entry.table].spec.counters
        return bool(counters and counters.get("byte_basis") == "l3")

    def holds_rate(self, vf: Vf, kind: str) -> bool:
        """Return whether a rate that was taken is enforced and reported."""
        return vf.has_vlan or not self.document["rates"][kind].get("needs_port_vlan")

    def bucket(self, index: int) -> TokenBucket | None:
        """Return the token bucket of a VF's transmit limit; None where it has none."""
        if index >= len(self.vfs):
            return None
        rate = self.vfs[index].max_tx.applied
        if not rate or not self.holds_rate(self.vfs[index], "max_tx"):
            return None
        found = self._buckets.get(index)
        if found is None:
            found = self._buckets[index] = TokenBucket(rate, assumptions.BURST_BYTES, self.now_ns)
        return found

    # Time and packets -----------------------------------------------------------------------------------------------

    def advance(self, time_ns: int) -> None:
        """Move the clock; what is due until then happens."""
        if time_ns <= self.now_ns:
            return
        before, self.now_ns = self.now_ns, time_ns
        if any(before < vf.ready_ns <= time_ns for vf in self.vfs):
            self.changes.add_all()
        if self.faults.active:
            self.faults.on_time(self)

    def next_event_ns(self) -> int | None:
        """Return when packets go another way without a request; None where they don't."""
        due = [vf.ready_ns for vf in self.vfs if vf.ready_ns > self.now_ns]
        if self.faults.active and (at := self.faults.next_time_ns(self.now_ns)) is not None:
            due.append(at)
        return min(due, default=None)

    def receive(self, batch: PacketBatch, start: int, stop: int, in_port: int) -> npt.NDArray[np.int32]:
        """Send packets into a switch port, in their own time; return the port of each."""
        delivered: list[npt.NDArray[np.int32]] = []
        self.rules.poll(self.now_ns)
        at = start
        while at < stop:
            cut = self._next_cut(batch, at, stop)
            if cut > at:
                if self.faults.active and self.faults.gone:
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

    # From a state file ----------------------------------------------------------------------------------------------

    def load(self, known: Mapping[str, Any], vfs: list[Vf], next_entry: int) -> None:
        """Become the NIC of a state file; its rules follow by `revive`."""
        self._reset_tables()
        self._next_entry = next_entry
        self.vfs = vfs
        self.ports = PortCounters(_FIRST_VF_PORT + len(vfs))
        self.ports.values[:] = known["ports"]
        self.ports.epoch = known["epoch"]
        self.now_ns = known["now_ns"]
        self.mode = known["mode"]
        self.features = dict(known["features"])
        self.faults.load(known["faults"], self)
        self.changes.add_all()

    def revive(
        self,
        table: str,
        rule: FlowRule,
        flow_type: str,
        *,
        entry_id: int,
        slot: int | None,
        row: int | None,
        ghost: bool,
        counter: int,
    ) -> None:
        """Put back a rule of a state file."""
        entry = self._table(table).revive(rule, flow_type, slot)
        entry.entry_id, entry.row, entry.ghost, entry.counter = entry_id, row, ghost, counter
        self._table(table).restore(entry)

    # Inside ---------------------------------------------------------------------------------------------------------

    def _check(self, operation: str) -> None:
        if self.faults.active:
            self.faults.check(operation, self)

    def _table(self, name: str) -> Table:
        found = self._by_name.get(name)
        if found is None:
            raise Refused("EOPNOTSUPP", "table", f"no table {name}")
        return found

    def table(self, name: str) -> Table | None:
        """Return a table by name."""
        return self._by_name.get(name)

    def _vf(self, index: int) -> Vf:
        errors = self.document["vf"]["errors"] if self.document["vf"] else {}
        if index >= len(self.vfs):
            raise Refused(errors.get("vf_range") or "EINVAL", "vf_range", f"there is no VF {index}", "/vf")
        vf = self.vfs[index]
        busy = self.document["vf"].get("busy_while_resetting") if self.document["vf"] else None
        if busy and not self.is_ready(vf):
            # Whoever is told "busy" waits before they ask again.
            self.advance(self.now_ns + assumptions.BUSY_WAIT_NS)
            raise Refused(busy, "busy", f"VF {index} is resetting")
        return vf

    def start_reset(self, index: int) -> None:
        """Reset a VF behind the driver's back, as its guest can."""
        if index < len(self.vfs):
            self._start_reset(self.vfs[index])
            self._changed(self.vfs[index])

    def _start_reset(self, vf: Vf) -> None:
        vf.ready_ns = self.now_ns + assumptions.RESET_NS + self.faults.slow_ns()
        for kind in ("min_tx", "max_tx"):
            if "vf_reset" in self.document["rates"][kind].get("lost_on", ()):
                setattr(vf, kind, vf_rules.Setting())
                self._buckets.pop(vf.index, None)

    def _make_vfs(self, count: int, ready_ns: int) -> None:
        driver = self.document.get("vf_driver") or ""
        self.vfs = [vf_rules.new_vf(self.document["vf"], at, driver, ready_ns) for at in range(count)]
        self._buckets.clear()
        self._targets = None
        self.ports.resize(_FIRST_VF_PORT)
        self.ports.resize(_FIRST_VF_PORT + count)

    def _let_go(self, entry: Entry, *, erased: bool) -> None:
        if erased:
            self.rules.close(entry.counter)
            self.path.drop_police((entry,))
        self.changes.add(entry.filters)

    def _changed(self, vf: Vf | None = None) -> None:
        self.changes.add_all()
        if self._store is not None:
            self._store.put_device(self, None if vf is None else [vf])


def _vf_limit(document: Mapping[str, Any]) -> int:
    sriov = document["sriov"]
    return 0 if sriov is None else sriov["max_vfs"] or assumptions.MAX_VFS


def _refresh_ns(spec: TableSpec) -> int:
    return int(1e9 * ((spec.counters or {}).get("refresh_s") or 0))


def _first_mode(document: Mapping[str, Any], config: Config) -> str:
    modes = document["eswitch"]["modes"] if document["eswitch"] else ["legacy"]
    if config.mode:
        return config.mode
    return "switchdev" if config.prepared and "switchdev" in modes else "legacy"


def _first_features(specs: Sequence[TableSpec], *, prepared: bool) -> dict[str, bool]:
    features = {
        spec.needs["feature"]: prepared or spec.needs.get("feature_default", "on") == "on"
        for spec in specs
        if "feature" in spec.needs
    }
    return {**features, "mqprio": prepared}


def _first_vfs(document: Mapping[str, Any], config: Config) -> int:
    limit = _vf_limit(document)
    if config.vfs is not None:
        return config.vfs
    return min(assumptions.START_VFS, limit) if config.prepared else 0
