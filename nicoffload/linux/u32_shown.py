"""Stands where u32 filters are written, and notes the commands that would write them instead."""

from __future__ import annotations

from collections.abc import Sequence

from nicoffload.errors import NicOffloadError
from nicoffload.kernel.tc import (
    FilterRef,
    Hook,
    U32Filter,
    add_table_command,
    add_u32_command,
    delete_command,
)
from nicoffload.kernel.tc.commands import NameOf


class ShownFilters:
    """The writing calls of `U32Filters`, as commands.

    Args:
        hook: Where the filters would hang.
        name_of: Names devices.
    """

    def __init__(self, hook: Hook, name_of: NameOf) -> None:
        self._hook = hook
        self._name_of = name_of
        self.commands: list[str] = []
        """What was noted, in order."""

    def add_table(self, pref: int, table: int) -> None:
        """Note what makes a hash table."""
        self.commands.append(add_table_command(pref, table, self._hook, self._name_of))

    def add_many(self, items: Sequence[U32Filter]) -> list[FilterRef | NicOffloadError]:
        """Note what installs filters, each with a number of its own."""
        self.commands += [add_u32_command(item, self._hook, self._name_of) for item in items]
        return [
            FilterRef(pref=item.pref, handle=item.handle, chain=0, protocol=item.protocol, kind="u32")
            for item in items
        ]

    def delete_many(self, refs: Sequence[FilterRef]) -> None:
        """Note what removes filters and tables."""
        self.commands += [delete_command(ref, self._hook, self._name_of) for ref in refs]
