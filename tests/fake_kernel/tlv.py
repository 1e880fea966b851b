"""Attributes cut apart for tests, by code that neither side uses."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping

ACT_AT = {"flower": 3, "matchall": 2, "u32": 7}
FLAGS_AT = {"flower": 22, "matchall": 3, "u32": 11}
_TAGS = {23, 24, 77, 78}
_PARMS_AT = {"csum": (1,), "police": (1,), "pedit": (2, 4)}
_TIMES_AT = {"csum": 2, "police": 6}
_PAD_OF_OPTIONS = {
    "police": 7,
    "pedit": 3,
    "gact": 4,
    "mirred": 3,
    "vlan": 5,
    "csum": 3,
    "tunnel_key": 8,
    "skbedit": 6,
}
_PAD_OF_CLASSIFIER = {"matchall": 5, "u32": 12}


def split(data: bytes) -> list[tuple[int, bytes]]:
    """Return kind and payload of each attribute; a test's data has no others."""
    found, start = [], 0
    while start < len(data):
        length, kind = struct.unpack_from("=HH", data, start)
        assert length >= 4
        found.append((kind & 0x3FFF, data[start + 4 : start + length]))
        start += length + 3 & ~3
    return found


def join(parts: list[tuple[int, bytes]]) -> bytes:
    """Return attributes with these payloads."""
    return b"".join(
        struct.pack("=HH", 4 + len(payload), kind) + payload + bytes(-len(payload) % 4)
        for kind, payload in parts
    )


def text(payload: bytes) -> str:
    return payload.rstrip(b"\0").decode()


def messages(datagrams: list[bytes]) -> Iterator[tuple[int, bytes]]:
    """Yield type and payload of each message."""
    for datagram in datagrams:
        start = 0
        while start < len(datagram):
            length, kind = struct.unpack_from("=IH", datagram, start)
            yield kind, datagram[start + 16 : start + length]
            start += length + 3 & ~3


def named(payload: bytes, roles: Mapping[int, int]) -> bytes:
    """Return a dumped filter or qdisc with roles of devices for their numbers, without times and hits of keys."""
    ifindex = struct.unpack_from("=i", payload, 4)[0]
    head = payload[:4] + struct.pack("=i", roles.get(ifindex, ifindex)) + payload[8:20]
    parts = split(payload[20:])
    kind = text(dict(parts)[1])
    if kind not in ACT_AT:
        return head[:16] + bytes(4) + join([part for part in parts if part[0] in {1, 13, 14}])

    def change(number: int, data: bytes) -> bytes:
        # The hits of u32's keys are counted by some kernels only.
        return each(without(data, 9 if kind == "u32" else None), options) if number == 2 else data

    def options(number: int, data: bytes) -> bytes:
        return each(data, action) if number == ACT_AT[kind] else data

    def action(_: int, entry: bytes) -> bytes:
        action_kind = text(dict(split(entry))[1])
        places = _PARMS_AT.get(action_kind, (2,))

        def parameters(number: int, data: bytes) -> bytes:
            if number not in places:
                return data
            # Numbers of actions that are gone come back only after a grace period.
            return bytes(4) + (mirred(number, data) if action_kind == "mirred" else data)[4:]

        return each(entry, lambda number, data: each(data, parameters) if number == 2 else data)

    def mirred(number: int, data: bytes) -> bytes:
        if number != 2:
            return data
        target = struct.unpack_from("=I", data, 24)[0]
        return data[:24] + struct.pack("=I", roles.get(target, target))

    return head + each(timeless(payload)[20:], change)


def timeless(payload: bytes) -> bytes:
    """Return a dumped filter without what no two dumps have in common: times, counts, and padding of 64 bits.

    Linux puts padding before 64 bits only on machines that want them aligned, such as user-mode Linux.
    """
    parts = split(payload[20:])
    kind = text(dict(parts)[1])
    return payload[:20] + join([(n, _options(kind, data) if n == 2 else data) for n, data in parts])


def each(data: bytes, change: Callable[[int, bytes], bytes]) -> bytes:
    """Return attributes with their payloads changed."""
    return join([(number, change(number, payload)) for number, payload in split(data)])


def without(data: bytes, *numbers: int | None) -> bytes:
    return join([(number, payload) for number, payload in split(data) if number not in numbers])


def _options(kind: str, data: bytes) -> bytes:
    hits = 4 if kind == "matchall" else None
    return each(
        without(data, _PAD_OF_CLASSIFIER.get(kind), hits),
        lambda number, payload: each(payload, _action) if number == ACT_AT[kind] else payload,
    )


def _action(_: int, entry: bytes) -> bytes:
    kind = text(dict(split(entry))[1])

    def change(number: int, payload: bytes) -> bytes:
        if number == 4:
            return each(without(payload, 6), lambda _, counts: bytes(len(counts)))
        return _action_options(kind, payload) if number == 2 else payload

    return each(without(entry, 5), change)


def _action_options(kind: str, data: bytes) -> bytes:
    times = _TIMES_AT.get(kind, 1)
    return each(
        without(data, _PAD_OF_OPTIONS[kind]),
        lambda number, payload: bytes(len(payload)) if number == times else payload,
    )


def as_request(payload: bytes) -> bytes:
    """Return a dumped filter as the request that asks for it.

    The kernel tells flags of its own, keeps no table of a police, and gives the innermost Ethernet type as that of a
    tagged packet.
    """
    kind = text(dict(split(payload[20:]))[1])

    def change(number: int, data: bytes) -> bytes:
        if number != 2:
            return data
        asked = each(data, lambda n, one: _asked(kind, n, one))
        if kind == "flower" and _TAGS & {n for n, _ in split(asked)}:
            asked = join([(8, payload[16:18])]) + without(asked, 8)
        return asked

    return payload[:20] + each(payload[20:], change)


def _asked(kind: str, number: int, payload: bytes) -> bytes:
    if number == FLAGS_AT[kind]:
        return struct.pack("=I", struct.unpack("=I", payload)[0] & 3)
    return each(payload, _asked_action) if number == ACT_AT[kind] else payload


def _asked_action(_: int, entry: bytes) -> bytes:
    police = text(dict(split(entry))[1]) == "police"
    return each(entry, lambda number, payload: _asked_police(payload) if police and number == 2 else payload)


def _asked_police(options: bytes) -> bytes:
    """Return the options with the cell size and the table of rates, which the kernel wants and does not keep."""
    parameters = dict(split(options))[1]
    if not struct.unpack_from("=I", parameters, 28)[0]:
        return options
    cells = parameters[:20] + b"\x0d" + parameters[21:]
    return each(options, lambda number, payload: cells if number == 1 else payload) + join([(2, bytes(1024))])
