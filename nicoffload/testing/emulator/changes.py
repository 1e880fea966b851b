"""What changed in the tables since a batch was last looked at."""

from __future__ import annotations

from nicoffload.testing.emulator.masks import Filter

_KEPT = 65_536


class Changes:
    """A list of changed filters that forgets its oldest part; positions in it only grow."""

    def __init__(self) -> None:
        self._filters: list[Filter] = []
        self._first = 0
        self.end = 0

    def add(self, filters: tuple[Filter, ...]) -> None:
        """Note that packets which these filters match may go another way."""
        self._filters.extend(filters)
        self.end += len(filters)
        if len(self._filters) > 2 * _KEPT:
            self._first += _KEPT
            del self._filters[:_KEPT]

    def add_all(self) -> None:
        """Note that any packet may go another way."""
        self._filters.clear()
        self.end += 1
        self._first = self.end

    def since(self, position: int) -> list[Filter] | None:
        """Return the filters that changed after a position; None when anything may have."""
        return None if position < self._first else self._filters[position - self._first :]
