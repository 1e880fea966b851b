"""A small NIC that implements the driver contract: in memory or in a file, with or without cookies, failing on demand.

It shares nothing with the mock plugin, so that the nic layer is held against two drivers. A `Faults` object counts the
calls that change something; a test makes the n-th of them fail, do nothing, do half, or kill the process.
"""

from __future__ import annotations

import dataclasses
import os
import pickle
import signal
import uuid
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np

from nicoffload.driver import (
    Driver,
    DriverFactory,
    FlowFilters,
    InstalledRule,
    RateControl,
    RuleRef,
    Statistics,
    TableState,
    VirtualFunctions,
)
from nicoffload.errors import (
    ConflictError,
    DeviceBusyError,
    InvalidRequestError,
    KernelError,
    NotFoundError,
    Reason,
    ResourceExhaustedError,
)
from nicoffload.model import (
    FIELDS,
    ByteBasis,
    Capability,
    CounterFacts,
    DeviceInfo,
    Disruption,
    Evidence,
    FlowCounters,
    LinkState,
    RateLimit,
    RateReport,
    Support,
    TrafficStats,
    VfState,
    VlanTag,
)
from nicoffload.profiles.types import (
    ActionRules,
    Duplicate,
    FieldRule,
    FlowType,
    Needs,
    NicProfile,
    PciIds,
    Provenance,
    Rate,
    Rates,
    Setting,
    Sriov,
    Table,
    VfFacts,
)
from nicoffload.profiles.types import Statistics as StatisticsFacts

FACTS = CounterFacts(source="nic:rule", byte_basis=ByteBasis.L2)


def make_table(
    name="rules", *, picker="none", occupied="refuse", rows=None, priority="honoured", duplicate="EEXIST"
):
    """A table that takes any mask of any field."""
    return Table(
        name=name,
        mechanism="flower" if picker == "none" else "ntuple",
        bank=name,
        rows=rows,
        rows_per_rule=1,
        limits=(),
        capacity_note="",
        picker=picker,
        occupied=occupied,
        erases_old=True,
        mask_model="free",
        flow_types=(
            FlowType(
                name="any",
                fixed={},
                fields={field: FieldRule(mask="any") for field in FIELDS},
                field_errors={},
            ),
        ),
        shapes=(),
        combine="and",
        empty_rule=None,
        priority=priority,
        duplicate=Duplicate(answer=duplicate),
        actions=frozenset({"vf", "queue", "pf", "drop", "count"}),
        vf_queue=False,
        action_rules=ActionRules(at_most={}),
        counters=None,
        errors={"full": "ENOSPC", "vf_range": "EINVAL"},
        source="tests",
        needs=Needs(),
    )


def make_profile(tables, *, read_back="applied"):
    yes = Setting(supported="yes")
    rate = Rate(supported="yes", source="tests", quantum_bps=1_000_000, rounding="down", read_back=read_back)
    return NicProfile(
        family="fake",
        title="A fake NIC",
        vendor="tests",
        driver="fake",
        vf_driver=None,
        provenance=Provenance(kind="paper", text="made up"),
        pci_ids=PciIds(pf=(), vf=(), source="tests"),
        sriov=Sriov(method="sysfs", max_vfs=64, errors={}, source="tests"),
        eswitch=None,
        tables=tuple(tables),
        vf=VfFacts(
            mac=yes,
            vlan=yes,
            qos=yes,
            vlan_protocols=yes,
            spoof_check=yes,
            trust=yes,
            link_state=yes,
            errors={},
            source="tests",
        ),
        rates=Rates(min_tx=rate, max_tx=rate, devlink=None),
        statistics=StatisticsFacts(vf=None, port=None),
        quirks=(),
        document={},
    )


@dataclasses.dataclass
class Hardware:
    """What the NIC holds: `rules` by a number of its own, and VFs."""

    rules: dict[int, tuple[str, int | None, uuid.UUID | None, object]] = dataclasses.field(
        default_factory=dict
    )
    next_key: int = 0
    next_slot: int = 0
    vfs: list[VfState] = dataclasses.field(default_factory=list)
    resets: Counter = dataclasses.field(default_factory=Counter)
    enabled: set[str] = dataclasses.field(default_factory=set)


def new_vf(index: int) -> VfState:
    return VfState(
        vf=index,
        mac=0x020000000000 + index,
        vlan=VlanTag(vid=0),
        spoof_check=True,
        trust=False,
        link_state=LinkState.AUTO,
        rate=RateLimit(),
    )


class Store:
    """Keeps the hardware, in memory or in a file that a killed process leaves whole."""

    def __init__(self, path: Path | None, vfs: int) -> None:
        self.path = path
        self.hardware = Hardware(vfs=[new_vf(index) for index in range(vfs)])
        if path is not None and path.exists():
            self.load()
        self.save()

    def load(self) -> None:
        if self.path is not None:
            self.hardware = pickle.loads(self.path.read_bytes())

    def save(self) -> None:
        if self.path is not None:
            fresh = self.path.with_suffix(f".{os.getpid()}")
            fresh.write_bytes(pickle.dumps(self.hardware))
            fresh.replace(self.path)


class Faults:
    """Counts calls that change something, and does to them what a test wants."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.before: Callable[[int, str], None] = lambda number, name: None
        self.after: Callable[[int, str], None] = lambda number, name: None
        self.item: Callable[[str, int], object] = lambda name, index: None
        """Asked for every item of a bulk call: an error refuses it, ``"nothing"`` says yes and does nothing."""

    def fail_at(self, number: int, error: Exception) -> None:
        """Make the n-th changing call (from 0) raise before it does anything."""

        def before(count: int, name: str) -> None:
            if count == number:
                raise error

        self.before = before

    def kill_at(self, number: int) -> None:
        """Kill the process before (even) or after (odd) a changing call."""

        def strike(count: int) -> None:
            if count == number:
                os.kill(os.getpid(), signal.SIGKILL)

        self.before = lambda count, name: strike(2 * count)
        self.after = lambda count, name: strike(2 * count + 1)


class FakeDriver(Driver):
    """The NIC.

    Args:
        path: File that holds its state; None for memory.
        cookies: Whether rules carry their ids.
        tables: Its tables.
        facets: Which facets it has.
    """

    def __init__(
        self,
        *,
        path: Path | None = None,
        vfs: int = 4,
        cookies: bool = True,
        tables=None,
        faults: Faults | None = None,
        read_back: str = "applied",
        without: tuple[str, ...] = (),
        blocked: tuple[str, ...] = (),
        shared: bool = False,
    ) -> None:
        self.store = Store(path, vfs)
        self.faults = faults or Faults()
        self.cookies = cookies
        self.blocked = blocked
        self.shared = shared
        self.tables = tuple(tables or (make_table(picker="none" if cookies else "caller"),))
        self._profile = make_profile(self.tables, read_back=read_back)
        self.requested: dict[int, RateLimit] = {}
        self.closed = 0
        if "flow_filters" not in without:
            self.flow_filters = Filters(self)
        if "virtual_functions" not in without:
            self.virtual_functions = Functions(self)
        if "rates" not in without:
            self.rates = FakeRates(self)
        if "statistics" not in without:
            self.statistics = FakeStatistics(self)

    @property
    def hardware(self) -> Hardware:
        return self.store.hardware

    @property
    def info(self) -> DeviceInfo:
        return DeviceInfo(name="fake:0", family="fake", title="A fake NIC", plugin="fake", emulated=True)

    @property
    def profile(self) -> NicProfile:
        return self._profile

    def capabilities(self):
        absent = Capability(
            name="statistics",
            support=Support.NO,
            evidence=Evidence.DECLARED,
            detail="the fake counts nothing",
        )
        return [absent] if self.statistics is None else []

    @property
    def persistent(self) -> bool:
        return self.store.path is not None

    def close(self) -> None:
        self.closed += 1

    def begin(self, name: str) -> None:
        """Called before a changing call does anything."""
        self.faults.calls.append(name)
        self.faults.before(len(self.faults.calls) - 1, name)
        self.reading()

    def done(self, name: str) -> None:
        """Called when a changing call has done all."""
        self.store.save()
        self.faults.after(len(self.faults.calls) - 1, name)

    def reading(self) -> None:
        if self.shared:
            self.store.load()


class Filters(FlowFilters):
    def __init__(self, driver: FakeDriver) -> None:
        self._driver = driver

    def tables(self):
        states = []
        for table in self._driver.tables:
            off = table.name in self._driver.blocked and table.name not in self._driver.hardware.enabled
            reason = Reason(code="table.off", path="", message="its feature is off")
            states.append(
                TableState(
                    table=table,
                    rows=table.rows,
                    in_use=sum(place[0] == table.name for place in self._driver.hardware.rules.values()),
                    blocked=(reason,) if off else (),
                    enable=Disruption.LINK_FLAP if off else None,
                )
            )
        return states

    def enable_table(self, name):
        self._driver.begin("enable_table")
        if self._driver.faults.item("enable_table", 0) != "nothing":
            self._driver.hardware.enabled.add(name)
        self._driver.done("enable_table")

    def create_many(self, placements):
        driver = self._driver
        driver.begin("create_many")
        outcomes = []
        for index, placement in enumerate(placements):
            verdict = driver.faults.item("create", index)
            if isinstance(verdict, Exception):
                outcomes.append(verdict)
                continue
            outcomes.append(self._create(placement, nothing=verdict == "nothing"))
            if verdict == "kill":
                driver.store.save()
                os.kill(os.getpid(), signal.SIGKILL)
            if verdict == "raise":
                driver.store.save()
                raise KernelError("the socket broke")
        driver.done("create_many")
        return outcomes

    def _create(self, placement, *, nothing):
        hardware = self._driver.hardware
        table = next(each for each in self._driver.tables if each.name == placement.table)
        counted = table.rows is not None or table.picker == "caller"
        used = {key: rule for key, rule in hardware.rules.items() if rule[0] == table.name} if counted else {}
        if table.rows is not None and len(used) >= table.rows:
            return ResourceExhaustedError("no row is free", limit=table.rows, in_use=len(used))
        slot = placement.slot
        if table.picker == "driver":
            slot, hardware.next_slot = hardware.next_slot, hardware.next_slot + 1
        if table.picker == "caller":
            there = [key for key, rule in used.items() if rule[1] == slot]
            if there and table.occupied == "refuse":
                return ConflictError(f"slot {slot} is taken")
            if not nothing:
                for key in there:
                    del hardware.rules[key]
        ref = RuleRef(rule_id=placement.rule.rule_id, table=table.name, slot=slot)
        if not nothing:
            cookie = placement.rule.rule_id if self._driver.cookies else None
            stored = placement.rule
            if table.priority != "honoured":
                stored = dataclasses.replace(stored, priority=None)
            hardware.rules[hardware.next_key] = (table.name, slot, cookie, stored)
            hardware.next_key += 1
        return ref

    def destroy_many(self, refs):
        driver = self._driver
        driver.begin("destroy_many")
        answers = []
        for index, ref in enumerate(refs):
            verdict = driver.faults.item("destroy", index)
            if isinstance(verdict, Exception):
                answers.append(verdict)
                continue
            keys = self._keys(ref)
            if verdict != "nothing":
                for key in keys:
                    del driver.hardware.rules[key]
            answers.append(None if keys else NotFoundError("no such rule"))
            if verdict == "kill":
                driver.store.save()
                os.kill(os.getpid(), signal.SIGKILL)
        driver.done("destroy_many")
        return answers

    def _keys(self, ref):
        return [
            key
            for key, (table, slot, cookie, _) in self._driver.hardware.rules.items()
            if table == ref.table
            and (cookie == ref.rule_id if cookie else slot is not None and slot == ref.slot)
        ]

    def dump(self, refs=None):
        self._driver.reading()
        rules = self._driver.hardware.rules
        if refs is None:
            keys = list(rules)
        elif len(refs) < 4:
            keys = [key for ref in refs for key in self._keys(ref)]
        else:
            ids = {ref.rule_id for ref in refs} - {None}
            places = {(ref.table, ref.slot) for ref in refs}
            keys = [
                key
                for key, (table, slot, cookie, _) in rules.items()
                if (cookie in ids if cookie else slot is not None and (table, slot) in places)
            ]
        return [self._installed(rules[key]) for key in keys]

    def _installed(self, entry):
        table, slot, cookie, rule = entry
        if cookie is None:
            rule = dataclasses.replace(rule, rule_id=uuid.uuid4())
        return InstalledRule(ref=RuleRef(rule_id=cookie, table=table, slot=slot), rule=rule)

    def read_counters(self, refs):
        there = np.array([bool(self._keys(ref)) for ref in refs], dtype=bool)
        count = len(refs)
        return FlowCounters(
            rule_ids=[ref.rule_id for ref in refs],
            valid=there,
            packets=np.where(there, 7, 0).astype(np.uint64),
            bytes=np.where(there, 700, 0).astype(np.uint64),
            epoch=np.zeros(count, dtype=np.int64),
            last_used_ns=np.full(count, -1, dtype=np.int64),
            time_ns=0,
            facts=[FACTS] * count,
        )


class Functions(VirtualFunctions):
    def __init__(self, driver: FakeDriver) -> None:
        self._driver = driver

    def limit(self):
        return 64

    def states(self):
        self._driver.reading()
        return tuple(self._driver.hardware.vfs)

    def set_count(self, count):
        self._driver.begin("set_count")
        if self._driver.faults.item("set_count", 0) != "nothing" and len(self._driver.hardware.vfs) != count:
            self._driver.hardware.vfs = [new_vf(index) for index in range(count)]
        self._driver.done("set_count")
        return Disruption.VF_RESET

    def configure_many(self, configs):
        self._driver.begin("configure_many")
        answers = []
        for index, config in enumerate(configs):
            verdict = self._driver.faults.item("configure", index)
            if isinstance(verdict, Exception):
                answers.append(verdict)
                continue
            if config.vf >= len(self._driver.hardware.vfs):
                answers.append(NotFoundError(f"no VF {config.vf}"))
                continue
            if verdict != "nothing":
                asked = {
                    name: getattr(config, name)
                    for name in ("mac", "vlan", "spoof_check", "trust", "link_state")
                    if getattr(config, name) is not None
                }
                self._driver.hardware.vfs[config.vf] = dataclasses.replace(
                    self._driver.hardware.vfs[config.vf], **asked
                )
            answers.append(None)
        self._driver.done("configure_many")
        return answers

    def reset(self, vf):
        self._driver.begin("reset")
        self._driver.hardware.resets[vf] += 1
        self._driver.done("reset")

    def bind(self, vf, driver):
        raise NotFoundError(f"no driver {driver}")


class FakeRates(RateControl):
    """Rates in steps of 1 Mbit/s, rounded down."""

    def __init__(self, driver: FakeDriver) -> None:
        self._driver = driver

    def set_many(self, limits):
        self._driver.begin("set_many")
        answers = {}
        for index, (vf, limit) in enumerate(limits.items()):
            verdict = self._driver.faults.item("rate", index)
            if isinstance(verdict, Exception):
                answers[vf] = verdict
                continue
            if vf >= len(self._driver.hardware.vfs):
                answers[vf] = InvalidRequestError(f"no VF {vf}")
                continue
            applied = RateLimit(min_tx_bps=_step(limit.min_tx_bps), max_tx_bps=_step(limit.max_tx_bps))
            if verdict != "nothing":
                state = self._driver.hardware.vfs[vf]
                self._driver.hardware.vfs[vf] = dataclasses.replace(state, rate=applied)
            self.requested_now = limit
            self._driver.requested[vf] = limit
            read = self._driver.hardware.vfs[vf].rate
            answers[vf] = RateReport(vf=vf, requested=limit, applied=applied, read_back=read)
        self._driver.done("set_many")
        return answers

    def read(self):
        self._driver.reading()
        return [
            RateReport(vf=state.vf, requested=None, applied=state.rate, read_back=state.rate)
            for state in self._driver.hardware.vfs
        ]


def _step(bps):
    return None if bps is None else bps // 1_000_000 * 1_000_000


class FakeStatistics(Statistics):
    def __init__(self, driver: FakeDriver) -> None:
        self._driver = driver

    def read(self):
        return [TrafficStats(name="uplink", rx_packets=1, tx_packets=None, rx_bytes=2, tx_bytes=None)]


class FakeFactory(DriverFactory):
    """Opens one driver that a test made, or makes one anew each time."""

    def __init__(self, make: Callable[[], FakeDriver]) -> None:
        self._make = make

    def discover(self, context):
        return [DeviceInfo(name="fake:0", family="fake", title="A fake NIC", plugin="fake", emulated=True)]

    def claims(self, name):
        return name.startswith("fake:")

    def open(self, name, context):
        return self._make()


BUSY = DeviceBusyError("resetting")
