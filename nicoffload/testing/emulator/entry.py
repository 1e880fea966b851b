"""A rule in the emulated hardware, and the rows that it lies in."""

from __future__ import annotations

from nicoffload.model import FlowRule
from nicoffload.testing.emulator.actions import Plan
from nicoffload.testing.emulator.masks import Filter, Recipe


class Entry:
    """A rule in the hardware.

    Args:
        table: Name of its table.
        flow_type: Its kind of rule there.
        rule: As asked for.
        slot: Location; None where rules have none.
        recipe: How it is programmed.
        plan: What it does.

    Besides: `entry_id`, its number on this NIC, never used again; `filters`, what is programmed; `counter`, the row of
    its counters; `row`, the row of the table; `rank`, its precedence; `ghost`, whether the driver forgot it.
    """

    __slots__ = (
        "counter",
        "entry_id",
        "filters",
        "flow_type",
        "ghost",
        "plan",
        "rank",
        "recipe",
        "row",
        "rule",
        "slot",
        "table",
    )

    def __init__(
        self, table: str, flow_type: str, rule: FlowRule, slot: int | None, recipe: Recipe, plan: Plan
    ) -> None:
        self.table = table
        self.flow_type = flow_type
        self.rule = rule
        self.slot = slot
        self.recipe = recipe
        self.filters: tuple[Filter, ...] = recipe.filters(rule.match.values)  # type: ignore[arg-type]  # no ranges
        self.plan = plan
        self.entry_id = -1
        self.counter = -1
        self.row: int | None = None
        self.rank: tuple[int, int] = (0, 0)
        self.ghost = False


class Bank:
    """Rows, locations and masks that some tables share.

    Args:
        rows: Capacity.
    """

    def __init__(self, rows: int) -> None:
        self.rows = rows
        self.used = 0
        self.slots: dict[int, Entry] = {}
        self.masks: object = None
        self.lowest_free = 0

    def pick(self) -> int:
        """Return the lowest row that nothing is in."""
        row = self.lowest_free
        while row in self.slots:
            row += 1
        self.lowest_free = row
        return row


def compared(entry: Entry, field: str) -> tuple[int, int] | None:
    """Return mask and value that a rule compares a field with; None where it does not."""
    for shape, values in entry.filters:
        for (name, mask), value in zip(shape, values, strict=True):
            if name == field:
                return (mask, value)
    return None
