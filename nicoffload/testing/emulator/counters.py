"""Counters of rules, ports and VFs, in columns. They count without end; their width shows when they are read."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]

RX_PACKETS, TX_PACKETS, RX_BYTES, TX_BYTES, RX_DROPPED, TX_DROPPED = range(6)
PORT_VALUES = ("rx_packets", "tx_packets", "rx_bytes", "tx_bytes", "rx_dropped", "tx_dropped")

_FIRST_ROWS = 1024


class RuleCounters:
    """One row a rule; rows of rules that are gone are used again.

    `packets`, `bytes`, `last_ns` and `epoch` are int64 columns; `touched` marks what `count` changed.
    """

    def __init__(self) -> None:
        self.packets: Ints = np.zeros(_FIRST_ROWS, np.int64)
        self.bytes: Ints = np.zeros(_FIRST_ROWS, np.int64)
        self.last_ns: Ints = np.full(_FIRST_ROWS, -1, np.int64)
        self.epoch: Ints = np.zeros(_FIRST_ROWS, np.int64)
        self.touched: npt.NDArray[np.bool_] = np.zeros(_FIRST_ROWS, np.bool_)
        self.frozen = False
        # A driver that polls its counters answers from this copy until it is so old.
        self.refresh_ns = 0
        self._copy: tuple[Ints, Ints, Ints] | None = None
        self._copied_ns = 0
        self._free: list[int] = list(range(_FIRST_ROWS - 1, -1, -1))
        self._starts = 0

    def open(self) -> int:
        """Return a row that starts at zero, in an epoch of its own."""
        if not self._free:
            self._grow()
        row = self._free.pop()
        self._starts += 1
        self.epoch[row] = self._starts
        return row

    def poll(self, now_ns: int) -> None:
        """Let the driver read the hardware, if it does so by now."""
        if self.refresh_ns and (self._copy is None or now_ns - self._copied_ns >= self.refresh_ns):
            self._copy = (self.packets.copy(), self.bytes.copy(), self.last_ns.copy())
            self._copied_ns = now_ns

    def read(self, rows: Ints, now_ns: int) -> tuple[Ints, Ints, Ints, Ints]:
        """Return packets, bytes, time of the last hit (-1 for none) and epoch of some rows, as the driver has them."""
        self.poll(now_ns)
        if self._copy is None:
            return self.packets[rows], self.bytes[rows], self.last_ns[rows], self.epoch[rows]
        old = rows < len(self._copy[0])
        place = np.where(old, rows, 0)
        packets, sizes, last = (column[place] for column in self._copy)
        return np.where(old, packets, 0), np.where(old, sizes, 0), np.where(old, last, -1), self.epoch[rows]

    def close(self, row: int) -> None:
        """Give a row back, at zero for its next user."""
        self.packets[row] = self.bytes[row] = 0
        self.last_ns[row] = -1
        if self._copy is not None and row < len(self._copy[0]):
            self._copy[0][row] = self._copy[1][row] = 0
            self._copy[2][row] = -1
        self._free.append(row)

    def claim(self, row: int, packets: int, size: int, last_ns: int, epoch: int) -> None:
        """Take a row with what a state file says of it."""
        while row >= len(self.packets):
            self._grow()
        self.packets[row], self.bytes[row], self.last_ns[row], self.epoch[row] = packets, size, last_ns, epoch
        self._starts = max(self._starts, epoch)

    def settle(self, rows: set[int]) -> None:
        """Make all rows but these free, after `claim`."""
        self._free = [row for row in range(len(self.packets) - 1, -1, -1) if row not in rows]

    def count(self, rows: Ints, sizes: Ints, times: Ints) -> None:
        """Count one packet a row.

        Args:
            rows: int64[N], rows of the rules that were hit; a row may come often.
            sizes: int64[N], bytes of each packet.
            times: int64[N], arrival of each, never decreasing within a row.
        """
        if self.frozen:
            return
        np.add.at(self.packets, rows, 1)
        np.add.at(self.bytes, rows, sizes)
        self.last_ns[rows] = times
        self.touched[rows] = True

    def restart(self) -> None:
        """Set all to zero, as a reset of the device does."""
        self.packets[:] = 0
        self.bytes[:] = 0
        self.last_ns[:] = -1
        self._starts += 1
        self.epoch[:] = self._starts
        self.touched[:] = True
        self._copy = None

    def _grow(self) -> None:
        size = len(self.packets)
        self._free.extend(range(2 * size - 1, size - 1, -1))
        for name, fill in (("packets", 0), ("bytes", 0), ("last_ns", -1), ("epoch", 0)):
            column = getattr(self, name)
            setattr(self, name, np.concatenate([column, np.full(size, fill, np.int64)]))
        self.touched = np.concatenate([self.touched, np.zeros(size, np.bool_)])


class PortCounters:
    """One row a switch port (0 uplink, 1 PF, 2 + N VF N), one column a value of `PORT_VALUES`."""

    def __init__(self, ports: int) -> None:
        self.values: Ints = np.zeros((ports, len(PORT_VALUES)), np.int64)
        self.epoch = 0
        self.frozen: set[str] = set()

    def resize(self, ports: int) -> None:
        """Have so many ports; new ones start at zero, gone ones are forgotten."""
        kept = min(ports, len(self.values))
        grown = np.zeros((ports, len(PORT_VALUES)), np.int64)
        grown[:kept] = self.values[:kept]
        self.values = grown

    def count(self, ports: Ints, sizes: Ints, packets_at: int, bytes_at: int) -> None:
        """Count one packet a row: `ports` int64[N] (below 0: not counted), `sizes` int64[N]."""
        rows = len(self.values)
        packets = np.bincount(ports + 1, minlength=rows + 1)[1:]
        total = np.bincount(ports + 1, weights=sizes, minlength=rows + 1)[1:]
        self._add(packets_at, packets)
        self._add(bytes_at, total.astype(np.int64))

    def count_packets(self, ports: Ints, column: int) -> None:
        """Count packets only, such as those that were dropped."""
        self._add(column, np.bincount(ports + 1, minlength=len(self.values) + 1)[1:])

    def add(self, port: int, column: int, amount: int) -> None:
        """Add to one counter."""
        if ("port" if port == 0 else "vf") not in self.frozen:
            self.values[port, column] += amount

    def restart(self, scope: str) -> None:
        """Set the counters of the port (scope ``port``) or of all others (``vf``) to zero."""
        self.values[: 1 if scope == "port" else None][0 if scope == "port" else 1 :] = 0
        self.epoch += 1

    def _add(self, column: int, amounts: Ints) -> None:
        if not self.frozen:
            self.values[:, column] += amounts
            return
        for port in np.flatnonzero(amounts).tolist():
            self.add(port, column, int(amounts[port]))
