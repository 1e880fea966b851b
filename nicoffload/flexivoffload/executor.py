"""Carries out what the manager decides, through the public face of the SDK, and says what came of it."""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from nicoffload import Nic
from nicoffload.errors import (
    DeviceBusyError,
    DeviceGoneError,
    InvalidRequestError,
    NicOffloadError,
    NotSupportedError,
    ResourceExhaustedError,
)
from nicoffload.flexivoffload.ledger import Reading
from nicoffload.flexivoffload.units import Unit
from nicoffload.model import FlowStats

BACKOFF_MAX_S = 60
NS_PER_S = 1_000_000_000


@dataclass(slots=True)
class Operations:
    """How often what was done to the NIC.

    Args:
        adds: Rules installed.
        removes: Rules removed.
        refused: Requests that came to nothing, by the error's code.
        retries: Requests made again after a failure.
        calls: Bulk calls.
        moves_to_nic: Flows that moved from the virtual switch to the NIC.
        moves_to_vswitch: Flows that moved back.
    """

    adds: int = 0
    removes: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    retries: int = 0
    calls: int = 0
    moves_to_nic: int = 0
    moves_to_vswitch: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why an installation came to nothing.

    Args:
        code: Of the error.
        text: The error in words.
        is_full: The table is full.
        is_final: Asking again would not help.
    """

    code: str
    text: str
    is_full: bool = False
    is_final: bool = False


def as_failure(error: NicOffloadError) -> Failure:
    """Return what an error means for the flow.

    Without the rule's place in its batch and its random identifier: one capture replayed twice gives one report.
    """
    device = f"{error.device}: " if error.device else ""
    kernel = f" [kernel: {error.kernel_message}]" if error.kernel_message else ""
    return Failure(
        code=error.code,
        text=f"{device}{error.message}{kernel}",
        is_full=isinstance(error, ResourceExhaustedError),
        is_final=isinstance(error, NotSupportedError | InvalidRequestError),
    )


class Executor:
    """Installs and removes rules in bulk. After the NIC is gone every call does nothing.

    Args:
        nic: The NIC.
        on_gone: Called once, when the NIC turns out to be gone.
    """

    def __init__(self, nic: Nic, on_gone: Callable[[str], None]) -> None:
        self._nic = nic
        self._on_gone = on_gone
        self.operations = Operations()
        self.alive = True

    def gone(self, error: NicOffloadError) -> None:
        """Take note that the NIC is gone."""
        if self.alive:
            self.alive = False
            self._on_gone(str(error))

    def install(self, units: Sequence[Unit]) -> dict[uuid.UUID, Failure]:
        """Install rules in one call; answers for those that failed. Nothing is answered when the NIC is gone."""
        if not (units and self.alive):
            return {}
        self.operations.calls += 1
        try:
            report = self._nic.add_flows([unit.rule for unit in units], atomic=False)
        except DeviceGoneError as error:
            self.gone(error)
            return {}
        except NicOffloadError as error:
            self.operations.refused[error.code] += len(units)
            return {unit.rule_id: as_failure(error) for unit in units}
        self.operations.adds += len(report.installed)
        failures: dict[uuid.UUID, Failure] = {}
        for rule, why in report.refused:
            self.operations.refused[why.code] += 1
            failures[rule.rule_id] = as_failure(why)
            if isinstance(why, DeviceGoneError):
                self.gone(why)
        return failures

    def remove(self, units: Sequence[Unit], now_ns: int) -> tuple[list[Unit], dict[uuid.UUID, FlowStats]]:
        """Remove rules in one call, those that are gone already included.

        Returns:
            The units that are out, and the final counters of those that had some. The rest is to be tried again,
            later each time.
        """
        if not (units and self.alive):
            return [], {}
        self.operations.calls += 1
        self.operations.retries += sum(unit.failures > 0 for unit in units)
        try:
            finals = self._nic.remove_flows([unit.rule_id for unit in units], missing_ok=True)
        except DeviceGoneError as error:
            self.gone(error)
            return [], {}
        except NicOffloadError as error:
            self.operations.refused[error.code] += len(units)
            if len(units) > 1 and not isinstance(error, DeviceBusyError):
                return self._remove_singly(units, now_ns)
            for unit in units:
                unit.failures += 1
                unit.retry_ns = now_ns + backoff_s(unit.failures) * NS_PER_S
            return [], {}
        self.operations.removes += len(units)
        return list(units), {stats.rule_id: stats for stats in finals}

    def _remove_singly(
        self, units: Sequence[Unit], now_ns: int
    ) -> tuple[list[Unit], dict[uuid.UUID, FlowStats]]:
        """One rule that can't be removed must not keep the others in."""
        out: list[Unit] = []
        finals: dict[uuid.UUID, FlowStats] = {}
        for unit in units:
            done, stats = self.remove([unit], now_ns)
            out += done
            finals |= stats
        return out, finals

    def read(self, units: Sequence[Unit]) -> list[Reading]:
        """Return the NIC's counters of rules; readings without packets where there are none."""
        nothing = Reading(packets=None, bytes=None, epoch=0, facts=None)
        if not (units and self.alive):
            return [nothing] * len(units)
        try:
            counters = self._nic.flow_stats([unit.rule_id for unit in units])
        except DeviceGoneError as error:
            self.gone(error)
            return [nothing] * len(units)
        except NicOffloadError as error:
            self.operations.refused[error.code] += 1
            return [nothing] * len(units)
        columns = zip(
            counters.valid.tolist(),
            counters.packets.tolist(),
            counters.bytes.tolist(),
            counters.epoch.tolist(),
            counters.facts,
            strict=True,
        )
        return [
            Reading(packets=packets, bytes=size, epoch=epoch, facts=facts) if valid else nothing
            for valid, packets, size, epoch, facts in columns
        ]


def reading_of(stats: FlowStats | None) -> Reading:
    """Return final counters as a reading."""
    if stats is None:
        return Reading(packets=None, bytes=None, epoch=0, facts=None)
    return Reading(packets=stats.packets, bytes=stats.bytes, epoch=stats.epoch, facts=stats.facts)


def backoff_s(failures: int) -> int:
    """Return how long to wait after the Nth failure in a row: 1, 2, 4 … 60 seconds."""
    return min(1 << min(max(failures, 1) - 1, 6), BACKOFF_MAX_S)
