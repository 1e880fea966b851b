"""The rules in the data path as columns: keys, values, records and counters, by slot."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from nicoffload.errors import KernelError, NicOffloadError, ResourceExhaustedError, from_errno
from nicoffload.kernel.bpf import BpfMap, await_readers
from nicoffload_softnic import layout
from nicoffload_softnic.classes import ClassTable, MaskClass
from nicoffload_softnic.device import SoftDevice
from nicoffload_softnic.keys import Bytes

Slots = npt.NDArray[np.int64]
_SHORT = np.array(layout.SHORT_KEY_PLACES)


@dataclass(frozen=True, slots=True)
class Block:
    """Rules of one class that come in together, a row each.

    Args:
        keys: uint8[N, 64], the class left out.
        mask: Of the class.
        named: Whether the rules name the port that packets enter.
        out: uint16[N], the port or `layout.NO_PORT`.
        mirror: uint16[N], likewise.
        priority: uint16[N].
        flags: uint8[N], `layout.RECORD_*`.
        rule_ids: uint8[N, 16].
    """

    keys: Bytes
    mask: bytes
    named: bool
    out: npt.NDArray[np.uint16]
    mirror: npt.NDArray[np.uint16]
    priority: npt.NDArray[np.uint16]
    flags: npt.NDArray[np.uint8]
    rule_ids: Bytes


class FlowStore:
    """What this process knows of the rules, and how it changes them. Other processes may change them in between.

    Args:
        device: The NIC.
    """

    def __init__(self, device: SoftDevice) -> None:
        self._device = device
        self.classes = ClassTable(device.kernel, device.config, device.classes)
        rows = device.rows
        self.keys = np.zeros((rows, layout.KEY_BYTES), np.uint8)
        self.flows = np.zeros(rows, layout.FLOW)
        self.records = np.zeros(rows, layout.RECORD)
        self.used = np.zeros(rows, np.bool_)
        self._free = np.zeros(0, np.int64)
        self._unsettled = 0
        self._generation = -1

    @property
    def in_use(self) -> int:
        """How many rules there are, as last read."""
        return int(self.used.sum())

    @property
    def free(self) -> int:
        """How many more rules there is room for."""
        return len(self._free)

    def is_current(self) -> bool:
        """Tell whether nobody else changed the rules since they were read, or is about to."""
        generation = int(self._device.config["generation"])
        return self._generation == generation and not generation & 1

    def read(self) -> None:
        """Read all rules and classes from the kernel."""
        device = self._device
        self._generation = -1
        generation = int(device.config["generation"])
        keys, flows = self.read_kernel()
        slots = flows["slot"].astype(np.int64)
        self.used[:] = False
        self.used[slots] = True
        self.keys[slots] = keys
        self.flows[slots] = flows
        self.records[slots] = device.records[slots]
        self._free = np.flatnonzero(~self.used)
        self._unsettled = len(self._free)
        self.classes.read()
        counts = np.bincount(_class_numbers(keys), minlength=layout.MAX_CLASSES)
        for number in np.flatnonzero(counts).tolist():
            one = self.classes.by_number(number)
            if one is None:
                raise KernelError("rules of a class that the data path does not know", device=self._name)
            one.rules = int(counts[number])
        self._generation = generation

    def read_kernel(self) -> tuple[Bytes, Any]:
        """Return keys and flows as they are in the data path's maps, in the order of their slots.

        So whoever reads by slot what there is of a rule reads it from start to end: in the order of the maps' hashes,
        each access would miss the CPU's cache.
        """
        keys, values = self._device.flows.read_all()
        short, more = self._device.short_flows.read_all()
        widened = np.zeros((len(short), layout.KEY_BYTES), np.uint8)
        widened[:, _SHORT] = short
        flows = np.concatenate([values, more]).view(layout.FLOW).reshape(-1)
        order = np.argsort(flows["slot"])
        return np.concatenate([keys, widened])[order], flows[order]

    def read_one(self, slot: int) -> Any:
        """Return the flow in a slot as it is in the data path's map, an array of one; None where it is gone."""
        key = self.keys[slot : slot + 1]
        one = self.classes.by_number(class_number(key[0].tobytes()))
        if one is None:
            return None
        target, kept = self._place(one, key)
        value = target.look_up(kept.tobytes())
        return None if value is None else np.frombuffer(value, layout.FLOW)

    def _place(self, one: MaskClass, keys: Bytes) -> tuple[BpfMap, Bytes]:
        """Return the map that holds a class, and its keys as they are there."""
        if one.is_short:
            return self._device.short_flows, _shortened(keys)
        return self._device.flows, np.ascontiguousarray(keys)

    def insert(self, block: Block) -> tuple[Slots, NicOffloadError | None]:
        """Put rules in; there is room for all, and none of their keys is in use.

        Returns:
            The slots of those that are in, in order, and why the rest is not.
        """
        count = len(block.keys)
        one = self.classes.find(block.mask, named=block.named)
        if one is None:
            return np.zeros(0, np.int64), _too_many_classes(self._name)
        with self._changing():
            slots = self._take(count)
            flows, records = self._fill(block, slots)
            keys = _with_class(block.keys, one)
            self.classes.raise_rank({one.number: int(flows["rank"].max())})
            target, kept = self._place(one, keys)
            written, number = target.update_many(kept, _as_bytes(flows))
            one.rules += written
            at = span(slots[:written])
            self.used[at] = True
            _whole(self.keys)[at] = _whole(keys)[:written]
            _whole(self.flows)[at] = _whole(flows)[:written]
            _whole(self.records)[at] = _whole(records)[:written]
            if written < count:
                self._free = np.concatenate([slots[written:], self._free])
        if not number:
            return slots, None
        return slots[:written], from_errno(
            number, "the data path's map refused a rule", capability="flow_filters", device=self._name
        )

    def remove(self, slots: Slots) -> npt.NDArray[np.bool_]:
        """Take rules out; returns for each whether it was there."""
        there = np.ones(len(slots), np.bool_)
        numbers = _class_numbers(self.keys[slots])
        with self._changing():
            for number in np.unique(numbers).tolist():
                one = self.classes.by_number(number)
                assert one is not None, "a rule's class is there as long as the rule"
                places = np.flatnonzero(numbers == number)
                there[places] = self._remove_alike(one, slots[places])
            self._forget(slots)
        return there

    def _remove_alike(self, one: MaskClass, slots: Slots) -> npt.NDArray[np.bool_]:
        there = np.ones(len(slots), np.bool_)
        target, kept = self._place(one, self.keys[slots])
        at = 0
        while at < len(slots):
            removed, number = target.delete_many(kept[at:])
            at += removed
            if not number:
                break
            if number != errno.ENOENT:
                raise from_errno(
                    number, "the data path's map kept a rule", capability="flow_filters", device=self._name
                )
            there[at] = False  # somebody else was faster
            at += 1
        return there

    def _forget(self, slots: Slots) -> None:
        counts = np.bincount(_class_numbers(self.keys[slots]), minlength=layout.MAX_CLASSES)
        for number in np.flatnonzero(counts).tolist():
            one = self.classes.by_number(number)
            if one is not None:
                one.rules -= int(counts[number])
        self.used[slots] = False
        self._device.records[slots] = np.zeros(1, layout.RECORD)
        self._free = np.concatenate([self._free, slots])
        self._unsettled += len(slots)
        self.classes.shrink()

    def _take(self, count: int) -> Slots:
        """Return free slots, the longest free first, with counters that start at nothing."""
        if len(self._free) - self._unsettled < count:
            # A packet that met the slot's old rule may still be about to count.
            await_readers(self._device.kernel)
            self._unsettled = 0
        slots, self._free = self._free[:count], self._free[count:]
        counters = self._device.counters
        counters.view(np.uint64).reshape(*counters.shape, -1)[:, span(slots)] = 0
        return slots

    def _fill(self, block: Block, slots: Slots) -> tuple[Any, Any]:
        """Write the records of rules, and return them behind the rules' flows."""
        device, count = self._device, len(slots)
        first = int(device.config["next_epoch"])
        device.config["next_epoch"] = first + count
        epochs = np.arange(first, first + count, dtype=np.uint64)
        records = np.zeros(count, layout.RECORD)
        _whole(records["rule_id"])[:] = _whole(np.ascontiguousarray(block.rule_ids))
        records["epoch"] = epochs
        records["priority"] = block.priority
        records["flags"] = block.flags
        _whole(device.records)[span(slots)] = _whole(records)
        flows = np.zeros(count, layout.FLOW)
        older_first = np.uint64(layout.YOUNGEST) - epochs
        flows["rank"] = block.priority.astype(np.uint64) << np.uint64(layout.RANK_BITS) | older_first
        flows["slot"] = slots
        flows["out"] = block.out
        flows["mirror"] = block.mirror
        return flows, records

    @contextmanager
    def doubted_if_cut_off(self) -> Iterator[None]:
        """Read all anew before the next use, where an exception or Ctrl-C ends the context."""
        try:
            yield
        except BaseException:
            self._generation = -1
            raise

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """Let other processes know of a change: its generation is odd until it is over, and stays so after a kill."""
        config = self._device.config
        self._generation = -1  # where it is cut off, all is read anew
        config["generation"] = int(config["generation"]) + 1 | 1
        try:
            yield
        finally:
            changed = (int(config["generation"]) | 1) + 1
            config["generation"] = changed
        self._generation = changed

    @property
    def _name(self) -> str:
        return f"soft:{self._device.name}"


def span(slots: Slots) -> Slots | slice:
    """Return slots as a slice where they are in a row: NumPy then copies and gathers nothing."""
    if not len(slots):
        return slots
    first, last = int(slots[0]), int(slots[-1])
    if last - first == len(slots) - 1 and bool((np.diff(slots) == 1).all()):
        return slice(first, last + 1)
    return slots


def _numbers_of_runs() -> tuple[tuple[int, int, str], ...]:
    """Return the short key as numbers that are aligned in both forms: place there, place in the key, type."""
    found = []
    at = 0
    for first, last in layout.SHORT_KEY_RUNS:
        source = first
        while source < last:
            width = next(n for n in (8, 4, 2) if not (source % n or at % n or last - source < n))
            found.append((at // width, source // width, f"u{width}"))
            source, at = source + width, at + width
    return tuple(found)


_SHORT_NUMBERS = _numbers_of_runs()
_IN_CACHE = 4096
"""Keys that are shortened at a time."""


def _shortened(keys: Bytes) -> Bytes:
    """Return the short form of keys, a number at a time and so many keys that they stay in the CPU's cache."""
    made = np.empty((len(keys), layout.SHORT_KEY_BYTES), np.uint8)
    for start in range(0, len(keys), _IN_CACHE):
        some, shorter = keys[start : start + _IN_CACHE], made[start : start + _IN_CACHE]
        for at, source, form in _SHORT_NUMBERS:
            shorter.view(form)[:, at] = some.view(form)[:, source]
    return made


def class_number(key: bytes) -> int:
    """Return the number of the class that a key is in."""
    return key[layout.CLASS_AT]


def _class_numbers(keys: Bytes) -> Slots:
    return keys[:, layout.CLASS_AT].astype(np.int64)


def _with_class(keys: Bytes, one: MaskClass) -> Bytes:
    made = np.ascontiguousarray(keys)
    made.view("<u8")[:, layout.KEY_WORDS - 1] |= np.uint64(one.suffix)
    return made


def _whole(rows: Any) -> Any:
    """Return rows of bytes or of fields as rows of one thing each: NumPy copies those ten times faster."""
    if rows.ndim == 1:
        return rows.view(f"V{rows.dtype.itemsize}")
    return rows.view(f"V{rows.shape[1]}")[:, 0]


def _as_bytes(flows: Any) -> Bytes:
    viewed: Bytes = flows.view(np.uint8).reshape(len(flows), -1)
    return viewed


def _too_many_classes(device: str) -> NicOffloadError:
    return ResourceExhaustedError(
        f"{layout.MAX_CLASSES} combinations of fields and masks are in use",
        limit=layout.MAX_CLASSES,
        in_use=layout.MAX_CLASSES,
        path="/match",
        device=device,
        hint="rules that compare the same fields with the same masks share one",
    )
