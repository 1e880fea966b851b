"""The structures of the data path's maps, as data_path/softnic.bpf.c has them; a test holds both against each other."""

from __future__ import annotations

import numpy as np

VERSION = 1
MAX_CLASSES = 32
MAX_PORTS = 130
MAX_VFS = MAX_PORTS - 2
FIRST_IFINDEX = 16
SHAPER_IN = 4
SHAPER_OUT = 5
NO_PORT = 0xFFFF
UPLINK, PF, FIRST_VF = 0, 1, 2

ROLE_NONE, ROLE_UPLINK, ROLE_PF, ROLE_VF = range(4)
PORT_DOWN, PORT_SPOOF_CHECK, PORT_MAC_FILTER, PORT_MAC, PORT_VLAN, PORT_SHAPED = (
    1 << bit for bit in range(6)
)

KEY_BYTES = 64
KEY_WORDS = 8
HAS_L4, IS_TAGGED, FRAGMENT_SHIFT = 1, 2, 2
FLAGS_AT = 56
CLASS_AT = 58
IN_PORT_GIVEN_AT = 59
SHORT_KEY_RUNS = ((0, 4), (16, 20), (48, 60), (38, 40), (46, 48))
"""Which bytes of a key make its short form, in order: first, and one past the last."""
SHORT_KEY_PLACES = tuple(at for first, last in SHORT_KEY_RUNS for at in range(first, last))
SHORT_KEY_BYTES = len(SHORT_KEY_PLACES)

RANK_BITS = 48
"""A rank has the priority above these bits, and below them what lets the older rule win."""
YOUNGEST = (1 << RANK_BITS) - 1

FLOW = np.dtype([("rank", "<u8"), ("slot", "<u4"), ("out", "<u2"), ("mirror", "<u2")])
CLASS = np.dtype([("mask", "<u8", KEY_WORDS), ("max_rank", "<u8"), ("number", "<u8"), ("is_short", "<u8")])
CLASSES = np.dtype([("count", "<u8"), ("item", CLASS, MAX_CLASSES)])
COUNT = np.dtype([("packets", "<u8"), ("bytes", "<u8")])
TRAFFIC_VALUES = ("rx_packets", "rx_bytes", "tx_packets", "tx_bytes", "rx_dropped", "tx_dropped")
TRAFFIC = np.dtype([*((name, "<u8") for name in TRAFFIC_VALUES), ("spare", "<u8", 2)])
PORT = np.dtype(
    [
        ("role", "u1"),
        ("flags", "u1"),
        ("number", "<u2"),
        ("miss", "<u4"),
        ("mac", "u1", 6),
        ("tci", "<u2"),
        ("vlan_proto", ">u2"),
        ("link_state", "u1"),
        ("settings", "u1"),
        ("class_id", "<u4"),
        ("min_tx_bps", "<u8"),
        ("max_tx_bps", "<u8"),
        ("spare", "<u8", 3),
    ]
)
CONFIG = np.dtype(
    [
        ("bank", "<u4"),
        ("rows", "<u4"),
        ("version", "<u4"),
        ("vfs", "<u4"),
        ("spare", "<u8", 6),
        ("generation", "<u8"),
        ("next_epoch", "<u8"),
        ("link_bps", "<u8"),
        ("instance", "u1", 16),
        ("rest", "<u8", 3),
    ]
)
RECORD = np.dtype(
    [("rule_id", "u1", 16), ("epoch", "<u8"), ("priority", "<u2"), ("flags", "u1"), ("pad", "u1", 5)]
)
RECORD_PRIORITY, RECORD_COUNT, RECORD_MIRROR_LAST = 1, 2, 4
"""Flags of a record: the rule has a priority; it asked for a counter; it mirrors behind the fate, not before."""

U32_EPOCHS = 0x7FF
"""Bits of a counter's epoch that a filter of u32 keeps."""


def ifindex_of(port: int) -> int:
    """Return the number of a port's inner end in the NIC's namespace."""
    return FIRST_IFINDEX + 2 * port


def representor_of(port: int) -> int:
    """Return the number of the inner end of a VF's representor."""
    return FIRST_IFINDEX + 2 * port + 1


def port_of(ifindex: int) -> int:
    """Return the port of an inner end; the inverse of `ifindex_of`."""
    return (ifindex - FIRST_IFINDEX) // 2
