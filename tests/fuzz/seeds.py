"""What the fuzzing begins from: answers of real kernels, each a datagram or an ioctl's buffer, in files by kind.

A file holds entries of a length (u32, host order) and as many bytes. `tests/vm/guest_tests/uml/test_fuzz_seeds.py`
records them anew on each run of the guest, into build/vm/uml/fuzz-seeds.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from pathlib import Path

from tests.fuzz.answers import answered

FOLDER = Path(__file__).with_name("seeds")
CAPTURES = Path(__file__).parents[1] / "kernel" / "captures"
NTUPLE = Path(__file__).parents[1] / "kernel" / "golden" / "ntuple.txt"
_LENGTH = struct.Struct("=I")


def pack(entries: Iterable[bytes]) -> bytes:
    """Return a file's bytes."""
    return b"".join(_LENGTH.pack(len(entry)) + entry for entry in entries)


def entries(data: bytes) -> Iterator[bytes]:
    """Yield the entries of a file."""
    start = 0
    while start < len(data):
        [length] = _LENGTH.unpack_from(data, start)
        yield data[start + 4 : start + 4 + length]
        start += 4 + length


def recorded(kind: str) -> list[bytes]:
    """Return the entries of a kind, each once, in order."""
    return list(dict.fromkeys(entries((FOLDER / f"{kind}.bin").read_bytes())))


def answers(kind: str, message: int) -> list[bytes]:
    """Return the messages of a type among the recorded ones of a kind, as answers to a socket's first request."""
    whole = (one for datagram in recorded(kind) for one in split(datagram))
    return [answered(one) for one in whole if struct.unpack_from("=H", one, 4)[0] == message]


def filters(dump: str) -> list[bytes]:
    """Return the messages of a recorded dump of filters, ``full`` or ``terse``, each as a datagram of its own."""
    found: list[bytes] = []
    for datagram in entries((CAPTURES / f"tc-6.12-{dump}.bin").read_bytes()):
        found += split(datagram)
    return found


def split(datagram: bytes) -> list[bytes]:
    """Return the messages of a datagram, header included."""
    found, start = [], 0
    while start + 16 <= len(datagram):
        [length] = _LENGTH.unpack_from(datagram, start)
        found.append(datagram[start : start + length])
        start += length + 3 & ~3
    return found


def ntuple() -> list[bytes]:
    """Return the structures of the golden file of receive rules."""
    lines = NTUPLE.read_text("ascii").splitlines()
    return [bytes.fromhex(line) for line in lines if not line.startswith("ethtool")]
