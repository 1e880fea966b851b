"""What a rule does with a packet that it matches."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

from nicoffload.errors import InvalidRequestError
from nicoffload.model.fields import FIELDS
from nicoffload.model.match import Masked

MAX_VF_INDEX = 4095
MAX_RATE_BPS = 1_600_000_000_000
"""The fastest Ethernet port there is (1.6 Tbit/s): a higher rate is a slip of the pen."""


def check_range(name: str, value: int, low: int, high: int, path: str = "") -> None:
    """Raise `InvalidRequestError` unless `value` lies within `low` and `high`."""
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise InvalidRequestError(f"{name} is {value!r}, not a whole number from {low} to {high}", path=path)


@dataclass(frozen=True, slots=True, kw_only=True)
class ToVf:
    """Deliver to a virtual function, and so to the VM that holds it.

    Args:
        vf: Index of the VF, from 0.
        queue: Receive queue within the VF, from 0.
    """

    vf: int
    queue: int = 0

    def __post_init__(self) -> None:
        check_range("vf", self.vf, 0, MAX_VF_INDEX, "/actions")
        check_range("queue", self.queue, 0, 0xFFFF, "/actions")


@dataclass(frozen=True, slots=True, kw_only=True)
class ToQueue:
    """Deliver to a receive queue of the physical function (which may have been handed to a VM).

    Args:
        queue: Index of the queue, from 0.
    """

    queue: int

    def __post_init__(self) -> None:
        check_range("queue", self.queue, 0, 0xFFFF, "/actions")


@dataclass(frozen=True, slots=True, kw_only=True)
class ToPf:
    """Deliver to the physical function, where the host's virtual switch takes it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ToUplink:
    """Send out of the physical port."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Drop:
    """Throw the packet away."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mirror:
    """Deliver a copy to a port of the NIC's switch and go on.

    Args:
        port: Number of the switch port: 0 uplink, 1 PF, 2 + N for VF N.
    """

    port: int

    def __post_init__(self) -> None:
        check_range("port", self.port, 0, MAX_VF_INDEX + 2, "/actions")


@dataclass(frozen=True, slots=True, kw_only=True)
class Police:
    """Drop what exceeds a rate.

    Args:
        rate_bps: Bits per second, 1 to 1.6e12.
        burst_bytes: Size of the token bucket, in bytes.
    """

    rate_bps: int
    burst_bytes: int

    def __post_init__(self) -> None:
        check_range("rate_bps", self.rate_bps, 1, MAX_RATE_BPS, "/actions")
        check_range("burst_bytes", self.burst_bytes, 1, 1 << 32, "/actions")


@dataclass(frozen=True, slots=True, kw_only=True)
class PushVlan:
    """Add a VLAN tag.

    Args:
        vid: 0 to 4095.
        pcp: 0 to 7.
        tpid: 0x8100 or 0x88a8.
    """

    vid: int
    pcp: int = 0
    tpid: int = 0x8100

    def __post_init__(self) -> None:
        check_range("vid", self.vid, 0, 4095, "/actions")
        check_range("pcp", self.pcp, 0, 7, "/actions")
        if self.tpid not in (0x8100, 0x88A8):
            raise InvalidRequestError(
                f"VLAN protocol {self.tpid:#x} is neither 0x8100 nor 0x88a8", path="/actions"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class PopVlan:
    """Remove the outer VLAN tag."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModifyVlan:
    """Change id and priority of the outer VLAN tag.

    Args:
        vid: 0 to 4095.
        pcp: 0 to 7.
    """

    vid: int
    pcp: int = 0

    def __post_init__(self) -> None:
        check_range("vid", self.vid, 0, 4095, "/actions")
        check_range("pcp", self.pcp, 0, 7, "/actions")


@dataclass(frozen=True, slots=True, kw_only=True)
class SetField:
    """Rewrite a header field.

    Args:
        field: Name in `nicoffload.model.FIELDS`.
        value: The new bits and which bits are rewritten.
    """

    field: str
    value: Masked

    def __post_init__(self) -> None:
        spec = FIELDS.get(self.field)
        if spec is None:
            raise InvalidRequestError(f"no such field: {self.field!r}", path="/actions")
        if self.value.mask > spec.full_mask:
            raise InvalidRequestError(
                f"the value does not fit {spec.bits} bits", path=f"/actions/{self.field}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class TunnelSet:
    """Wrap the packet into a tunnel.

    Args:
        tun_id: Tunnel key (VNI), 24 bits.
        src: Outer source address, IPv4 or IPv6, as text.
        dst: Outer destination address, of the same family.
        tp_dst: Outer UDP destination port.
    """

    tun_id: int
    src: str
    dst: str
    tp_dst: int = 4789

    def __post_init__(self) -> None:
        check_range("tun_id", self.tun_id, 0, 0xFFFFFF, "/actions")
        check_range("tp_dst", self.tp_dst, 1, 0xFFFF, "/actions")
        try:
            ends = [ipaddress.ip_address(self.src), ipaddress.ip_address(self.dst)]
        except ValueError as cause:
            raise InvalidRequestError(f"tunnel end: {cause}", path="/actions") from cause
        if ends[0].version != ends[1].version:
            raise InvalidRequestError("the two ends of a tunnel are of one address family", path="/actions")


@dataclass(frozen=True, slots=True, kw_only=True)
class TunnelUnset:
    """Unwrap the packet from its tunnel."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Count:
    """Count packets and bytes of this rule; asks for a counter where the NIC has one only on request."""


Action = (
    ToVf
    | ToQueue
    | ToPf
    | ToUplink
    | Drop
    | Mirror
    | Police
    | PushVlan
    | PopVlan
    | ModifyVlan
    | SetField
    | TunnelSet
    | TunnelUnset
    | Count
)

ACTION_NAMES: dict[type[Action], str] = {
    ToVf: "vf",
    ToQueue: "queue",
    ToPf: "pf",
    ToUplink: "uplink",
    Drop: "drop",
    Mirror: "mirror",
    Police: "police",
    PushVlan: "push_vlan",
    PopVlan: "pop_vlan",
    ModifyVlan: "mod_vlan",
    SetField: "set_field",
    TunnelSet: "tunnel_set",
    TunnelUnset: "tunnel_unset",
    Count: "count",
}
"""The name of each action in text, JSON and NIC profiles."""

FATES: frozenset[str] = frozenset({"vf", "queue", "pf", "uplink", "drop"})
"""Actions that end a packet's way; a rule has exactly one."""
