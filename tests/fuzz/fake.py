"""The fake kernel's decoders of requests, each with requests that it takes."""

from __future__ import annotations

import dataclasses
import random
import struct
from collections.abc import Callable, Iterator

from nicoffload.kernel.tc import Hook, Placing, TcFilters, U32Filters
from nicoffload.kernel.vf import VfLink
from nicoffload.registry import load_registry
from nicoffload.testing import FakeKernel
from nicoffload.testing.emulator.config import Config
from tests.fuzz.run import Decoder
from tests.kernel.random_filters import random_filters, random_u32
from tests.kernel.random_vfs import random_requests

_HEADER = 16
_PF, _OTHERS = 2, (3, 4)
_ANEW = 2000
"""After so many messages the kernel is a new one: what it keeps is the messages', and no decoder's fault."""


def _kernel(family: str) -> FakeKernel:
    kernel = FakeKernel()
    kernel.plug(load_registry().profiles.get(family), config=Config(prepared=True, vfs=2))
    clsact = (
        struct.pack("=BxxxiIII", 0, _PF, 0xFFFF0000, 0xFFFFFFF1, 0)
        + struct.pack("=HH", 11, 1)
        + b"clsact\0\0"
    )
    kernel.route.handle(struct.pack("=IHHII", _HEADER + len(clsact), 36, 0x605, 1, 0) + clsact)
    return kernel


def _decode(family: str) -> Callable[[bytes], None]:
    """Return what lets a fake kernel work on a datagram: it answers whatever comes, and raises nothing."""
    made: Iterator[FakeKernel] = (kernel for _ in iter(int, 1) for kernel in [_kernel(family)] * _ANEW)

    def decode(datagram: bytes) -> None:
        for answer in next(made).route.handle(datagram):
            assert struct.unpack_from("=I", answer)[0] <= len(answer)

    return decode


def _sent(family: str, send: Callable[[FakeKernel], object]) -> list[bytes]:
    """Return the messages that a piece of the kernel layer sends to a fake kernel."""
    kernel = _kernel(family)
    kernel.requests.clear()
    state = random.getstate()
    random.seed(1)
    send(kernel)
    random.setstate(state)
    return [
        one.data[start : start + length]
        for one in kernel.requests
        for start, length in _places(one.data)
        if one.kind == "netlink"
    ]


def _places(datagram: bytes) -> Iterator[tuple[int, int]]:
    start = 0
    while start < len(datagram):
        length = struct.unpack_from("=I", datagram, start)[0]
        yield start, length
        start += length + 3 & ~3


def _flower(kernel: FakeKernel) -> None:
    with TcFilters(kernel, Hook.ingress(_PF)) as filters:
        made = random_filters(60, list(_OTHERS), [Placing.BOTH, Placing.HARDWARE])
        for item in made:
            outcome = filters.add_many([dataclasses.replace(item, handle=item.handle | 1 << 31)])
            filters.delete_many([one for one in outcome if not isinstance(one, Exception)])
        filters.dump()
        filters.counters()


def _u32(kernel: FakeKernel) -> None:
    with U32Filters(kernel, Hook.ingress(_PF)) as filters:
        filters.add_table(4000, 5)
        for item in random_u32(30, list(_OTHERS)):
            filters.add_many([item])
        filters.dump()


def _links(kernel: FakeKernel) -> None:
    with VfLink(kernel, _PF) as link:
        link.apply(random_requests(8, 2))
        link.read()
        link.traffic(None)


def fake() -> list[Decoder]:
    """Return the decoders, each over the emulated NIC that drives most of it."""
    return [
        Decoder(
            name=f"fake.{name}",
            seeds=_sent(family, send),
            decode=_decode(family),
            head=head,
            framed=True,
            always_named=False,
        )
        for name, family, send, head in (
            ("flower", "mlx5", _flower, _HEADER + 20),
            ("u32", "ixgbe", _u32, _HEADER + 20),
            ("links", "i40e", _links, _HEADER),
        )
    ]
