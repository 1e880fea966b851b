"""A receive classifier behind the ioctl, by its bytes, as drivers differ in it."""

from __future__ import annotations

import errno
import struct

from nicoffload.kernel.ntuple import FlowType, NtupleRule, NtupleTable
from nicoffload.kernel.ntuple_layout import RXNFC_BYTES
from nicoffload.model import Match, ToVf
from tests.kernel.recording import RecordingKernel, refusal

COUNT, GET, LIST, DELETE, INSERT = range(0x2E, 0x33)
ANY, SPECIAL = 0xFFFF_FFFF, 0x8000_0000
RULE = NtupleRule(
    flow=FlowType.UDP4, match=Match.of(eth_type=0x0800, ip_proto=17, tp_dst=4789), fate=ToVf(vf=3, queue=1)
)


class Driver:
    """A receive classifier of a driver, by the bytes of its ioctl.

    Args:
        size: Slots.
        chooses: Whether the driver chooses the slot.
        tells: Whether it tells its size.
        empty: What it answers for an empty slot.
    """

    def __init__(self, size=8, *, chooses=False, tells=True, empty=errno.ENOENT):
        self.size, self.chooses, self.tells, self.empty = size, chooses, tells, empty
        self.rules: dict[int, bytes] = {}

    def __call__(self, asked: bytes) -> bytes:
        [command] = struct.unpack_from("=I", asked)
        [slot] = struct.unpack_from("=I", asked, 176)
        answer = bytearray(asked)
        size = (self.size if self.tells else 0) | (SPECIAL if self.chooses else 0)
        if command == COUNT:
            struct.pack_into("=Q", answer, 8, size)
            struct.pack_into("=I", answer, 184, len(self.rules))
        elif command == LIST:
            [room] = struct.unpack_from("=I", asked, 184)
            if room < len(self.rules):
                raise refusal(errno.EMSGSIZE)
            struct.pack_into("=Q", answer, 8, size)
            struct.pack_into(f"={1 + len(self.rules)}I", answer, 184, len(self.rules), *self.rules)
        elif command == INSERT:
            if self.chooses != (slot == ANY) or (slot >= self.size and slot != ANY):
                raise refusal(errno.EINVAL)
            slot = len(self.rules) if slot == ANY else slot
            struct.pack_into("=I", answer, 176, slot)
            self.rules[slot] = bytes(answer[:RXNFC_BYTES])
        elif slot not in self.rules:
            raise refusal(self.empty)
        elif command == DELETE:
            del self.rules[slot]
        else:
            answer[16:] = self.rules[slot][16:]
        return bytes(answer)


def table(driver) -> NtupleTable:
    return NtupleTable(RecordingKernel(ethtool=driver), "nic0")
