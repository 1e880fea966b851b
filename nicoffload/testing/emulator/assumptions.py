"""What the emulator assumes where no profile says: the one list of its inventions, shown in `capabilities`."""

from __future__ import annotations

from collections.abc import Iterable

LINK_BPS = 10_000_000_000
"""Speed of the port, unless the name says ``link_bps=``."""

TABLE_ROWS = 1024
"""Rows of a table with locations whose capacity only the device knows, unless the name says ``rows.<table>=``."""

SWITCH_ROWS = 65_536
"""The same for a table without locations: those lie in the memory of the switch, and hold far more."""

MAX_VFS = 64
"""VFs of a family whose limit only the device knows."""

START_VFS = 8
"""VFs that a prepared NIC starts with, where it can have so many."""

PF_QUEUES = 16
"""Receive queues of the physical function."""

QUEUES_PER_VF = 1
"""Receive queues of a VF, where no source states them."""

RESET_NS = 100_000_000
"""How long a VF takes to reset: an i40e waits up to 300 ms for one before it says EAGAIN."""

BUSY_WAIT_NS = 10_000_000
"""How far the clock moves at each answer of "busy": whoever gets one waits before they ask again."""

WAIT_LIMIT_NS = 2_000_000_000
"""How long the emulated plugin waits for VFs and resets before it gives up."""

BURST_BYTES = 65_536
"""Size of the token bucket of a VF's transmit limit."""

PF_MAC = 0x02_00_00_00_FF_00
"""MAC address of the physical function, which some NICs compare without being asked (`implicit`)."""

TUNNEL_BYTES = (50, 70)
"""Bytes that a tunnel over IPv4, and over IPv6, adds to a frame (Ethernet, IP, UDP, VXLAN)."""

NOTES: tuple[str, ...] = (
    "tables of one NIC are looked up in the order of the profile, and the first that matches decides",
    "a rule without in_port applies to what comes from the uplink",
    "in legacy mode the switch sends a frame to the VF whose administered MAC (and port VLAN) it carries",
    "a VF without an administered MAC is reached by rules only, and what it sends is not checked for spoofing",
    "group frames from the uplink go to the PF, those of a VF to the uplink",
    "in switchdev mode what no rule matches goes to the PF, where the host's virtual switch takes it",
    "the emulated port is never congested, so guarantees and shares of VFs are stored and reported, not felt",
    "tunnels are not taken apart, so a rule on a tunnel's fields never matches",
    "header rewriting is accepted and changes no delivery",
    "whoever opens a state file finds the resets of earlier processes over, unless they take longer than 2 s",
)
"""How the emulated switch behaves where profiles are silent."""

_FIRMWARE_FIELDS: tuple[frozenset[str], ...] = (
    frozenset({"ipv4_src", "ipv4_dst", "tp_src", "tp_dst"}),
    frozenset({"ipv6_src", "ipv6_dst", "tp_src", "tp_dst"}),
    frozenset({"ipv4_dst", "tp_dst"}),
    frozenset({"ipv6_dst", "tp_dst"}),
    frozenset({"ipv4_src", "ipv4_dst"}),
    frozenset({"ipv4_dst"}),
    frozenset({"ipv6_dst"}),
    frozenset({"eth_dst", "vlan_vid"}),
    frozenset({"eth_dst"}),
    frozenset({"eth_type"}),
)


def firmware_list(flow_types: Iterable[str]) -> tuple[tuple[str, frozenset[str]], ...]:
    """Return what an emulated firmware lists (flow type, compared fields), highest precedence first.

    Only a real device knows its list. This one has the full and the wildcard connection, the address and the MAC
    filters that SFC firmware variants share.
    """
    names = tuple(flow_types)
    return tuple((name, fields) for fields in _FIRMWARE_FIELDS for name in names if _fits(name, fields))


def _fits(flow_type: str, fields: frozenset[str]) -> bool:
    if flow_type.startswith("ether"):
        return fields <= {"eth_dst", "vlan_vid", "eth_type"}
    version = "ipv6" if "6" in flow_type else "ipv4"
    has_ports = any(flow_type.startswith(name) for name in ("tcp", "udp", "sctp"))
    addresses = {f"{version}_src", f"{version}_dst"}
    allowed = addresses | ({"tp_src", "tp_dst"} if has_ports else set())
    return bool(fields & addresses) and fields <= allowed and (not has_ports or bool(fields & {"tp_dst"}))
