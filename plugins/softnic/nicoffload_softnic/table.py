"""What the flow tables of both data paths have in common: one table, always on, and the words with which it refuses."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from nicoffload.driver import FlowFilters, QueueCounts, RuleRef
from nicoffload.errors import (
    ConflictError,
    NicOffloadError,
    NotFoundError,
    NotSupportedError,
    Reason,
    ResourceExhaustedError,
)
from nicoffload.profiles.types import Table
from nicoffload_softnic import names


class SoftTable(FlowFilters):
    """The one flow table of a NIC, without what holds its rules.

    Args:
        name: The NIC's, without prefix.
        rows: How many rules it holds.
        table: What the NIC's profile says of it.
        monotonic_s: The NIC's clock.
    """

    ON_SOURCE: ClassVar[str]
    """Where the data path has its table on."""
    MATCH_SOURCE: ClassVar[str]
    """Where the data path says what it compares."""
    COMPARER: ClassVar[str]
    """What compares, for people."""
    MORE_ROWS: ClassVar[str]
    """How to come by more rows than these."""

    def __init__(self, name: str, rows: int, table: Table, monotonic_s: Callable[[], float]) -> None:
        self._name = names.PREFIX + name
        self._rows = rows
        self._table = table
        self._monotonic_s = monotonic_s

    def queues(self) -> QueueCounts:
        """Return that rules name no queues."""
        return QueueCounts(pf=0, vf=None)

    def enable_table(self, name: str) -> None:
        """Refuse: the table is always on.

        Raises:
            NotSupportedError: Always.
        """
        reason = Reason(code="table.fixed", path="", message="it is always on", source=self.ON_SOURCE)
        raise NotSupportedError(
            f"table {name} can't be enabled",
            capability=f"flow_filters.{name}",
            reasons=[reason],
            device=self._name,
        )

    # --------------------------------------------------------------------------------------------------------- errors

    def _same_id(self, rule_id: object) -> NicOffloadError:
        return ConflictError("there is a rule of that id", existing=str(rule_id), device=self._name)

    def _same_match(self, existing: str) -> NicOffloadError:
        return ConflictError(
            "a rule that matches the same is installed",
            existing=existing,
            path="/match",
            device=self._name,
        )

    def _full(self) -> NicOffloadError:
        return ResourceExhaustedError(
            f"all {self._rows} rows of table {self._table.name} are in use",
            limit=self._rows,
            in_use=self._rows,
            device=self._name,
            hint=f"remove rules{self.MORE_ROWS}",
        )

    def _no_field(self, name: str, compared: str) -> NicOffloadError:
        reason = Reason(
            code="field.unsupported",
            path=f"/match/{name}",
            message=f"{self.COMPARER} does not compare {name}, or not so",
            accepted=f"{compared}; in_port in full; ports under a mask, not as a range",
            source=self.MATCH_SOURCE,
        )
        return NotSupportedError(
            "the rule can't be matched",
            capability=f"flow_filters.{self._table.name}",
            reasons=[reason],
            path=f"/match/{name}",
            device=self._name,
        )

    def _missing(self, ref: RuleRef) -> NicOffloadError:
        return NotFoundError(f"there is no rule {ref.rule_id}", device=self._name)
