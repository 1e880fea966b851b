"""What tc knows: where filters hang, what they do, and what is read of them. Frozen values, units in their names."""

from __future__ import annotations

import enum
import ipaddress
import uuid
from dataclasses import dataclass

from nicoffload.errors import InvalidRequestError
from nicoffload.model import Masked, Match
from nicoffload.model.action import check_range

MAX_CHAIN = 0x0FFF_FFFF
TPIDS = (0x8100, 0x88A8)


@dataclass(frozen=True, slots=True)
class Hook:
    """Where filters hang: one side of a device, or a block that devices share.

    Args:
        ifindex: Index of the device; -1 for a shared block.
        parent: Handle of the qdisc's hook, or the block's number.
    """

    ifindex: int
    parent: int

    @classmethod
    def ingress(cls, ifindex: int) -> Hook:
        """Return what ``tc filter … dev NIC ingress`` names, with a qdisc clsact."""
        return cls(ifindex, 0xFFFF_FFF2)

    @classmethod
    def egress(cls, ifindex: int) -> Hook:
        """Return what ``tc filter … dev NIC egress`` names, with a qdisc clsact."""
        return cls(ifindex, 0xFFFF_FFF3)

    @classmethod
    def ingress_qdisc(cls, ifindex: int) -> Hook:
        """Return what ``tc filter … dev NIC parent ffff:`` names, with a qdisc ingress (Open vSwitch's)."""
        return cls(ifindex, 0xFFFF_0000)

    @classmethod
    def block(cls, number: int) -> Hook:
        """Return what ``tc filter … block N`` names."""
        check_range("block", number, 1, 0xFFFF_FFFF)
        return cls(-1, number)


class Placing(enum.Enum):
    """Who is to run a filter."""

    BOTH = 0
    """The NIC where it can, and the kernel. A driver that refuses does so silently: read `FilterState.in_hw`."""
    SOFTWARE = 1
    """The kernel only (``skip_hw``)."""
    HARDWARE = 2
    """The NIC only (``skip_sw``); a driver's refusal is an error."""


class Verdict(enum.Enum):
    """What a `Gact` does."""

    PASS = 0
    DROP = 2
    PIPE = 3
    TRAP = 8
    """Hand to the host without further filters of the NIC."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gact:
    """End, or go on. Equivalent to: ``action ok|drop|pipe|trap``."""

    verdict: Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class GotoChain:
    """Go on with another chain. Equivalent to: ``action goto chain N``."""

    chain: int

    def __post_init__(self) -> None:
        check_range("chain", self.chain, 0, MAX_CHAIN)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mirred:
    """Send the packet or a copy to a device. Equivalent to: ``action mirred egress redirect|mirror dev NIC``.

    Args:
        ifindex: The device.
        copy: A copy, and go on; else the packet itself, and end.
        ingress: As if it came in there; else out of it.
    """

    ifindex: int
    copy: bool = False
    ingress: bool = False

    def __post_init__(self) -> None:
        check_range("ifindex", self.ifindex, 1, 0x7FFF_FFFF)


@dataclass(frozen=True, slots=True, kw_only=True)
class VlanPush:
    """Equivalent to: ``action vlan push id VID priority PCP protocol TPID``."""

    vid: int
    pcp: int = 0
    tpid: int = 0x8100

    def __post_init__(self) -> None:
        check_range("vid", self.vid, 0, 4095)
        check_range("pcp", self.pcp, 0, 7)
        _check_tpid(self.tpid)


@dataclass(frozen=True, slots=True, kw_only=True)
class VlanPop:
    """Equivalent to: ``action vlan pop``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VlanModify:
    """Equivalent to: ``action vlan modify id VID priority PCP``.

    Args:
        vid: 0 to 4095.
        pcp: 0 to 7; None keeps the packet's.
        tpid: 0x8100 or 0x88a8.
    """

    vid: int
    pcp: int | None = None
    tpid: int = 0x8100

    def __post_init__(self) -> None:
        check_range("vid", self.vid, 0, 4095)
        if self.pcp is not None:
            check_range("pcp", self.pcp, 0, 7)
        _check_tpid(self.tpid)


class Header(enum.Enum):
    """Which header a `PeditKey` counts from; the numbers are the kernel's."""

    NETWORK = 0
    ETH = 1
    IP4 = 2
    IP6 = 3
    TCP = 4
    UDP = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class PeditKey:
    """Bits of one 32-bit word to write.

    Args:
        header: Where `offset` counts from.
        offset: In bytes, a multiple of 4; negative reaches before the header.
        mask: Bits to write, the word read in network order.
        value: The bits, none outside the mask.
        add: Add the value rather than write it.
    """

    header: Header
    offset: int
    mask: int
    value: int
    add: bool = False

    def __post_init__(self) -> None:
        check_range("offset", self.offset, -0x8000_0000, 0x7FFF_FFFF)
        check_range("mask", self.mask, 0, 0xFFFF_FFFF)
        check_range("value", self.value, 0, 0xFFFF_FFFF)
        if self.offset % 4 or self.value & ~self.mask:
            raise InvalidRequestError("a pedit key's offset is a multiple of 4, its value within its mask")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pedit:
    """Rewrite header bits. Equivalent to: ``action pedit ex munge …``; checksums are `Csum`'s business."""

    keys: tuple[PeditKey, ...]

    def __post_init__(self) -> None:
        check_range("number of pedit keys", len(self.keys), 1, 255)


class Checksum(enum.Flag):
    """Which checksums `Csum` makes anew; the numbers are the kernel's."""

    IPV4 = 1
    ICMP = 2
    IGMP = 4
    TCP = 8
    UDP = 16
    UDPLITE = 32
    SCTP = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Csum:
    """Make checksums anew. Equivalent to: ``action csum ip4h and tcp``."""

    update: Checksum


@dataclass(frozen=True, slots=True, kw_only=True)
class TunnelKeySet:
    """Wrap into a tunnel, on the way to a tunnel device. Equivalent to: ``action tunnel_key set …``.

    Args:
        key_id: Tunnel key, 32 bits; None leaves it out.
        src: Outer source.
        dst: Outer destination, of the same family.
        tp_dst: Outer UDP destination port; None leaves it out.
        csum: Whether the outer header gets a checksum.
    """

    key_id: int | None
    src: ipaddress.IPv4Address | ipaddress.IPv6Address
    dst: ipaddress.IPv4Address | ipaddress.IPv6Address
    tp_dst: int | None = None
    csum: bool = True

    def __post_init__(self) -> None:
        if self.key_id is not None:
            check_range("key_id", self.key_id, 0, 0xFFFF_FFFF)
        if self.tp_dst is not None:
            check_range("tp_dst", self.tp_dst, 1, 0xFFFF)
        if self.src.version != self.dst.version:
            raise InvalidRequestError("the two ends of a tunnel are of one address family")


@dataclass(frozen=True, slots=True, kw_only=True)
class TunnelKeyUnset:
    """Forget the tunnel that a packet came out of. Equivalent to: ``action tunnel_key unset``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PoliceRate:
    """Drop what exceeds a rate. Equivalent to: ``action police rate R burst B conform-exceed drop/pipe``.

    Args:
        rate_bytes_per_s: 1 to 2^63; above 2^32 (34 Gbit/s) the kernel holds it in 64 bits.
        burst_bytes: Size of the bucket. The kernel holds it as time, in steps of 64 ns at this rate.
        drop: Drop what exceeds; else only count it.
    """

    rate_bytes_per_s: int
    burst_bytes: int
    drop: bool = True

    def __post_init__(self) -> None:
        check_range("rate_bytes_per_s", self.rate_bytes_per_s, 1, (1 << 63) - 1)
        check_range("burst_bytes", self.burst_bytes, 1, 1 << 32)


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicePackets:
    """Drop what exceeds a rate of packets. Equivalent to: ``action police pkts_rate R pkts_burst B …``."""

    rate_packets_per_s: int
    burst_packets: int
    drop: bool = True

    def __post_init__(self) -> None:
        check_range("rate_packets_per_s", self.rate_packets_per_s, 1, (1 << 63) - 1)
        check_range("burst_packets", self.burst_packets, 1, 1 << 32)


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueMapping:
    """Choose a queue. Equivalent to: ``action skbedit queue_mapping N [skip_sw]``.

    Args:
        queue: 0 to 65535.
        hardware: A receive queue, which only the NIC can choose: the filter has to be `Placing.HARDWARE`. Else a
            transmit queue, which the kernel chooses at egress.
    """

    queue: int
    hardware: bool = True

    def __post_init__(self) -> None:
        check_range("queue", self.queue, 0, 0xFFFF)


@dataclass(frozen=True, slots=True, kw_only=True)
class UnknownAction:
    """An action of somebody else that has no form here; read only.

    Args:
        kind: Its name in tc.
        detail: What of it is unknown.
    """

    kind: str
    detail: str


TcAction = (
    Gact
    | GotoChain
    | Mirred
    | VlanPush
    | VlanPop
    | VlanModify
    | Pedit
    | Csum
    | TunnelKeySet
    | TunnelKeyUnset
    | PoliceRate
    | PolicePackets
    | QueueMapping
    | UnknownAction
)


OUR_HANDLES = 0x8000_0000
"""The first of our handles. A cookie of 16 bytes alone makes no filter ours: Open vSwitch's have one as well. But it
lets the kernel choose handles, and flower and matchall count those up from 1 to 0x7fffffff."""


def our_handle(rule_id: uuid.UUID, attempt: int = 0) -> int:
    """Return a handle of `OUR_HANDLES` for a rule. Of 65,000 rules two share one; another attempt parts them."""
    return OUR_HANDLES | (rule_id.int + attempt * _STEP) % OUR_HANDLES


_STEP = 0x4F1B_BCDD  # odd, so that the attempts of one rule go through all handles


@dataclass(frozen=True, slots=True, kw_only=True)
class TcFilter:
    """A filter of flower or matchall, as asked for.

    Args:
        match: Which packets, without `in_port` (the hook is it); matchall's is empty.
        actions: What to do, in order.
        pref: 1 to 65535, lower first. All filters of one pref in a chain have one protocol and one kind.
        handle: Names the filter within chain and pref; 0: the kernel chooses, or for a rule id `TcFilters`.
        chain: 0 is where packets begin.
        placing: Who is to run it.
        rule_id: Kept in the cookie of the first action. Its filter has a handle of `OUR_HANDLES`.
        hw_tc: Traffic class of the NIC to deliver to, where a driver takes that in place of actions.
        outer_tpid: Protocol of the outer VLAN tag, where the match names it.
        inner_tpid: Protocol of the second one.
    """

    match: Match
    actions: tuple[TcAction, ...]
    pref: int
    handle: int = 0
    chain: int = 0
    placing: Placing = Placing.BOTH
    rule_id: uuid.UUID | None = None
    hw_tc: int | None = None
    outer_tpid: int = 0x8100
    inner_tpid: int = 0x8100

    def __post_init__(self) -> None:
        if not (
            1 <= self.pref <= 0xFFFF and 0 <= self.handle <= 0xFFFF_FFFF and 0 <= self.chain <= MAX_CHAIN
        ):
            check_range("pref", self.pref, 1, 0xFFFF)
            check_range("handle", self.handle, 0, 0xFFFF_FFFF)
            check_range("chain", self.chain, 0, MAX_CHAIN)
        if self.hw_tc is not None:
            check_range("hw_tc", self.hw_tc, 0, 15)
        if self.outer_tpid != 0x8100 or self.inner_tpid != 0x8100:
            _check_tpid(self.outer_tpid)
            _check_tpid(self.inner_tpid)


@dataclass(frozen=True, slots=True, kw_only=True)
class FilterRef:
    """Where a filter is.

    Args:
        pref: Its pref.
        handle: Its handle.
        chain: Its chain.
        protocol: Its Ethernet type, 3 for all.
        kind: ``flower``, ``matchall`` or ``u32``.
    """

    pref: int
    handle: int
    chain: int
    protocol: int
    kind: str

    @property
    def ours(self) -> bool:
        """Whether flower's or matchall's handle is one of ours, with a rule id in the cookie or without."""
        return self.kind != "u32" and self.handle >= OUR_HANDLES


@dataclass(frozen=True, slots=True, kw_only=True)
class Counters:
    """Counters of one filter. The totals hold the hardware's share.

    Args:
        packets: All.
        bytes: All. At ingress the kernel counts them without the Ethernet header, at egress with it; what a NIC
            counts, its profile says.
        hw_packets: Of them, by the NIC; None where the kernel does not tell them apart.
        hw_bytes: Of them, by the NIC.
        idle_ns: Time since the last packet, in steps of 10 ms; None where there was none or it was not asked for.
    """

    packets: int
    bytes: int
    hw_packets: int | None
    hw_bytes: int | None
    idle_ns: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class FilterState:
    """A filter as read.

    Args:
        ref: Where it is.
        filter: What it says; of a filter with `foreign` parts, what could be read of it.
        in_hw: Whether the NIC runs it, as the kernel says; None where it does not say.
        in_hw_count: How many devices run it; None where it does not say.
        counters: Its counters; None where it has no action to count.
        foreign: What of it has no form here, in words; such a filter is somebody else's.
    """

    ref: FilterRef
    filter: TcFilter
    in_hw: bool | None
    in_hw_count: int | None
    counters: Counters | None
    foreign: tuple[str, ...] = ()


def masked(value: int, mask: int) -> Masked:
    """Return a masked value; bits outside the mask, which a kernel may keep, are cleared."""
    return Masked(value & mask, mask)


def _check_tpid(tpid: int) -> None:
    if tpid not in TPIDS:
        raise InvalidRequestError(f"VLAN protocol {tpid:#x} is neither 0x8100 nor 0x88a8")
