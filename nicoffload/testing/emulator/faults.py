"""Faults by script: when each starts, how long it lasts, and what it does to the emulated NIC."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nicoffload.testing.emulator.answer import Refused

if TYPE_CHECKING:
    from nicoffload.testing.emulator.device import Device
    from nicoffload.testing.emulator.tables import Table

_NS = 1_000_000_000
_NEVER_S = float("inf")
_WAITING, _ON, _OVER = "waiting", "on", "over"
_AT_ONCE = frozenset({"remove", "reset_vf", "reset_counters"})


@dataclass(slots=True)
class Fault:
    """One fault of a script.

    Args:
        when: What starts it.
        lasts: How long it lasts.
        effect: What it does.
        state: ``waiting``, ``on`` or ``over``.
        since_ns: When it started.
        since_packets: After how many packets it started.
        hits: How many calls it has spoilt.
    """

    when: Mapping[str, Any]
    lasts: Mapping[str, Any]
    effect: Mapping[str, Any]
    state: str = _WAITING
    since_ns: int = 0
    since_packets: int = 0
    hits: int = 0

    @property
    def kind(self) -> str:
        """What kind of effect it has."""
        return str(self.effect["kind"])


class Faults:
    """All faults of a script, in the order of the script.

    Args:
        script: Documents by ``mock-faults.schema.json``, already checked; empty for a NIC that works.
    """

    def __init__(self, script: Sequence[Mapping[str, Any]] = ()) -> None:
        self._faults = [Fault(doc.get("when", {}), doc.get("for", {}), doc["effect"]) for doc in script]
        self.active = bool(self._faults)
        self.gone = False
        self._calls: Counter[str] = Counter()
        self._packets = 0

    def start(self, device: Device) -> None:
        """Start the faults that hold from the beginning."""
        for fault in self._faults:
            if not fault.when and fault.state == _WAITING:
                self._start(fault, device)

    def check(self, operation: str, device: Device) -> None:
        """Count a call.

        Raises:
            Refused: A fault spoils it.
        """
        self._calls[operation] += 1
        for fault in self._faults:
            due = fault.when.get("operation") == operation and fault.when["call"] <= self._calls[operation]
            if due and fault.state == _WAITING:
                self._start(fault, device)
        if self.gone:
            raise Refused("ENODEV", "gone", "the device was removed")
        for fault in self._on("answer"):
            if fault.effect["operation"] == operation:
                self._hit(fault)
                raise Refused(fault.effect["errno"], "", "by the fault script")

    def does_nothing(self, operation: str) -> bool:
        """Return whether a call succeeds and changes nothing."""
        for fault in self._on("do_nothing"):
            if fault.effect["operation"] == operation:
                self._hit(fault)
                return True
        return False

    def rows_left(self, table: Table) -> int | None:
        """Return how many rows a table seems to have free; None without a fault."""
        rows = [f.effect["rows"] for f in self._on("table_full") if f.effect["table"] == table.spec.name]
        return max(min(rows) - table.bank.used, 0) if rows else None

    def slow_ns(self) -> int:
        """Return how much longer VFs take."""
        return sum(int(fault.effect["extra_s"] * _NS) for fault in self._on("slow_vfs"))

    def missing_vfs(self) -> int:
        """Return how many VFs do not appear when some are made."""
        return sum(fault.effect["count"] for fault in self._on("missing_vfs"))

    def lies(self, about: str) -> list[Mapping[str, Any]]:
        """Return what is said falsely of ``flows``, ``vfs``, ``vf_count`` or ``rates``."""
        return [fault.effect for fault in self._on("lie") if fault.effect["about"] == about]

    def width(self, scope: str) -> int | None:
        """Return to how many bits the counters of a scope have shrunk; None without a fault."""
        return min(
            (f.effect["bits"] for f in self._on("wrap_counters") if f.effect["scope"] == scope), default=None
        )

    def count_packets(self, packets: int, device: Device) -> None:
        """Note packets that went in; start and end what depends on them."""
        if not self.active:
            return
        self._packets += packets
        for fault in self._faults:
            if fault.state == _WAITING and fault.when.get("packets", self._packets + 1) <= self._packets:
                self._start(fault, device)
            elif fault.state == _ON and self._packets - fault.since_packets >= fault.lasts.get(
                "packets", 1 << 62
            ):
                self._end(fault, device)

    def packets_left(self) -> int | None:
        """Return after how many packets something changes; None when nothing does."""
        due = [f.when["packets"] for f in self._faults if f.state == _WAITING and "packets" in f.when]
        due += [
            f.since_packets + f.lasts["packets"]
            for f in self._faults
            if f.state == _ON and "packets" in f.lasts
        ]
        return max(min(due) - self._packets, 1) if due else None

    def next_time_ns(self, now_ns: int) -> int | None:
        """Return when the clock next starts or ends a fault."""
        return min((at for at in self._times() if at > now_ns), default=None)

    def on_time(self, device: Device) -> None:
        """Start and end what is due by the clock."""
        for fault in self._faults:
            if (
                fault.state == _WAITING
                and "time_s" in fault.when
                and fault.when["time_s"] * _NS <= device.now_ns
            ):
                self._start(fault, device)
            elif (
                fault.state == _ON
                and fault.since_ns + fault.lasts.get("time_s", _NEVER_S) * _NS <= device.now_ns
            ):
                self._end(fault, device)

    def to_json(self) -> dict[str, Any]:
        """Return how far the script is."""
        return {
            "gone": self.gone,
            "packets": self._packets,
            "calls": dict(self._calls),
            "faults": [[f.state, f.since_ns, f.since_packets, f.hits] for f in self._faults],
        }

    def load(self, progress: Mapping[str, Any], device: Device) -> None:
        """Go on where `to_json` left off; a script of another length starts anew."""
        if len(progress["faults"]) == len(self._faults):
            self.gone, self._packets = progress["gone"], progress["packets"]
            self._calls = Counter(progress["calls"])
            for fault, state in zip(self._faults, progress["faults"], strict=True):
                fault.state, fault.since_ns, fault.since_packets, fault.hits = state
        self._freeze(device)

    def _times(self) -> Iterator[int]:
        for fault in self._faults:
            if fault.state == _WAITING and "time_s" in fault.when:
                yield int(fault.when["time_s"] * _NS)
            elif fault.state == _ON and "time_s" in fault.lasts:
                yield fault.since_ns + int(fault.lasts["time_s"] * _NS)

    def _on(self, kind: str) -> Iterator[Fault]:
        return (fault for fault in self._faults if fault.state == _ON and fault.kind == kind)

    def _start(self, fault: Fault, device: Device) -> None:
        fault.state = _OVER if fault.kind in _AT_ONCE else _ON
        fault.since_ns, fault.since_packets = device.now_ns, self._packets
        match fault.kind:
            case "remove":
                self.gone = True
            case "reset_vf":
                device.sriov.reset_unasked(fault.effect["vf"])
            case "link":
                device.set_link(fault.effect["bps"])
            case "reset_counters":
                scope = fault.effect["scope"]
                device.rules.restart() if scope == "rule" else device.ports.restart(scope)
            case _:
                self._freeze(device)
        device.changes.add_all()

    def _end(self, fault: Fault, device: Device) -> None:
        fault.state = _OVER
        if fault.kind == "link":
            device.set_link(device.config.link_bps)
        self._freeze(device)
        device.changes.add_all()

    def _hit(self, fault: Fault) -> None:
        fault.hits += 1
        # A fault that is tied to the nth call spoils that call alone, unless it says for how many.
        lasts = fault.lasts.get("calls", 1 if "call" in fault.when and not fault.lasts else None)
        if lasts is not None and fault.hits >= lasts:
            fault.state = _OVER

    def _freeze(self, device: Device) -> None:
        scopes = {fault.effect["scope"] for fault in self._on("freeze_counters")}
        device.rules.frozen = "rule" in scopes
        device.ports.frozen = scopes - {"rule"}
