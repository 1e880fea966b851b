"""Filters on devices without hardware: everything that the kernel itself takes, gives numbers to, and refuses."""

from __future__ import annotations

import itertools
import struct
from collections.abc import Iterator

from tests.fake_kernel import tlv
from tests.kernel.exchanges.stage import (
    ALL,
    CREATE,
    DELQDISC,
    DELTFILTER,
    ECHO,
    EGRESS,
    EXCL,
    GETQDISC,
    GETTFILTER,
    INGRESS,
    IP,
    IPV6,
    NEW,
    NEWQDISC,
    NEWTFILTER,
    REPLACE,
    Stage,
    be16,
    number,
)

SKIP_HW, SKIP_SW = 1, 2
GENERIC = struct.Struct("=IIiii")
PIPE, SHOT, STOLEN = 3, 2, 4


def action(kind: str, *options: tuple[int, bytes], cookie: bytes = b"", flags: int | None = None) -> bytes:
    """Return the attributes of one action."""
    parts = [(1, kind.encode() + b"\0")]
    if cookie:
        parts.append((6, cookie))
    if flags is not None:
        parts.append((7, struct.pack("=II", flags, flags)))
    return tlv.join([*parts, (2, tlv.join(list(options)))])


def gact(verdict: int = SHOT, **more) -> bytes:
    return action("gact", (2, GENERIC.pack(0, 0, verdict, 0, 0)), **more)


def mirred(ifindex: int, way: int = 1, verdict: int = STOLEN) -> bytes:
    return action("mirred", (2, struct.pack("=IIiiiiI", 0, 0, verdict, 0, 0, way, ifindex)))


def actions(*each: bytes) -> bytes:
    return tlv.join(list(enumerate(each, 1)))


def flower(*keys: tuple[int, bytes], flags: int | None = None, acts: tuple[bytes, ...] = ()) -> bytes:
    """Return flower's options."""
    parts = [] if flags is None else [(22, number(flags))]
    parts += keys
    if acts:
        parts.append((3, actions(*acts)))
    return tlv.join(parts)


TYPE_IP = (8, be16(IP))
TCP = (9, b"\x06")
TERSE = tlv.join([(15, struct.pack("=II", 1, 1))])


def to(last: int) -> tuple[int, bytes]:
    """Return an IPv4 destination."""
    return (12, bytes([10, 0, 0, last]))


def qdiscs(stage: Stage) -> None:
    """Qdiscs: one a device, whatever it is asked with."""
    ask = stage.ask
    ask("no qdisc to get", GETQDISC, 0, stage.qdisc("a", parent=0xFFFFFFF1))
    ask("no qdisc to delete", DELQDISC, 0, stage.qdisc("a"))
    ask("a filter without a qdisc", NEWTFILTER, NEW, stage.filter("a", "flower", flower(TYPE_IP)))
    stage.dump("filters without a qdisc", GETTFILTER, stage.filter("a", "", None, pref=0, protocol=0))
    ask("not made without create", NEWQDISC, 0, stage.qdisc("a"))
    ask("no such kind", NEWQDISC, NEW, stage.qdisc("a", "nonsense"))
    ask("a minor handle", NEWQDISC, NEW, stage.qdisc("a", handle=0xFFFF0001))
    ask("block 0", NEWQDISC, NEW, stage.qdisc("a", extra=tlv.join([(13, number(0))])))
    ask("ingress", NEWQDISC, NEW, stage.qdisc("a", "ingress"))
    ask("get ingress", GETQDISC, 0, stage.qdisc("a", "ingress"))
    ask("get another kind", GETQDISC, 0, stage.qdisc("a", "clsact"))
    ask(
        "ingress has no egress",
        NEWTFILTER,
        NEW,
        stage.filter("a", "flower", flower(TYPE_IP), parent=0xFFFF0000),
    )
    ask("a second one", NEWQDISC, NEW, stage.qdisc("a", "ingress"))
    ask("another kind beside it", NEWQDISC, NEW, stage.qdisc("a", "clsact"))
    ask("without a parent", DELQDISC, 0, stage.qdisc("a", "ingress", parent=0))
    ask("with another handle", DELQDISC, 0, stage.qdisc("a", "ingress", handle=0xFFFE0000))
    ask("delete", DELQDISC, 0, stage.qdisc("a", ""))
    ask("delete again", DELQDISC, 0, stage.qdisc("a", ""))
    ask("clsact", NEWQDISC, NEW, stage.qdisc("a"))
    ask("clsact on another device", NEWQDISC, NEW, stage.qdisc("b"))
    ask("a second clsact", NEWQDISC, NEW, stage.qdisc("a"))
    ask("a clsact again, without exclusion", NEWQDISC, CREATE, stage.qdisc("a"))
    ask("no such class", NEWTFILTER, NEW, stage.filter("a", "flower", flower(TYPE_IP), parent=0xFFFFFFF5))
    ask("no class at all", NEWTFILTER, NEW, stage.filter("a", "flower", flower(TYPE_IP), parent=0xFFFF0000))
    ask("no such parent", NEWTFILTER, NEW, stage.filter("a", "flower", flower(TYPE_IP), parent=0x00120000))
    ask(
        "no such device",
        NEWTFILTER,
        NEW,
        stage.filter("nobody", "flower", flower(TYPE_IP)).replace(
            struct.pack("=i", -1), struct.pack("=i", 0x7FFFFFF0), 1
        ),
    )
    ask("no such block", NEWTFILTER, NEW, stage.filter("nobody", "flower", flower(TYPE_IP), parent=77))


def prefs(stage: Stage) -> None:
    """Prefs, handles and chains: who gives them, and what is taken."""
    ask, new = stage.ask, stage.filter
    ask("cut short", NEWTFILTER, NEW, new("a")[:12])
    ask("no kind", NEWTFILTER, NEW, new("a", "", flower(TYPE_IP)))
    ask("no protocol", NEWTFILTER, NEW, new("a", "flower", flower(TYPE_IP), protocol=0))
    ask("no such classifier", NEWTFILTER, NEW, new("a", "nonsense", b""))
    ask("a long name", NEWTFILTER, NEW, new("a", "nonsense_with_a_long_name", b""))
    ask("no options", NEWTFILTER, NEW, new("a", "flower", None))
    ask("not made without create", NEWTFILTER, 0, new("a", "flower", flower(TYPE_IP)))
    ask("pref 0 without create", NEWTFILTER, 0, new("a", "flower", flower(TYPE_IP), pref=0))
    ask("nothing is left of them", GETTFILTER, 0, new("a", "flower", None, handle=1))
    ask("flower", NEWTFILTER, NEW, new("a", "flower", flower(TYPE_IP, to(1), acts=(gact(),)), handle=7))
    ask("the handle again", NEWTFILTER, NEW, new("a", "flower", flower(TYPE_IP, to(2)), handle=7))
    ask("the match again", NEWTFILTER, NEW, new("a", "flower", flower(TYPE_IP, to(1)), handle=8))
    ask(
        "another protocol",
        NEWTFILTER,
        NEW,
        new("a", "flower", flower((8, be16(IPV6))), protocol=IPV6, handle=9),
    )
    ask("another classifier", NEWTFILTER, NEW, new("a", "matchall", b"", handle=9))
    ask(
        "replace it",
        NEWTFILTER,
        CREATE | REPLACE,
        new("a", "flower", flower(TYPE_IP, to(3), acts=(gact(),)), handle=7),
    )
    ask("replace the mask", NEWTFILTER, CREATE, new("a", "flower", flower(TYPE_IP), handle=7))
    ask("change what is not there", NEWTFILTER, 0, new("a", "flower", flower(TYPE_IP, to(9)), handle=77))
    ask("the kernel's handle", NEWTFILTER, NEW | ECHO, new("a", "flower", flower(TYPE_IP, to(4))))
    ask("the next", NEWTFILTER, NEW | ECHO, new("a", "flower", flower(TYPE_IP, to(5))))
    ask("the kernel's pref", NEWTFILTER, NEW | ECHO, new("a", "flower", flower(TYPE_IP, to(6)), pref=0))
    ask("the next pref", NEWTFILTER, NEW | ECHO, new("a", "flower", flower(TYPE_IP, to(7)), pref=0))
    ask("in a chain", NEWTFILTER, NEW | ECHO, new("a", "flower", flower(TYPE_IP), chain=5, pref=3))
    ask("a chain too far", NEWTFILTER, NEW, new("a", "flower", flower(TYPE_IP), chain=1 << 28))
    ask("at egress", NEWTFILTER, NEW | ECHO, new("a", "flower", flower(TYPE_IP), parent=EGRESS))
    ask(
        "goes to a chain",
        NEWTFILTER,
        NEW,
        new("a", "flower", flower(TYPE_IP, acts=(gact(0x20000000 | 9),)), pref=20),
    )
    ask("nothing in that chain", DELTFILTER, 0, new("a", "flower", None, chain=9, pref=1, handle=1))
    ask("get one", GETTFILTER, 0, new("a", "flower", None, handle=7))
    ask("get none", GETTFILTER, 0, new("a", "flower", None, handle=70))
    ask("get of no pref", GETTFILTER, 0, new("a", "flower", None, pref=50, handle=1))
    ask("get of pref 0", GETTFILTER, 0, new("a", "flower", None, pref=0, handle=1))
    ask("get of another protocol", GETTFILTER, 0, new("a", "flower", None, protocol=IPV6, handle=7))
    ask("get of another classifier", GETTFILTER, 0, new("a", "matchall", None, handle=7))
    ask("get of no chain", GETTFILTER, 0, new("a", "flower", None, chain=33, handle=7))
    stage.dump("all", GETTFILTER, new("a", "", None, pref=0, protocol=0))
    stage.dump("of one pref", GETTFILTER, new("a", "", None, pref=20, protocol=0))
    stage.dump("of one chain", GETTFILTER, new("a", "", None, pref=0, protocol=0, chain=5))
    stage.dump(
        "terse",
        GETTFILTER,
        new("a", "", None, pref=0, protocol=0) + TERSE,
    )
    stage.dump(
        "bits that nobody knows",
        GETTFILTER,
        new("a", "", None, pref=0) + tlv.join([(15, struct.pack("=II", 2, 2))]),
    )
    stage.dump(
        "of no device",
        GETTFILTER,
        new("nobody", "", None, pref=0).replace(struct.pack("=i", -1), struct.pack("=i", 0x7FFFFFF0), 1),
    )
    ask("delete none", DELTFILTER, 0, new("a", "flower", None, handle=70))
    ask("delete of another classifier", DELTFILTER, 0, new("a", "matchall", None, handle=7))
    ask("delete of another protocol", DELTFILTER, 0, new("a", "flower", None, protocol=IPV6, handle=7))
    ask("delete of no pref", DELTFILTER, 0, new("a", "flower", None, pref=50, handle=1))
    ask("delete of no chain", DELTFILTER, 0, new("a", "flower", None, chain=33, handle=1))
    ask("flush with a kind", DELTFILTER, 0, new("a", "flower", None, pref=0, protocol=0))
    ask("flush no chain", DELTFILTER, 0, new("a", "", None, pref=0, protocol=0, chain=33))
    ask("delete one", DELTFILTER, ECHO, new("a", "flower", None, handle=7))
    ask("delete it again", DELTFILTER, 0, new("a", "flower", None, handle=7))
    ask("delete a pref", DELTFILTER, ECHO, new("a", "flower", None))
    ask("delete it again", DELTFILTER, 0, new("a", "flower", None))
    ask("flush", DELTFILTER, 0, new("a", "", None, pref=0, protocol=0))
    stage.dump("what is left", GETTFILTER, new("a", "", None, pref=0, protocol=0))
    ask("flush the chain", DELTFILTER, 0, new("a", "", None, pref=0, protocol=0, chain=5))
    ask("flush egress", DELTFILTER, 0, new("a", "", None, pref=0, protocol=0, parent=EGRESS))


def _refused_keys() -> Iterator[tuple[str, bytes]]:
    yield "both of skip_hw and skip_sw", flower(TYPE_IP, flags=3)
    yield "flags that nobody knows", flower(TYPE_IP, flags=0x100)
    yield "a short address", flower(TYPE_IP, (12, b"\x0a"))
    yield "half a range", flower(TYPE_IP, TCP, (89, be16(5)))
    yield "a range backwards", flower(TYPE_IP, TCP, (89, be16(9)), (90, be16(5)))
    yield "a range of one source port", flower(TYPE_IP, TCP, (87, be16(5)), (88, be16(5)))
    yield "flags without their mask", flower(TYPE_IP, (47, b"\0\0\0\1"))
    yield "flags that are none of a packet", flower(TYPE_IP, (47, b"\0\0\0\4"), (48, b"\0\0\0\4"))
    yield "no such device to come in by", flower(TYPE_IP, (2, b"nonsense\0"))


def _refused_actions(stage: Stage) -> Iterator[tuple[str, bytes]]:
    yield "no such action", action("nonsense")
    yield "an action without a kind", tlv.join([(2, b"")])
    yield "a long name", action("nonsense_with_a_long_name")
    yield "a cookie of 17 bytes", gact(cookie=bytes(17))
    yield "gact without options", tlv.join([(1, b"gact\0")])
    yield "gact without parameters", action("gact")
    yield "gact cut short", action("gact", (2, bytes(4)))
    yield "no such verdict", gact(9)
    yield "no such extended verdict", gact(0x30000000)
    yield "for the hardware only", gact(flags=4)
    yield "for the kernel only", gact(flags=2)
    yield "flags that nobody knows", gact(flags=64)
    yield "mirred without parameters", action("mirred")
    yield "mirred to no device", mirred(0)
    yield "mirred to a device that is not there", mirred(0x7FFFFFF0)
    yield "mirred another way", mirred(stage.devices["b"], way=5)
    yield "vlan without an id", action("vlan", (2, struct.pack("=IIiiii", 0, 0, PIPE, 0, 0, 2)))
    yield (
        "vlan 4095",
        action("vlan", (2, struct.pack("=IIiiii", 0, 0, PIPE, 0, 0, 2)), (3, struct.pack("=H", 4095))),
    )
    yield (
        "vlan of another protocol",
        action(
            "vlan",
            (2, struct.pack("=IIiiii", 0, 0, PIPE, 0, 0, 2)),
            (3, struct.pack("=H", 5)),
            (4, be16(0x0800)),
        ),
    )
    yield "vlan another way", action("vlan", (2, struct.pack("=IIiiii", 0, 0, PIPE, 0, 0, 9)))
    yield "pedit without parameters", action("pedit")
    yield "pedit without keys", action("pedit", (4, struct.pack("=IIiiiBBxx", 0, 0, PIPE, 0, 0, 0, 0)))
    yield (
        "pedit cut short",
        action("pedit", (4, struct.pack("=IIiiiBBxx", 0, 0, PIPE, 0, 0, 2, 0) + bytes(24))),
    )
    key = struct.pack("=IIiIII", 0, 0, 2, 0, 0, 0)
    yield (
        "pedit at an odd place",
        action("pedit", (4, struct.pack("=IIiiiBBxx", 0, 0, PIPE, 0, 0, 1, 0) + key)),
    )
    key = struct.pack("=IIiIII", 0, 0, 4, 0, 0, 0)
    one = struct.pack("=IIiiiBBxx", 0, 0, PIPE, 0, 0, 1, 0) + key
    ex = tlv.join([(1, struct.pack("=H", 1)), (2, struct.pack("=H", 0))])
    yield "pedit of too many headers", action("pedit", (4, one), (5, tlv.join([(6, ex), (6, ex)])))
    yield "pedit of too few headers", action("pedit", (4, one), (5, b""))
    yield (
        "pedit of another header",
        action(
            "pedit",
            (4, one),
            (5, tlv.join([(6, tlv.join([(1, struct.pack("=H", 9)), (2, struct.pack("=H", 0))]))])),
        ),
    )
    yield (
        "pedit with half a header",
        action("pedit", (4, one), (5, tlv.join([(6, tlv.join([(1, struct.pack("=H", 1))]))]))),
    )
    yield "csum without parameters", action("csum")
    yield "tunnel_key without parameters", action("tunnel_key")
    yield (
        "tunnel_key without addresses",
        action("tunnel_key", (2, struct.pack("=IIiiii", 0, 0, PIPE, 0, 0, 1))),
    )
    yield "tunnel_key another way", action("tunnel_key", (2, struct.pack("=IIiiii", 0, 0, PIPE, 0, 0, 7)))
    yield "tunnel_key cut short", action("tunnel_key", (2, bytes(3)))
    yield "skbedit of nothing", action("skbedit", (2, GENERIC.pack(0, 0, PIPE, 0, 0)))
    yield (
        "a receive queue in the kernel",
        action("skbedit", (2, GENERIC.pack(0, 0, PIPE, 0, 0)), (4, struct.pack("=H", 3))),
    )
    yield "police without parameters", action("police")
    yield "police cut short", action("police", (1, bytes(20)))
    yield "police without its table", action("police", (1, _police(rate=1000)))
    yield "police of packets without a burst", action("police", (1, _police()), (10, struct.pack("=Q", 5)))
    yield (
        "police of packets and bytes",
        action(
            "police",
            (1, _police(rate=1000)),
            (2, bytes(1024)),
            (10, struct.pack("=Q", 5)),
            (11, struct.pack("=Q", 5)),
        ),
    )
    yield "police that ends elsewhere", action("police", (1, _police()), (5, number(0x20000001)))
    yield "police of no such end", action("police", (1, _police()), (5, number(99)))


def _police(rate: int = 0, burst: int = 1000, action_: int = SHOT) -> bytes:
    cell_log = 13 if rate else 0
    rates = (cell_log, 1, 0, 0, 0, rate, 0, 0, 0, 0, 0, 0)
    return struct.pack("=IiIIIBBHhHIBBHhHIiiI", 0, action_, 0, burst, 0, *rates, 0, 0, 0)


def _taken_actions(stage: Stage) -> Iterator[tuple[str, tuple[bytes, ...]]]:
    b = stage.devices["b"]
    yield (
        "mirred both ways",
        (
            mirred(b, 2, PIPE),
            mirred(b, 4, PIPE),
            mirred(b, 3),
        ),
    )
    yield "a cookie", (gact(cookie=b"0123456789abcdef"), gact(cookie=b"x"))
    yield (
        "vlan",
        (
            action("vlan", (2, struct.pack("=IIiiii", 0, 0, PIPE, 0, 0, 1))),
            action("vlan", (2, struct.pack("=IIiiii", 0, 0, PIPE, 0, 0, 2)), (3, struct.pack("=H", 7))),
            action(
                "vlan",
                (2, struct.pack("=IIiiii", 0, 0, PIPE, 0, 0, 3)),
                (3, struct.pack("=H", 7)),
                (6, b"\5"),
            ),
            action(
                "vlan",
                (2, struct.pack("=IIiiii", 0, 0, PIPE, 0, 0, 3)),
                (3, struct.pack("=H", 8)),
                (4, be16(0x88A8)),
            ),
        ),
    )
    yield (
        "police",
        (
            action("police", (1, _police(rate=1000)), (2, bytes(1024))),
            action(
                "police",
                (1, _police()),
                (10, struct.pack("=Q", 5)),
                (11, struct.pack("=Q", 500)),
                (5, number(PIPE)),
            ),
            action(
                "police", (1, _police(rate=0xFFFFFFFF)), (2, bytes(1024)), (8, struct.pack("=Q", 1 << 33))
            ),
            action("police", (1, _police())),
        ),
    )
    yield "csum", (action("csum", (1, struct.pack("=IIiiii", 0, 0, PIPE, 0, 0, 0x7F))),)
    yield (
        "skbedit",
        (
            action(
                "skbedit",
                (2, GENERIC.pack(0, 0, PIPE, 0, 0)),
                (3, number(9)),
                (5, number(4)),
                (8, number(0xF)),
            ),
        ),
    )
    set_ = struct.pack("=IIiiii", 0, 0, PIPE, 0, 0, 1)
    yield (
        "tunnel_key",
        (
            action(
                "tunnel_key",
                (2, set_),
                (3, b"\1\2\3\4"),
                (4, b"\4\3\2\1"),
                (7, b"\0\0\0\5"),
                (9, be16(4789)),
                (10, b"\1"),
            ),
            action(
                "tunnel_key",
                (2, set_),
                (5, bytes(15) + b"\1"),
                (6, bytes(15) + b"\2"),
                (12, b"\4"),
                (13, b"\x40"),
            ),
            action("tunnel_key", (2, set_), (3, b"\1\2\3\4"), (4, b"\4\3\2\1"), (14, b"")),
            action("tunnel_key", (2, struct.pack("=IIiiii", 0, 0, PIPE, 0, 0, 2))),
        ),
    )


def parts(stage: Stage) -> None:
    """Keys and actions: what is taken comes back, what is refused leaves nothing behind."""
    ask, new = stage.ask, stage.filter
    for label, options in _refused_keys():
        ask(label, NEWTFILTER, NEW, new("a", "flower", options))
    for label, one in _refused_actions(stage):
        ask(label, NEWTFILTER, NEW, new("a", "flower", flower(TYPE_IP, acts=(one,))))
    stage.dump("nothing is left of them", GETTFILTER, new("a", "", None, pref=0, protocol=0))
    handles = itertools.count(1)
    for label, acts in _taken_actions(stage):
        options = flower(TYPE_IP, to(next(handles)), acts=acts)
        ask(label, NEWTFILTER, NEW | ECHO, new("a", "flower", options))
    keys = flower(
        TYPE_IP,
        (4, bytes(6)),
        (5, b"\xff" * 6),
        (6, b"\2\0\0\0\0\5"),
        (9, b"\x11"),
        (21, be16(53)),
        (20, be16(5)),
        (37, be16(0xFF00)),
        (73, b"\x1c"),
        (74, b"\xfc"),
        (47, b"\0\0\0\1"),
        (48, b"\0\0\0\3"),
        (26, b"\0\0\0\7"),
        (27, b"\1\2\3\4"),
        (28, b"\xff\0\0\0"),
        (45, be16(4789)),
        (18, be16(80)),
        (99, b""),
    )
    ask("many keys, and some of another protocol", NEWTFILTER, NEW | ECHO, new("a", "flower", keys, pref=2))
    tagged = flower(
        (8, be16(0x88A8)),
        (23, struct.pack("=H", 5)),
        (24, b"\3"),
        (25, be16(0x8100)),
        (77, struct.pack("=H", 9)),
        (79, be16(IP)),
        (12, b"\1\2\3\4"),
    )
    ask("two tags", NEWTFILTER, NEW | ECHO, new("a", "flower", tagged, pref=3, protocol=0x88A8))
    arp = flower((8, be16(0x0806)), (59, b"\1\2\3\4"), (61, b"\1"), (63, b"\2\0\0\0\0\1"))
    ask("ARP", NEWTFILTER, NEW | ECHO, new("a", "flower", arp, pref=4, protocol=0x0806))
    ask(
        "a class",
        NEWTFILTER,
        NEW | ECHO,
        new("a", "flower", flower(TYPE_IP, (1, number(0xFFFFFFE3))), pref=5),
    )
    ask("flush", DELTFILTER, 0, new("a", "", None, pref=0, protocol=0))


def matchall(stage: Stage) -> None:
    """Matchall: one a pref, and only as a whole."""
    ask, new = stage.ask, stage.filter
    everything = tlv.join([(2, actions(gact()))])
    ask("no options", NEWTFILTER, NEW, new("a", "matchall", None, protocol=ALL))
    ask(
        "both of skip_hw and skip_sw",
        NEWTFILTER,
        NEW,
        new("a", "matchall", tlv.join([(3, number(3))]), protocol=ALL),
    )
    ask("matchall", NEWTFILTER, NEW | ECHO, new("a", "matchall", everything, protocol=ALL))
    ask("another handle", NEWTFILTER, NEW, new("a", "matchall", everything, protocol=ALL, handle=5))
    ask("in its place", NEWTFILTER, CREATE, new("a", "matchall", everything, protocol=ALL, handle=1))
    ask(
        "in another pref",
        NEWTFILTER,
        NEW | ECHO,
        new("a", "matchall", everything, protocol=ALL, pref=2, handle=9),
    )
    stage.dump(
        "terse",
        GETTFILTER,
        new("a", "", None, pref=0, protocol=0) + TERSE,
    )
    ask("delete", DELTFILTER, ECHO, new("a", "matchall", None, protocol=ALL, handle=1))
    stage.dump("what is left", GETTFILTER, new("a", "", None, pref=0, protocol=0))
    ask("flush", DELTFILTER, 0, new("a", "", None, pref=0, protocol=0))


def without_hardware(stage: Stage) -> None:
    """What must be in hardware, on a device that has none."""
    ask, new = stage.ask, stage.filter
    ask("flower", NEWTFILTER, NEW, new("a", "flower", flower(TYPE_IP, flags=SKIP_SW)))
    ask("flower for the kernel", NEWTFILTER, NEW | ECHO, new("a", "flower", flower(TYPE_IP, flags=SKIP_HW)))
    ask(
        "matchall",
        NEWTFILTER,
        NEW,
        new("a", "matchall", tlv.join([(3, number(SKIP_SW))]), protocol=ALL, pref=2),
    )
    ask(
        "a pipe that no driver takes",
        NEWTFILTER,
        NEW,
        new("a", "flower", flower(TYPE_IP, flags=SKIP_SW, acts=(gact(PIPE),)), pref=3),
    )
    ask(
        "a queue",
        NEWTFILTER,
        NEW,
        new(
            "a",
            "flower",
            flower(
                TYPE_IP,
                flags=SKIP_SW,
                acts=(
                    action(
                        "skbedit", (2, GENERIC.pack(0, 0, PIPE, 0, 0)), (4, struct.pack("=H", 3)), flags=4
                    ),
                ),
            ),
            pref=3,
        ),
    )
    ask("flush", DELTFILTER, 0, new("a", "", None, pref=0, protocol=0))


def blocks(stage: Stage) -> None:
    """A block that two devices share."""
    ask, new = stage.ask, stage.filter
    ask("delete a", DELQDISC, 0, stage.qdisc("a", ""))
    ask("delete b", DELQDISC, 0, stage.qdisc("b", ""))
    ask("a shares", NEWQDISC, NEW, stage.qdisc("a", extra=tlv.join([(13, number(22))])))
    ask("b shares", NEWQDISC, NEW, stage.qdisc("b", extra=tlv.join([(13, number(22))])))
    ask("get it", GETQDISC, 0, stage.qdisc("b"))
    ask("by the device", NEWTFILTER, NEW, new("a", "flower", flower(TYPE_IP)))
    ask("by the block", NEWTFILTER, NEW | ECHO, new("nobody", "flower", flower(TYPE_IP), parent=22))
    stage.dump("by the other device", GETTFILTER, new("b", "", None, pref=0, protocol=0))
    ask(
        "in hardware",
        NEWTFILTER,
        NEW,
        new("nobody", "flower", flower(TYPE_IP, to(1), flags=SKIP_SW), parent=22, pref=2),
    )
    ask("a lets go", DELQDISC, 0, stage.qdisc("a", ""))
    stage.dump("b still has it", GETTFILTER, new("nobody", "", None, pref=0, protocol=0, parent=22))
    ask("b lets go", DELQDISC, 0, stage.qdisc("b", ""))
    ask("the block went with it", NEWTFILTER, NEW, new("nobody", "flower", flower(TYPE_IP), parent=22))


SCENES = (qdiscs, prefs, parts, matchall, without_hardware, blocks)
"""In this order: the first leaves a clsact on both devices, the last takes them away."""


def play(stage: Stage) -> list[str]:
    """Play all scenes with devices ``a`` and ``b`` that have no qdisc; return what came of each step."""
    for scene in SCENES:
        stage.lines.append(f"--- {scene.__name__}")
        scene(stage)
    return stage.lines


__all__ = ["EXCL", "INGRESS", "play"]
