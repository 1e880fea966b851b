"""Rows that are found by hashing, as Solarflare's hardware does: a rule may find no row before all are in use."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping

from nicoffload.model import Shape
from nicoffload.testing.emulator.masks import Values

_UDP = 17


def siena_hash(key: int) -> int:
    """Return the 16-bit LFSR x^16 + x^3 + 1 over a 32-bit key (efx_farch_filter_hash)."""
    low = 0x1FFF ^ key >> 16
    low ^= low >> 3 ^ low >> 6
    low ^= low >> 9
    low = (low ^ low << 13 ^ key) & 0xFFFF
    low ^= low >> 3 ^ low >> 6
    return low ^ low >> 9


def siena_key(fields: Mapping[str, int]) -> int:
    """Return the 32-bit key of a filter (efx_farch_filter_build): the xor of its four data words."""
    if "eth_dst" in fields:
        mac, vid = fields["eth_dst"], fields.get("vlan_vid")
        return (vid or 0) ^ (mac & 0xFFFFFFFF) ^ (mac >> 32) ^ (vid is None)
    udp = fields.get("ip_proto") == _UDP
    remote, local = fields.get("ipv4_src", 0), fields.get("ipv4_dst", 0)
    ports = fields.get("tp_src", 0), fields.get("tp_dst", 0)
    # The ports are swapped in a UDP wildcard filter.
    first, second = ports[::-1] if udp and "ipv4_src" not in fields else ports
    return ((remote << 16 | first) & 0xFFFFFFFF) ^ (second << 16 | remote >> 16) ^ local ^ udp


def _own_key(fields: Mapping[str, int]) -> int:
    return zlib.crc32(repr(sorted(fields.items())).encode())


_KEYS: Mapping[str, Callable[[Mapping[str, int]], int]] = {"siena_lfsr16": siena_key, "unknown": _own_key}


class HashRows:
    """Which rows of one hashed table are in use.

    Args:
        rows: How many there are.
        depth: How many are probed.
        function: Name of the hash function in the profile.
    """

    def __init__(self, rows: int, depth: int, function: str) -> None:
        self._rows = rows
        self._depth = min(depth, rows)
        self._key = _KEYS[function]
        self._used: set[int] = set()

    def find(self, shape: Shape, values: Values) -> int | None:
        """Return the row that a filter would get; None when all that are probed are in use."""
        key = self._key(dict(zip((name for name, _ in shape), values, strict=True)))
        # The hardware has powers of two; other capacities, which a user may ask for, wrap round likewise.
        row, step = siena_hash(key) % self._rows, (key * 2 - 1) & 0xFFFF
        for _ in range(self._depth):
            if row not in self._used:
                return row
            row = (row + step) % self._rows
        return None

    def take(self, row: int) -> None:
        """Mark a row as used."""
        self._used.add(row)

    def free(self, row: int) -> None:
        """Mark a row as free."""
        self._used.discard(row)
