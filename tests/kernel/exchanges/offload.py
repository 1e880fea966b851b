"""Filters on a NIC that takes what it is not told to refuse: what comes through of a driver's refusal, and what not."""

from __future__ import annotations

from collections.abc import Callable

from nicoffload.kernel.features import FeatureName, set_feature
from nicoffload.kernel.seam import Kernel
from tests.fake_kernel import tlv
from tests.kernel.exchanges.filters import SHOT, SKIP_HW, SKIP_SW, TYPE_IP, actions, flower, gact, to
from tests.kernel.exchanges.stage import (
    ALL,
    CREATE,
    DELQDISC,
    DELTFILTER,
    ECHO,
    EGRESS,
    GETTFILTER,
    NEW,
    NEWQDISC,
    NEWTFILTER,
    Stage,
    number,
)
from tests.kernel.exchanges.u32 import words

Knob = Callable[[str, int], None]
"""Sets a file of the first port's flow table in debugfs, such as ``max``."""


def play(stage: Stage, kernel: Kernel, ifnames: tuple[str, str], knob: Knob) -> list[str]:
    """Play with ports ``a`` and ``b`` of one netdevsim without qdiscs; return what came of each step.

    Args:
        stage: The stage.
        kernel: Its kernel.
        ifnames: Names of the two ports.
        knob: Sets what its driver does.
    """
    ask, new = stage.ask, stage.filter

    def drop(last: int, flags: int | None = None) -> bytes:
        return flower(TYPE_IP, to(last), flags=flags, acts=(gact(SHOT),))

    def everything(flags: int) -> bytes:
        return tlv.join([(3, number(flags)), (2, actions(gact(SHOT)))])

    set_feature(kernel, ifnames[0], FeatureName.HW_TC_OFFLOAD, on=False)
    ask("clsact", NEWQDISC, NEW, stage.qdisc("a"))
    ask("off: hardware", NEWTFILTER, NEW, new("a", "flower", drop(1, SKIP_SW)))
    ask("off: both", NEWTFILTER, NEW | ECHO, new("a", "flower", drop(1)))
    ask("off: matchall", NEWTFILTER, NEW, new("a", "matchall", everything(SKIP_SW), pref=2, protocol=ALL))
    ask(
        "off: a table",
        NEWTFILTER,
        NEW,
        new("a", "u32", tlv.join([(4, number(1)), (11, number(2))]), pref=3, handle=0x500000),
    )
    for ifname in ifnames:
        set_feature(kernel, ifname, FeatureName.HW_TC_OFFLOAD, on=True)
    ask("on: hardware", NEWTFILTER, NEW | ECHO, new("a", "flower", drop(2, SKIP_SW)))
    ask("on: both", NEWTFILTER, NEW | ECHO, new("a", "flower", drop(3)))
    ask("on: kernel", NEWTFILTER, NEW | ECHO, new("a", "flower", drop(4, SKIP_HW)))
    ask("in its place", NEWTFILTER, CREATE | ECHO, new("a", "flower", drop(5), handle=2))
    ask(
        "a pipe, for both",
        NEWTFILTER,
        NEW | ECHO,
        new("a", "flower", flower(TYPE_IP, to(6), acts=(gact(3),))),
    )
    ask(
        "a pipe, for the hardware",
        NEWTFILTER,
        NEW,
        new("a", "flower", flower(TYPE_IP, to(7), flags=SKIP_SW, acts=(gact(3),))),
    )
    ask("another chain", NEWTFILTER, NEW, new("a", "flower", drop(8, SKIP_SW), chain=3))
    ask("another chain, for both", NEWTFILTER, NEW | ECHO, new("a", "flower", drop(8), chain=3))
    ask("egress", NEWTFILTER, NEW, new("a", "flower", drop(9, SKIP_SW), parent=EGRESS))
    ask("matchall", NEWTFILTER, NEW, new("a", "matchall", everything(SKIP_SW), pref=4, protocol=ALL))
    knob("max", 3)
    ask("full: hardware", NEWTFILTER, NEW, new("a", "flower", drop(10, SKIP_SW)))
    ask("full: both", NEWTFILTER, NEW | ECHO, new("a", "flower", drop(10)))
    ask("full: matchall", NEWTFILTER, NEW, new("a", "matchall", everything(SKIP_SW), pref=5, protocol=ALL))
    ask("full: matchall for both", NEWTFILTER, NEW, new("a", "matchall", everything(0), pref=5, protocol=ALL))
    ask("full: words", NEWTFILTER, NEW | ECHO, new("a", "u32", words(stage, (11, number(SKIP_SW))), pref=6))
    ask("make room", DELTFILTER, ECHO, new("a", "flower", None, handle=2))
    ask("no longer full", NEWTFILTER, NEW | ECHO, new("a", "flower", drop(11, SKIP_SW)))
    knob("max", 0)
    ask(
        "words in hardware",
        NEWTFILTER,
        NEW | ECHO,
        new("a", "u32", words(stage, (11, number(SKIP_SW))), pref=6),
    )
    knob("reject_kinds", 7)
    ask("refused: flower", NEWTFILTER, NEW, new("a", "flower", drop(12, SKIP_SW)))
    ask("refused: matchall", NEWTFILTER, NEW, new("a", "matchall", everything(SKIP_SW), pref=7, protocol=ALL))
    ask(
        "refused: words", NEWTFILTER, NEW | ECHO, new("a", "u32", words(stage, (11, number(SKIP_SW))), pref=6)
    )
    ask(
        "refused: a table",
        NEWTFILTER,
        NEW,
        new("a", "u32", tlv.join([(4, number(1)), (11, number(2))]), pref=8, handle=0x600000),
    )
    ask("refused: verbose", NEWTFILTER, NEW, new("a", "flower", drop(13, 16)))
    knob("reject_kinds", 0)
    stage.dump("all", GETTFILTER, new("a", "", None, pref=0, protocol=0))
    ask("share with one that has", DELQDISC, 0, stage.qdisc("a", ""))
    ask("a shares", NEWQDISC, NEW, stage.qdisc("a", extra=tlv.join([(13, number(9))])))
    ask("in hardware of a", NEWTFILTER, NEW | ECHO, new("nobody", "flower", drop(1), parent=9))
    ask("b shares", NEWQDISC, NEW, stage.qdisc("b", extra=tlv.join([(13, number(9))])))
    stage.dump("in hardware of both", GETTFILTER, new("nobody", "", None, pref=0, protocol=0, parent=9))
    ask("a lets go", DELQDISC, 0, stage.qdisc("a", ""))
    stage.dump("in hardware of b", GETTFILTER, new("nobody", "", None, pref=0, protocol=0, parent=9))
    ask("b lets go", DELQDISC, 0, stage.qdisc("b", ""))
    return stage.lines
