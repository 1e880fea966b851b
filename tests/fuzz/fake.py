"""The fake kernel's decoders of requests, each with requests that it takes."""

from __future__ import annotations

import contextlib
import dataclasses
import random
import struct
from collections.abc import Callable, Iterator

from nicoffload.errors import NicOffloadError
from nicoffload.kernel.bridge import HwMode, read_hwmode, set_hwmode
from nicoffload.kernel.devlink import Devlink, EswitchMode, Handle, RateChange, RateLeaf, RateNode
from nicoffload.kernel.features import FeatureName, read_features, set_feature
from nicoffload.kernel.netlink import Netlink
from nicoffload.kernel.ntuple import NtupleTable
from nicoffload.kernel.seam import NETLINK_GENERIC, NETLINK_ROUTE
from nicoffload.kernel.tc import (
    Hook,
    Placing,
    PoliceRate,
    QueueMapping,
    TcFilter,
    TcFilters,
    U32Filters,
    qdisc,
)
from nicoffload.kernel.veth import links
from nicoffload.kernel.vf import VfLink
from nicoffload.model import Match
from nicoffload.registry import load_registry
from nicoffload.testing import FakeKernel
from nicoffload.testing.emulator.config import Config
from nicoffload.testing.fake_kernel.errnos import WouldWaitForeverError
from tests.fuzz.run import Decoder
from tests.kernel.random_filters import random_filters, random_u32
from tests.kernel.random_ntuple import random_rules
from tests.kernel.random_vfs import random_requests

_HEADER = 16
_PF, _OTHERS = 2, (3, 4)
_IFNAME = "enp3s0f0"
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


def _ever_new(family: str) -> Iterator[FakeKernel]:
    """Yield a kernel for each message."""
    return (kernel for _ in iter(int, 1) for kernel in [_kernel(family)] * _ANEW)


_SWITCHED, _FILTERED, _WRITTEN = _ever_new("ice"), _ever_new("ixgbe"), _ever_new("ice")


def _decode(family: str) -> Callable[[bytes], None]:
    """Return what lets a fake kernel work on a datagram: it answers whatever comes, and raises nothing."""
    made = _ever_new(family)

    def decode(datagram: bytes) -> None:
        for answer in next(made).route.handle(datagram):
            assert struct.unpack_from("=I", answer)[0] <= len(answer)

    return decode


def _generic(datagram: bytes) -> None:
    """Send a datagram to devlink or the controller; the kernel is made anew as for the other decoders."""
    channel = next(_SWITCHED).open_netlink(NETLINK_GENERIC)
    try:
        channel.send(datagram)
        with contextlib.suppress(TimeoutError):
            while True:
                answer = channel.receive(0)
                assert struct.unpack_from("=I", answer)[0] <= len(answer)
    finally:
        channel.close()


def _ioctl(buffer: bytes) -> None:
    """Hand a buffer to the ioctl; a refusal is an answer."""
    with contextlib.suppress(OSError):
        assert len(next(_FILTERED).ethtool(_IFNAME, buffer)) == len(buffer)


def _sent(family: str, send: Callable[[FakeKernel], object], kind: str = "netlink") -> list[bytes]:
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
        if one.kind == kind
        for start, length in ([(0, len(one.data))] if kind == "ethtool" else _places(one.data))
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
        standing = filters.add_many(
            [
                *made[:20],
                TcFilter(
                    match=Match.of(eth_type=0x0800),
                    actions=(QueueMapping(queue=3),),
                    pref=9000,
                    placing=Placing.HARDWARE,
                ),
            ]
        )
        limit = (PoliceRate(rate_bytes_per_s=1_000_000, burst_bytes=9000),)
        standing += filters.add_many([TcFilter(match=Match(), actions=limit, pref=9001)], kind="matchall")
        filters.dump()
        filters.counters()
        filters.delete_many([one for one in standing if not isinstance(one, Exception)])


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
    with Netlink(kernel, NETLINK_ROUTE) as netlink:
        links(netlink)
        for mode in (HwMode.VEPA, HwMode.VEB):
            with contextlib.suppress(NicOffloadError):
                set_hwmode(netlink, _PF, mode)
            read_hwmode(netlink, _PF)
        qdisc.find(netlink, _PF)
        qdisc.delete(netlink, _PF)
        qdisc.ensure(netlink, _PF)


def _devlink(kernel: FakeKernel) -> None:
    handle = Handle(bus="pci", name="0000:03:00.0")
    with Devlink(kernel) as devlink:
        for mode in (EswitchMode.LEGACY, EswitchMode.SWITCHDEV):
            with contextlib.suppress(NicOffloadError):
                devlink.set_eswitch(handle, mode=mode)
        devlink.create_node(handle, RateNode(name="group"), RateChange(tx_max_bps=8_000_000))
        leaf = next(rate.ref for rate in devlink.rates(handle) if isinstance(rate.ref, RateLeaf))
        devlink.set_rate(handle, leaf, RateChange(tx_share_bps=8_000_000, parent="group"))
        devlink.create_node(handle, RateNode(name="inner"))
        with contextlib.suppress(NicOffloadError):  # not every driver nests them
            devlink.set_rate(handle, RateNode(name="inner"), RateChange(parent="group"))
        devlink.delete_node(handle, RateNode(name="inner"))
        for change in (RateChange(tx_priority=1), RateChange(tx_weight=2)):
            with contextlib.suppress(NicOffloadError):
                devlink.set_rate(handle, leaf, change)
        devlink.set_rate(handle, leaf, RateChange(parent=""))
        devlink.eswitch(handle)
        devlink.delete_node(handle, RateNode(name="group"))
        for port in devlink.ports(handle):
            devlink.port(handle, port.index)
            with contextlib.suppress(NicOffloadError):
                devlink.set_function(handle, port.index, hw_addr=0x020000000007)
        devlink.info(handle)


def _ethtool(kernel: FakeKernel) -> None:
    table = NtupleTable(kernel, _IFNAME)
    for rule in random_rules(30, 5):
        with contextlib.suppress(NicOffloadError):
            table.insert(rule)
    for state in table.rules():
        table.delete(state.location)
    read_features(kernel, _IFNAME)
    set_feature(kernel, _IFNAME, FeatureName.NTUPLE, on=False)
    set_feature(kernel, _IFNAME, FeatureName.HW_TC_OFFLOAD, on=False)


def _write(data: bytes) -> None:
    """Write a file below /sys, of which the first line is the path, and read it."""
    path, _, text = data.partition(b"\n")
    kernel = next(_WRITTEN)
    with contextlib.suppress(OSError, WouldWaitForeverError):
        kernel.write_sysfs(path.decode("utf-8", "surrogateescape"), text)
    with contextlib.suppress(OSError):
        kernel.read_sysfs(path.decode("utf-8", "surrogateescape"))


_FOLDER = b"bus/pci/devices/0000:03:00.0"
_WRITES = (
    _FOLDER + b"/sriov_numvfs\n0",
    _FOLDER + b"/sriov_numvfs\n2\n",
    _FOLDER + b"/sriov_drivers_autoprobe\n0",
    _FOLDER + b"/virtfn1/driver_override\nvfio-pci\n",
    _FOLDER + b"/virtfn1/reset\n1",
    _FOLDER + b"/virtfn0/driver/unbind\n0000:03:10.0",
    b"bus/pci/drivers_probe\n0000:03:10.0",
    b"class/net/enp3s0f0/device/sriov_totalvfs\n4",
)


def fake() -> list[Decoder]:
    """Return the decoders, each over the emulated NIC that drives most of it."""
    netlink = [
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
    return [
        *netlink,
        Decoder(
            name="fake.generic",
            seeds=_sent("ice", _devlink),
            decode=_generic,
            head=_HEADER + 4,
            framed=True,
            always_named=False,
        ),
        Decoder(
            name="fake.ethtool", seeds=_sent("ixgbe", _ethtool, "ethtool"), decode=_ioctl, always_named=False
        ),
        Decoder(name="fake.sysfs", seeds=_WRITES, decode=_write, head=len(_FOLDER), always_named=False),
    ]
