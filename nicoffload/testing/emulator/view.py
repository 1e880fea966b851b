"""One batch of packets as the emulated NIC sees it: header keys by mask shape, made once and kept."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from nicoffload.model import Shape
from nicoffload.packets import (
    HAS_CVLAN,
    HAS_ETH,
    HAS_ICMP,
    HAS_IPV4,
    HAS_IPV6,
    HAS_PORTS,
    HAS_TCP_FLAGS,
    HAS_VLAN,
    PacketBatch,
)
from nicoffload.testing.emulator.masks import Values

_HAS_IP = HAS_IPV4 | HAS_IPV6
_LOW_64 = (1 << 64) - 1

# Field to column, how far its bits are shifted there, and the presence bits of which one must be set.
_COLUMNS: dict[str, tuple[str, int, int]] = {
    "eth_src": ("eth_src", 0, HAS_ETH),
    "eth_dst": ("eth_dst", 0, HAS_ETH),
    "eth_type": ("eth_type", 0, 0),
    "vlan_vid": ("vlan_tci", 0, HAS_VLAN),
    "vlan_dei": ("vlan_tci", 12, HAS_VLAN),
    "vlan_pcp": ("vlan_tci", 13, HAS_VLAN),
    "cvlan_vid": ("cvlan_tci", 0, HAS_CVLAN),
    "cvlan_pcp": ("cvlan_tci", 13, HAS_CVLAN),
    "ipv4_src": ("ipv4_src", 0, HAS_IPV4),
    "ipv4_dst": ("ipv4_dst", 0, HAS_IPV4),
    "ipv6_src": ("ipv6_src", 0, HAS_IPV6),
    "ipv6_dst": ("ipv6_dst", 0, HAS_IPV6),
    "ip_proto": ("ip_proto", 0, _HAS_IP),
    "ip_tos": ("ip_tos", 0, _HAS_IP),
    "ip_ttl": ("ip_ttl", 0, _HAS_IP),
    "tp_src": ("tp_src", 0, HAS_PORTS),
    "tp_dst": ("tp_dst", 0, HAS_PORTS),
    "tcp_flags": ("tcp_flags", 0, HAS_TCP_FLAGS),
    "icmp_type": ("icmp_type", 0, HAS_ICMP),
    "icmp_code": ("icmp_code", 0, HAS_ICMP),
}

# The batch says 0 whole, 1 first, 3 later; the vocabulary says the same: bit 0 a fragment, bit 1 not the first.
_COLUMNS["ip_frag"] = ("ip_frag", 0, _HAS_IP)

Keys = list[Values | None]


class BatchView:
    """What is derived from a batch once and then looked up.

    Args:
        batch: The packets.
    """

    def __init__(self, batch: PacketBatch) -> None:
        self.batch = batch
        self.count = len(batch.headers)
        self.l2_bytes: npt.NDArray[np.int64] = batch.headers["l2_bytes"].astype(np.int64)
        self._keys: dict[tuple[Shape, int], Keys] = {}
        self._rows: dict[tuple[Shape, int], dict[Values, list[int]]] = {}
        self._lists: dict[str, list[int]] = {}

    def keys(self, shape: Shape, in_port: int) -> Keys:
        """Return the masked values of every header for a shape; None for a header that lacks one of its fields."""
        place = (shape, in_port if any(name == "in_port" for name, _ in shape) else -1)
        found = self._keys.get(place)
        if found is None:
            found = self._keys[place] = self._make_keys(shape, in_port)
        return found

    def rows(self, shape: Shape, in_port: int, values: Values) -> list[int]:
        """Return the headers that a filter matches."""
        place = (shape, in_port if any(name == "in_port" for name, _ in shape) else -1)
        found = self._rows.get(place)
        if found is None:
            found = self._rows[place] = {}
            for row, key in enumerate(self.keys(shape, in_port)):
                if key is not None:
                    found.setdefault(key, []).append(row)
        return found.get(values, [])

    def column(self, name: str) -> list[int]:
        """Return a column of the headers as numbers."""
        found = self._lists.get(name)
        if found is None:
            found = self._lists[name] = self.batch.headers[name].tolist()
        return found

    def _make_keys(self, shape: Shape, in_port: int) -> Keys:
        headers = self.batch.headers
        present = headers["present"]
        has = np.ones(self.count, np.bool_)
        columns: list[list[int]] = []
        for name, mask in shape:
            if name == "in_port":
                columns.append([in_port & mask] * self.count)
                continue
            if name not in _COLUMNS:
                # A tunnel's field: the emulated switch takes no tunnel apart.
                return [None] * self.count
            column, shift, bits = _COLUMNS[name]
            if bits:
                has &= (present & bits) != 0
            columns.append(self._masked(column, shift, mask))
        keys: Keys = list(zip(*columns, strict=True)) if columns else [()] * self.count
        if not has.all():
            for row in np.flatnonzero(~has).tolist():
                keys[row] = None
        return keys

    def _masked(self, column: str, shift: int, mask: int) -> list[int]:
        headers = self.batch.headers
        if column in ("ipv6_src", "ipv6_dst"):
            high = (headers[f"{column}_hi"] & np.uint64(mask >> 64)).tolist()
            low = (headers[f"{column}_lo"] & np.uint64(mask & _LOW_64)).tolist()
            return [first << 64 | second for first, second in zip(high, low, strict=True)]
        values: npt.NDArray[Any] = headers[column]
        if shift:
            values = values >> shift
        masked: list[int] = (values & values.dtype.type(mask)).tolist()
        return masked
