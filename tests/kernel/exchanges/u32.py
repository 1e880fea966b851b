"""Filters of u32 on a device without hardware: tables, links, and who gives the numbers."""

from __future__ import annotations

import struct

from tests.fake_kernel import tlv
from tests.kernel.exchanges.filters import SKIP_HW, SKIP_SW, TERSE, actions, mirred
from tests.kernel.exchanges.stage import (
    CREATE,
    DELQDISC,
    DELTFILTER,
    ECHO,
    GETTFILTER,
    NEW,
    NEWQDISC,
    NEWTFILTER,
    Stage,
    number,
)


def selector(*keys: tuple[int, int, int, int], link: bool = False, count: int | None = None) -> bytes:
    """Return a selector of keys (mask, value, offset, offset mask)."""
    flags = 12 if link else 1
    mask = 0x0F00 if link else 0
    size = len(keys) if count is None else count
    head = struct.pack("=BBBx", flags, 6 if link else 0, size) + struct.pack(">H", mask) + bytes(10)
    return head + b"".join(struct.pack(">II", *key[:2]) + struct.pack("=ii", *key[2:]) for key in keys)


DST = (0xFFFFFFFF, 0x0A000001, 16, 0)


def words(stage: Stage, *more: tuple[int, bytes], sel: bytes | None = None, acts: bool = True) -> bytes:
    parts = [*more, (5, selector(DST) if sel is None else sel)]
    if acts:
        parts.append((7, actions(mirred(stage.devices["b"]))))
    return tlv.join(parts)


def play(stage: Stage) -> list[str]:
    """Play with devices ``a`` and ``b`` that have no qdisc; return what came of each step."""
    ask = stage.ask

    def new(options: bytes | None, **more) -> bytes:
        return stage.filter("a", "u32", options, **more)

    def table(buckets: int, *more: tuple[int, bytes]) -> bytes:
        return tlv.join([(4, number(buckets)), *more])

    ask("clsact", NEWQDISC, NEW, stage.qdisc("a"))
    ask("no options and a handle", NEWTFILTER, NEW, new(None, handle=0x80000005))
    ask("both of skip_hw and skip_sw", NEWTFILTER, NEW, new(words(stage, (11, number(3)))))
    ask("no selector", NEWTFILTER, NEW, new(tlv.join([(7, actions(mirred(stage.devices["b"])))])))
    ask("a selector cut short", NEWTFILTER, NEW, new(words(stage, sel=selector(DST)[:12])))
    ask("a selector of fewer keys", NEWTFILTER, NEW, new(words(stage, sel=selector(DST, count=2))))
    ask("no such table", NEWTFILTER, NEW, new(words(stage, (2, number(0x12300000)))))
    ask(
        "an action that is refused",
        NEWTFILTER,
        NEW,
        new(tlv.join([(5, selector(DST)), (7, actions(mirred(0)))])),
    )
    stage.dump("nothing is left of them", GETTFILTER, stage.filter("a", "", None, pref=0, protocol=0))
    ask("the kernel's handle", NEWTFILTER, NEW | ECHO, new(words(stage)))
    ask("the next", NEWTFILTER, NEW | ECHO, new(words(stage)))
    ask("a node of ours", NEWTFILTER, NEW | ECHO, new(words(stage), handle=0x5))
    ask("it again", NEWTFILTER, NEW, new(words(stage), handle=0xFFF00005))
    ask("in its place", NEWTFILTER, CREATE | ECHO, new(words(stage), handle=0xFFF00005))
    ask(
        "in its place with other flags",
        NEWTFILTER,
        CREATE,
        new(words(stage, (11, number(1))), handle=0xFFF00005),
    )
    ask("a bucket too far", NEWTFILTER, NEW, new(words(stage, (2, number(0xFFF01000)))))
    ask("another pref has a table of its own", NEWTFILTER, NEW | ECHO, new(words(stage), pref=2))
    ask("a table of three buckets", NEWTFILTER, NEW, new(table(3), handle=0x12300000))
    ask("a table of too many", NEWTFILTER, NEW, new(table(512), handle=0x12300000))
    ask("a table of no bucket", NEWTFILTER, NEW, new(table(0), handle=0x12300000))
    ask("a table with a node", NEWTFILTER, NEW, new(table(1), handle=0x12300001))
    ask("a table", NEWTFILTER, NEW | ECHO, new(table(4), handle=0x12300000))
    ask("it again", NEWTFILTER, NEW, new(table(4), handle=0x12300000))
    ask("it again, without exclusion", NEWTFILTER, CREATE, new(table(4), handle=0x12300000))
    ask("a table of the kernel's number", NEWTFILTER, NEW | ECHO, new(table(1)))
    ask("a table in hardware", NEWTFILTER, NEW, new(table(1, (11, number(SKIP_SW))), handle=0x12400000))
    ask("in the table", NEWTFILTER, NEW | ECHO, new(words(stage, (2, number(0x12302000))), handle=0x12302007))
    ask("of another table", NEWTFILTER, NEW, new(words(stage, (2, number(0x12302000))), handle=0x12502007))
    ask("a bucket too far", NEWTFILTER, NEW, new(words(stage, (2, number(0x12304000)))))
    jump = selector((0xFF << 16, 6 << 16, 8, 0), link=True)
    ask(
        "a link",
        NEWTFILTER,
        NEW | ECHO,
        new(words(stage, (3, number(0x12300000)), sel=jump, acts=False), handle=9),
    )
    ask(
        "a link to a filter",
        NEWTFILTER,
        NEW,
        new(words(stage, (3, number(0x12300001)), sel=jump, acts=False)),
    )
    ask(
        "a link to no table",
        NEWTFILTER,
        NEW,
        new(words(stage, (3, number(0x45600000)), sel=jump, acts=False)),
    )
    ask("a link to a root", NEWTFILTER, NEW, new(words(stage, (3, number(0x80000000)), sel=jump, acts=False)))
    ask("for the kernel", NEWTFILTER, NEW | ECHO, new(words(stage, (11, number(SKIP_HW))), pref=3))
    # Linux looks at the wrong flags, and takes what no hardware took.
    ask(
        "for the hardware that is not there",
        NEWTFILTER,
        NEW | ECHO,
        new(words(stage, (11, number(SKIP_SW))), pref=3),
    )
    stage.dump("all", GETTFILTER, stage.filter("a", "", None, pref=0, protocol=0))
    stage.dump("of one pref", GETTFILTER, stage.filter("a", "", None, pref=2, protocol=0))
    stage.dump("terse", GETTFILTER, stage.filter("a", "", None, pref=2, protocol=0) + TERSE)
    ask("get a table", GETTFILTER, 0, new(None, handle=0x12300000))
    ask("get a filter", GETTFILTER, 0, new(None, handle=0x12302007))
    ask("get a root", GETTFILTER, 0, new(None, handle=0xFFF00000))
    ask("get none", GETTFILTER, 0, new(None, handle=0x12302008))
    ask("delete a root", DELTFILTER, 0, new(None, handle=0x80000000))
    ask("delete a table in use", DELTFILTER, 0, new(None, handle=0x12300000))
    ask("delete the link", DELTFILTER, ECHO, new(None, handle=0x80000009))
    # The table that it led to can be removed only after a grace period, and so at no certain time.
    ask("delete a table that nothing led to", DELTFILTER, ECHO, new(None, handle=0x80200000))
    ask("delete pref 2", DELTFILTER, 0, new(None, pref=2))
    ask("delete pref 3's first", DELTFILTER, 0, new(None, pref=3, handle=0x80200800))
    stage.dump("what is left", GETTFILTER, stage.filter("a", "", None, pref=0, protocol=0))
    ask("flush", DELTFILTER, 0, stage.filter("a", "", None, pref=0, protocol=0))
    ask("the first root again", NEWTFILTER, NEW | ECHO, new(words(stage)))
    ask("delete the only filter", DELTFILTER, 0, new(None, handle=0x80000800))
    stage.dump("the pref went with it", GETTFILTER, stage.filter("a", "", None, pref=0, protocol=0))
    ask("done", DELQDISC, 0, stage.qdisc("a", ""))
    return stage.lines
