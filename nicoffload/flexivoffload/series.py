"""What happened over time, in a bounded number of intervals however long a capture is."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

MAX_INTERVALS = 240
_SUMS = ("vswitch_packets", "nic_packets", "vswitch_bytes", "nic_bytes", "installs", "polled_entries")
_PEAKS = ("table_rows",)

Ints = npt.NDArray[np.int64]


class Series:
    """Sums and peaks by interval of capture time. When the intervals run out, they double in width.

    Args:
        start_ns: Begin of the first interval.
        width_ns: Width of an interval at first.
    """

    def __init__(self, start_ns: int, width_ns: int) -> None:
        self.start_ns = start_ns
        self.width_ns = width_ns
        self.used = 0
        self._columns = {name: np.zeros(MAX_INTERVALS, np.int64) for name in (*_SUMS, *_PEAKS)}

    def column(self, name: str) -> Ints:
        """Return a column, an entry an interval."""
        return self._columns[name][: self.used]

    def add_packets(self, time_ns: Ints, is_nic: npt.NDArray[np.bool_], size: Ints) -> None:
        """Count packets; their times never decrease."""
        if not len(time_ns):
            return
        self._reach(int(time_ns[-1]))
        if (int(time_ns[0]) - self.start_ns) // self.width_ns == (
            int(time_ns[-1]) - self.start_ns
        ) // self.width_ns:
            place = int((int(time_ns[0]) - self.start_ns) // self.width_ns)
            nic, nic_bytes = int(is_nic.sum()), int(size[is_nic].sum())
            self._columns["nic_packets"][place] += nic
            self._columns["vswitch_packets"][place] += len(time_ns) - nic
            self._columns["nic_bytes"][place] += nic_bytes
            self._columns["vswitch_bytes"][place] += int(size.sum()) - nic_bytes
            return
        places = (time_ns - self.start_ns) // self.width_ns
        for path, rows in (("nic", is_nic), ("vswitch", ~is_nic)):
            np.add.at(self._columns[f"{path}_packets"], places[rows], 1)
            np.add.at(self._columns[f"{path}_bytes"], places[rows], size[rows])

    def add(self, name: str, time_ns: int, amount: int) -> None:
        """Add to a sum."""
        self._reach(time_ns)
        self._columns[name][(time_ns - self.start_ns) // self.width_ns] += amount

    def peak(self, name: str, time_ns: int, value: int) -> None:
        """Keep the largest value of an interval."""
        self._reach(time_ns)
        column, place = self._columns[name], (time_ns - self.start_ns) // self.width_ns
        column[place] = max(int(column[place]), value)

    def _reach(self, time_ns: int) -> None:
        while (time_ns - self.start_ns) // self.width_ns >= MAX_INTERVALS:
            half = MAX_INTERVALS // 2
            for name, column in self._columns.items():
                pairs = column.reshape(half, 2)
                column[:half] = pairs.max(axis=1) if name in _PEAKS else pairs.sum(axis=1)
                column[half:] = 0
            self.width_ns *= 2
            self.used = (self.used + 1) // 2
        self.used = max(self.used, int((time_ns - self.start_ns) // self.width_ns) + 1)
