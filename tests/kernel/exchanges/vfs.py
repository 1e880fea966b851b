"""Settings of VFs over rtnetlink, by their bytes: what a driver takes, refuses and reports."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from tests.fake_kernel import tlv
from tests.kernel.exchanges.stage import Stage, number

NEWLINK, GETLINK, SETLINK = 16, 18, 19
MAC, VLAN, TX_RATE, SPOOFCHK, LINK_STATE, RATE, RSS_QUERY, _, TRUST, GUID, _, VLAN_LIST = range(1, 13)
_STATS, _STATS_PAD = 8, 6
_VFINFO_LIST, _NUM_VF, _EXT_MASK = 22, 21, 29
WITH_VFS, WITHOUT_STATS = 1, 8
_ABSENT = 60


def link(stage: Stage, *parts: tuple[int, bytes]) -> bytes:
    return struct.pack("=BxHiII", 0, 0, stage.devices["pf"], 0, 0) + tlv.join(list(parts))


def settings(stage: Stage, *each: tuple[int, bytes]) -> bytes:
    """Return a message that makes settings of one IFLA_VF_INFO."""
    return link(stage, (_VFINFO_LIST, tlv.join([(1, tlv.join(list(each)))])))


def mac(vf: int, address: str) -> tuple[int, bytes]:
    return MAC, struct.pack("=I6s26x", vf, bytes.fromhex(address))


def two(kind: int, vf: int, value: int) -> tuple[int, bytes]:
    return kind, struct.pack("=II", vf, value)


def three(kind: int, vf: int, first: int, second: int) -> tuple[int, bytes]:
    return kind, struct.pack("=III", vf, first, second)


def vlans(*entries: tuple[int, int, int, int]) -> tuple[int, bytes]:
    """Return a list of VLANs: VF, id, priority, protocol."""
    each = [(1, struct.pack("=III", *entry[:3]) + struct.pack(">Hxx", entry[3])) for entry in entries]
    return VLAN_LIST, tlv.join(each)


def reports(stage: Stage, label: str, mask: int) -> None:
    """Note what is told of each VF, and how many there are."""
    replies, answer = stage.exchange(GETLINK, 4, link(stage, (_EXT_MASK, number(mask))))
    stage.lines.append(f"{label}: {answer}")
    for reply in replies:
        found = dict(tlv.split(reply[16:]))
        stage.lines.append(f"{label} > {found.get(_NUM_VF, b'').hex()} VFs")
        for _, entry in tlv.split(found.get(_VFINFO_LIST, b"")):
            plain = tlv.each(
                entry, lambda kind, data: tlv.without(data, _STATS_PAD) if kind == _STATS else data
            )
            stage.lines.append(f"{label} > {plain.hex()}")


def _steps(stage: Stage) -> Iterator[tuple[str, tuple[tuple[int, bytes], ...]]]:
    yield "an address", (mac(0, "020000000011"),)
    yield "an address of VF 1", (mac(1, "020000000012"),)
    yield "a multicast address", (mac(0, "010000000011"),)
    yield "of a VF that is not there", (mac(_ABSENT, "020000000011"),)
    yield "of a VF that can't be", (mac(0x7FFFFFFF, "020000000011"),)
    yield "a VLAN", (three(VLAN, 0, 5, 3),)
    yield "the highest VLAN", (three(VLAN, 1, 4095, 7),)
    yield "a VLAN too high", (three(VLAN, 0, 4096, 0),)
    yield "a priority too high", (three(VLAN, 0, 5, 8),)
    yield "a VLAN of a VF that is not there", (three(VLAN, _ABSENT, 5, 0),)
    yield "a VLAN in a list", (vlans((0, 6, 1, 0x8100)),)
    yield "802.1ad", (vlans((1, 7, 1, 0x88A8)),)
    yield "two VLANs", (vlans((0, 6, 1, 0x8100), (0, 7, 1, 0x8100)),)
    yield "no VLAN in the list", (vlans(),)
    yield "a VLAN cut short", ((VLAN_LIST, tlv.join([(1, bytes(12))])),)
    yield "a rate", (two(TX_RATE, 0, 100),)
    yield "a rate with a guarantee", (three(RATE, 0, 50, 100),)
    yield "a guarantee above the limit", (three(RATE, 0, 200, 100),)
    yield "a limit", (three(RATE, 1, 0, 200),)
    yield "a rate of a VF that is not there", (three(RATE, _ABSENT, 0, 100),)
    yield "no spoof check", (two(SPOOFCHK, 0, 0),)
    yield "spoof check", (two(SPOOFCHK, 1, 1),)
    yield "trust", (two(TRUST, 0, 1),)
    yield "no trust", (two(TRUST, 1, 0),)
    yield "trust of a VF that is not there", (two(TRUST, _ABSENT, 1),)
    yield "a link that is always up", (two(LINK_STATE, 0, 1),)
    yield "a link that is down", (two(LINK_STATE, 1, 2),)
    yield "the RSS table", (two(RSS_QUERY, 0, 1),)
    yield "a GUID", ((GUID, bytes(16)),)
    yield "nothing", ()
    yield "an address cut short", ((MAC, bytes(20)),)
    yield (
        "two settings, the second refused",
        (mac(1, "020000000013"), three(VLAN, 1, 4096, 0), two(TRUST, 1, 1)),
    )
    yield "no VLAN", (three(VLAN, 0, 0, 0),)
    yield "no rate", (three(RATE, 1, 0, 0),)
    yield "no address", (mac(0, "000000000000"),)


def play(stage: Stage) -> list[str]:
    """Play with a ``pf`` that has two VFs and is up; return what came of each step."""
    for label, each in _steps(stage):
        stage.ask(label, NEWLINK, 0, settings(stage, *each))
    stage.ask("not of a VF at all", NEWLINK, 0, link(stage, (_VFINFO_LIST, tlv.join([(2, b"")]))))
    stage.ask("no such device", NEWLINK, 0, struct.pack("=BxHiII", 0, 0, 0x7FFFFFF0, 0, 0))
    stage.ask("no device at all", SETLINK, 0, struct.pack("=BxHiII", 0, 0, 0, 0, 0))
    reports(stage, "told with counters", WITH_VFS)
    reports(stage, "told without counters", WITH_VFS | WITHOUT_STATS)
    reports(stage, "not told", 0)
    return stage.lines
