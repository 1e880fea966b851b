"""The receive classifier: ``ethtool -N`` and ``-n`` as the drivers answer them, by the emulated NIC's ntuple tables."""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterator

from nicoffload.errors import InvalidRequestError
from nicoffload.model import FlowRule, Masked, Match
from nicoffload.testing.emulator.answer import Refused
from nicoffload.testing.emulator.entry import Entry
from nicoffload.testing.emulator.tables import Table
from nicoffload.testing.fake_kernel import rxnfc
from nicoffload.testing.fake_kernel.drivers import facts
from nicoffload.testing.fake_kernel.errnos import as_oserror, refusal
from nicoffload.testing.fake_kernel.netdevs import queue_count
from nicoffload.testing.fake_kernel.world import FakeNetdev, FakeNic, NetdevKind

GRXRINGS, GRXCLSRLCNT, GRXCLSRULE, GRXCLSRLALL, SRXCLSRLDEL, SRXCLSRLINS = range(0x2D, 0x33)
_WITHOUT_OPERATION = frozenset({"netdevsim"})
"""Drivers without get_rxnfc and set_rxnfc."""
_ONLY_LISTED_EMPTY = frozenset({"igb"})
"""Drivers whose parts without a classifier count no rules instead of refusing (igb_get_rxnfc)."""


def answer(netdev: FakeNetdev, command: int, buffer: bytes) -> bytes:
    """Answer a command on the classifier.

    Raises:
        OSError: As the driver refuses.
    """
    nic = netdev.nic
    if nic is None or nic.profile.driver in _WITHOUT_OPERATION or netdev.kind is NetdevKind.REPRESENTOR:
        raise refusal(errno.EOPNOTSUPP)
    if len(buffer) < rxnfc.SIZE:
        raise refusal(errno.EFAULT)
    if command == GRXRINGS:
        return bytes(rxnfc.with_table(buffer, queue_count(netdev), 0))
    if netdev.kind is not NetdevKind.PF:
        raise refusal(errno.EOPNOTSUPP)
    tables = _tables(nic)
    if not tables:
        return _without_tables(nic, command, buffer)
    with as_oserror():
        match command:
            case _ if command == GRXCLSRLCNT:
                return _count(nic, tables, buffer)
            case _ if command == GRXCLSRULE:
                return _read(nic, tables, buffer)
            case _ if command == GRXCLSRLALL:
                return _list(nic, tables, buffer)
            case _ if command == SRXCLSRLINS:
                return _insert(nic, tables, buffer)
            case _:
                return _delete(nic, tables, buffer)


def _without_tables(nic: FakeNic, command: int, buffer: bytes) -> bytes:
    if nic.profile.driver not in _ONLY_LISTED_EMPTY or command == SRXCLSRLINS:
        raise refusal(errno.EOPNOTSUPP)
    if command in {GRXCLSRULE, SRXCLSRLDEL}:
        raise refusal(errno.EINVAL)
    return bytes(rxnfc.with_table(buffer, 0, 0))


def _tables(nic: FakeNic) -> list[Table]:
    named = [nic.device.table(table.name) for table in nic.profile.tables if table.mechanism == "ntuple"]
    return [table for table in named if table is not None]


def _entries(tables: list[Table]) -> Iterator[Entry]:
    """Yield the rules that ethtool sees: those of the tables, and those that others put into the same rows."""
    banks = {id(table.bank): table.bank for table in tables}
    for bank in banks.values():
        for row in sorted(bank.slots):
            yield bank.slots[row]


def _insert(nic: FakeNic, tables: list[Table], buffer: bytes) -> bytes:
    errors = tables[0].spec.errors
    try:
        asked = rxnfc.decode(buffer)
        rule = FlowRule(match=asked.match, actions=(asked.action,))
    except rxnfc.UnspeakableError as cause:
        if cause.condition == "rss_context":
            raise refusal(errno.ENOENT if "sfc" in nic.profile.driver else errno.EINVAL) from cause
        raise Refused(errors.get(cause.condition) or "EINVAL", cause.condition, str(cause)) from cause
    except InvalidRequestError as cause:  # the model can't say it, such as ports of no protocol
        raise Refused(errors.get("field") or "EINVAL", "field", str(cause)) from cause
    refused: Refused | None = None
    candidates = [table for table in tables if asked.flow_type in table.spec.types]
    for table in candidates or [tables[0]]:
        try:
            flow_type = asked.flow_type.removesuffix("_group") if not candidates else asked.flow_type
            entry = nic.device.create(table.spec.name, rule, flow_type, asked.location)
        except Refused as cause:
            refused = refused or cause
        else:
            return bytes(rxnfc.with_location(buffer, entry.slot or 0))
    assert refused is not None
    raise refused


def _read(nic: FakeNic, tables: list[Table], buffer: bytes) -> bytes:
    nic.device.check("flow_dump")
    entry = _find(tables, rxnfc.location_of(buffer))
    if entry is None:
        raise Refused(tables[0].spec.errors.get("missing_read") or "ENOENT", "missing_read", "no such rule")
    action = entry.rule.actions[0]
    shown = rxnfc.encode(buffer, entry.flow_type, _reported(entry), action, entry.slot or 0)
    if facts(nic.profile).table_size_in_list or facts(nic.profile).table_size_in_count:
        struct.pack_into("=Q", shown, 8, _size(tables))
    return bytes(shown)


def _delete(nic: FakeNic, tables: list[Table], buffer: bytes) -> bytes:
    location = rxnfc.location_of(buffer)
    entry = _find(tables, location)
    nic.device.destroy(entry.table if entry else tables[0].spec.name, None, location)
    return buffer


def _count(nic: FakeNic, tables: list[Table], buffer: bytes) -> bytes:
    nic.device.check("flow_dump")
    data = 0
    if facts(nic.profile).table_size_in_count:
        data = _size(tables)
        if tables[0].spec.picker == "driver":
            data |= rxnfc.SPECIAL
    return bytes(rxnfc.with_table(buffer, data, len(_listed(nic, tables))))


def _list(nic: FakeNic, tables: list[Table], buffer: bytes) -> bytes:
    nic.device.check("flow_dump")
    locations = _listed(nic, tables)
    room = min(rxnfc.count_of(buffer), (len(buffer) - rxnfc.LOCATIONS) // 4)
    if len(locations) > room:
        raise refusal(errno.EMSGSIZE)
    known = facts(nic.profile)
    data = _size(tables) if known.table_size_in_list or known.table_size_in_count else 0
    shown = rxnfc.with_table(buffer, data, len(locations))
    struct.pack_into(f"={len(locations)}I", shown, rxnfc.LOCATIONS, *locations)
    return bytes(shown)


def _listed(nic: FakeNic, tables: list[Table]) -> list[int]:
    if nic.device.faults.active and nic.device.faults.lies("flows"):
        return []
    return [entry.slot for entry in _entries(tables) if entry.slot is not None]


def _find(tables: list[Table], location: int) -> Entry | None:
    # Each rule of a dump is read by its location: looking at all of them for each made it quadratic.
    # Where the caller picks it, it is a row, and u32 may have put a rule into it.
    for table in tables:
        entry = table.at(location)
        if entry is None and table.spec.picker == "caller":
            entry = table.bank.slots.get(location)
        if entry is not None:
            return entry
    return None


def _size(tables: list[Table]) -> int:
    """Return the size that the driver tells: rows, or one more than the greatest id where it chooses ids."""
    if tables[0].spec.picker == "driver":
        return max(table.id_limit for table in tables)
    return tables[0].bank.rows


def _reported(entry: Entry) -> Match:
    """Return what the driver says that a rule compares: not what it dropped silently, nor what it added itself."""
    if entry.recipe.picks is None:
        return entry.rule.match
    asked = dict(entry.rule.match.shape)
    kept = zip(entry.recipe.shape, entry.filters[0][1], strict=False)
    fields = {name: Masked(value, mask) for (name, mask), value in kept if name in asked}
    return Match(**fields)
