"""eBPF maps: one entry, a batch in one call, or mapped into memory without any call."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import struct
from types import TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt

from nicoffload.errors import KernelError, from_errno
from nicoffload.kernel.attributes import MalformedError
from nicoffload.kernel.bpf.elf import MapShape
from nicoffload.kernel.seam import Kernel

Bytes = npt.NDArray[np.uint8]

_CREATE, _LOOKUP, _UPDATE, _DELETE = 0, 1, 2, 3
_LOOKUP_BATCH, _UPDATE_BATCH, _DELETE_BATCH = 24, 26, 27
_CREATE_FORM = struct.Struct("=IIIIIII16s")
_ELEMENT = struct.Struct("=I4xQQQ")
_BATCH = struct.Struct("=QQQQIIQQ")
_COUNT_AT = 32
_KEY_ONLY_BYTES = 16
_NAME_BYTES = 15
_CURSOR_BYTES = 64
_CHUNK = 1 << 16
_CAPABILITY = "bpf"
MMAPABLE = 1 << 10


def possible_cpus(kernel: Kernel) -> int:
    """Return how many CPUs there may ever be: as many slabs a per-CPU counter has.

    Raises:
        MalformedError: The kernel names them in a way that is unknown.
    """
    text = kernel.read_sysfs("devices/system/cpu/possible").strip()
    try:
        return 1 + max(int(part.split(b"-")[-1]) for part in text.split(b","))
    except ValueError as cause:
        raise MalformedError(f"the CPUs that there may be are {text!r}") from cause


class BpfMap:
    """A map. Of one thread; close it.

    Args:
        kernel: Where it is.
        shape: What it is like; `max_entries` is that of the map.
        descriptor: Of the map; closed with it.
        name: For errors.
    """

    def __init__(self, kernel: Kernel, shape: MapShape, descriptor: int, name: str) -> None:
        self.shape = shape
        self.descriptor = descriptor
        self.name = name
        self._kernel = kernel
        self._mapping: mmap.mmap | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the map. Repeatable. Arrays over its memory stay usable."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1

    def memory(self) -> Bytes:
        """Return the entries of a map with `MMAPABLE`, as bytes[max_entries, value_bytes]; writes are seen at once."""
        shape = self.shape
        size = shape.max_entries * shape.value_bytes
        if self._mapping is None:
            pages = -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
            self._mapping = mmap.mmap(
                self.descriptor, pages, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE
            )
        flat = np.frombuffer(self._mapping, np.uint8, size)
        return flat.reshape(shape.max_entries, shape.value_bytes)

    def look_up(self, key: bytes) -> bytes | None:
        """Return the value of a key; None where there is none."""
        value = bytearray(self.shape.value_bytes)
        try:
            self._element(_LOOKUP, key, value)
        except FileNotFoundError:
            return None
        return bytes(value)

    def update(self, key: bytes, value: bytes) -> None:
        """Set the value of a key.

        Raises:
            NicOffloadError: The map is full, or the kernel refuses.
        """
        try:
            self._element(_UPDATE, key, bytearray(value))
        except OSError as cause:
            raise self._error("writing an entry", cause) from cause

    def delete(self, key: bytes) -> bool:
        """Remove a key; returns whether it was there."""
        held = bytearray(key)
        # Every byte behind the key must be zero, so that the command takes none of what `_element` sends.
        attributes = bytearray(struct.pack("=I4xQ", self.descriptor, _address(held)))
        try:
            self._kernel.bpf(_DELETE, attributes)
        except FileNotFoundError:
            return False
        except OSError as cause:
            raise self._error("removing an entry", cause) from cause
        return True

    def update_many(self, keys: Bytes, values: Bytes) -> tuple[int, int]:
        """Set the values of many keys in one call.

        Args:
            keys: uint8[N, key_bytes], contiguous.
            values: uint8[N, value_bytes], contiguous.

        Returns:
            How many were written, in order, and the errno that stopped it; 0 where all were.
        """
        return self._batch(_UPDATE_BATCH, keys, values)

    def delete_many(self, keys: Bytes) -> tuple[int, int]:
        """Remove many keys in one call; see `update_many`."""
        return self._batch(_DELETE_BATCH, keys, None)

    def read_all(self) -> tuple[Bytes, Bytes]:
        """Return every key and every value, in the map's order. Entries that come or go meanwhile may be missed.

        Raises:
            NicOffloadError: The kernel refuses.
        """
        shape = self.shape
        keys = np.empty((shape.max_entries, shape.key_bytes), np.uint8)
        values = np.empty((shape.max_entries, shape.value_bytes), np.uint8)
        cursor = bytearray(_CURSOR_BYTES)
        done, first = 0, 0
        while done < shape.max_entries:
            attributes = bytearray(
                _BATCH.pack(
                    first,
                    _address(cursor),
                    keys[done:].ctypes.data,
                    values[done:].ctypes.data,
                    min(_CHUNK, shape.max_entries - done),
                    self.descriptor,
                    0,
                    0,
                )
            )
            ended = False
            try:
                self._kernel.bpf(_LOOKUP_BATCH, attributes)
            except FileNotFoundError:
                ended = True
            except OSError as cause:
                raise self._error("reading all entries", cause) from cause
            done += struct.unpack_from("=I", attributes, _COUNT_AT)[0]
            if ended:
                break
            first = _address(cursor)
        return keys[:done], values[:done]

    def _element(self, command: int, key: bytes, value: bytearray) -> None:
        held = bytearray(key)
        attributes = bytearray(_ELEMENT.pack(self.descriptor, _address(held), _address(value), 0))
        self._kernel.bpf(command, attributes)

    def _batch(self, command: int, keys: Bytes, values: Bytes | None) -> tuple[int, int]:
        if not len(keys):
            return 0, 0
        address = 0 if values is None else values.ctypes.data
        attributes = bytearray(_BATCH.pack(0, 0, keys.ctypes.data, address, len(keys), self.descriptor, 0, 0))
        number = 0
        try:
            self._kernel.bpf(command, attributes)
        except OSError as cause:
            number = cause.errno or errno.EIO
        written: int = struct.unpack_from("=I", attributes, _COUNT_AT)[0]
        return written, number

    def _error(self, what: str, cause: OSError) -> Exception:
        return from_errno(cause.errno or errno.EIO, f"{what} of map {self.name}", capability=_CAPABILITY)


def create_map(kernel: Kernel, name: str, shape: MapShape, *, like: BpfMap | None = None) -> BpfMap:
    """Make a map.

    Args:
        kernel: Where.
        name: At most 15 letters, digits, underscores.
        shape: What it is like.
        like: Of a map of maps: what those are like; None for another map.

    Raises:
        NicOffloadError: The kernel refuses.
    """
    attributes = bytearray(
        _CREATE_FORM.pack(
            shape.kind,
            shape.key_bytes,
            shape.value_bytes,
            shape.max_entries,
            shape.flags,
            like.descriptor if like is not None else 0,
            0,
            name.encode()[:_NAME_BYTES],
        )
    )
    try:
        descriptor = kernel.bpf(_CREATE, attributes)
    except OSError as cause:
        if cause.errno == errno.ENOMEM:
            raise KernelError(
                f"no memory for map {name} of {shape.max_entries} entries", errno=errno.ENOMEM
            ) from cause
        raise from_errno(cause.errno or errno.EIO, f"making map {name}", capability=_CAPABILITY) from cause
    return BpfMap(kernel, shape, descriptor, name)


def _address(buffer: bytearray) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(buffer))
