"""How fast filters go into a kernel and come out again, against tc and pyroute2 in one run.

`u32_figures` needs root; `flower_figures` a kernel with flower besides, such as that of the user-mode Linux guest.
Run as a script it prints the flower figures of this kernel as JSON.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import os
import resource
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from nicoffload.kernel import Netlink
from nicoffload.kernel.linux import LinuxChannel, LinuxKernel
from nicoffload.kernel.seam import NetlinkChannel
from nicoffload.kernel.tc import (
    OUR_HANDLES,
    Gact,
    Hook,
    Lowering,
    Mirred,
    Placing,
    TcFilter,
    TcFilters,
    U32Filter,
    U32Filters,
    U32Key,
    Verdict,
    add_command,
    add_u32_command,
    qdisc,
)
from nicoffload.kernel.tc.actions import cookie_offset, encode_actions
from nicoffload.kernel.tc.flower import ACT, compile_keys, structure
from nicoffload.kernel.tc.lower import Targets
from nicoffload.kernel.tc.template import Rows, fill_block, new_filter
from nicoffload.model import Drop, FlowRule, Match

Figures = dict[str, float]
_DEVICE = "bench0"


@contextlib.contextmanager
def device(kernel: LinuxKernel) -> Iterator[Hook]:
    """Make a device with a clsact; it goes at the end."""
    subprocess.run(f"ip link add {_DEVICE} type veth peer name {_DEVICE}p".split(), check=True)
    try:
        subprocess.run(f"ip link set {_DEVICE} up".split(), check=True)
        with Netlink(kernel, 0) as netlink:
            qdisc.ensure(netlink, socket.if_nametoindex(_DEVICE))
        yield Hook.ingress(socket.if_nametoindex(_DEVICE))
    finally:
        subprocess.run(f"ip link del {_DEVICE}".split(), check=True)


@contextlib.contextmanager
def own_namespace() -> Iterator[LinuxKernel]:
    """Be in a network namespace of its own."""
    name = f"nicoffload-bench-{os.getpid()}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        with LinuxKernel().namespace(f"/run/netns/{name}"):
            yield LinuxKernel()
    finally:
        subprocess.run(["ip", "netns", "del", name], check=True)


def timed(work: Callable[[], object]) -> float:
    """Return how long it takes, in seconds."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def tc_batch(commands: list[str]) -> float:
    """Return how long tc takes for some commands in one batch."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "batch"
        file.write_text("".join(command.removeprefix("tc ") + "\n" for command in commands), "ascii")
        return timed(lambda: subprocess.run(["tc", "-batch", str(file)], check=True))


def insist(outcomes: list[object]) -> None:
    """Stop where a filter of the benchmark was refused: its figure would mean nothing."""
    if bad := [one for one in outcomes if isinstance(one, Exception)]:
        raise RuntimeError(f"{len(bad)} filters were refused, the first: {bad[0]}")


def u32_figures(rules: int = 20_000, runs: int = 5) -> Figures:
    """Compare installing u32 filters in hash tables with `tc -batch`, the best run of each."""
    ours, theirs = [], []
    with own_namespace() as kernel:
        for _ in range(runs):
            with device(kernel) as hook, U32Filters(kernel, hook) as filters:
                add_tables(filters)
                items = u32_items(rules, socket.if_nametoindex(f"{_DEVICE}p"))
                handles = np.array([item.handle for item in items], np.uint32)
                values = np.array([[key.value for key in item.keys] for item in items], np.uint32)
                start = time.perf_counter()
                insist(list(filters.add_columns(items[0], values, handles).values()))
                ours.append(time.perf_counter() - start)
            with device(kernel) as hook, U32Filters(kernel, hook) as filters:
                add_tables(filters)
                items = u32_items(rules, socket.if_nametoindex(f"{_DEVICE}p"))
                theirs.append(
                    tc_batch([add_u32_command(item, hook, socket.if_indextoname) for item in items])
                )
    return {"u32_bulk_over_tc_batch": min(theirs) / min(ours), "u32_rules_per_s": rules / min(ours)}


def add_tables(filters: U32Filters) -> None:
    """Make the tables of `u32_items`."""
    for table in range(1, 17):
        filters.add_table(1, table, buckets=256)


def u32_items(rules: int, ifindex: int) -> list[U32Filter]:
    """Return filters on two addresses, spread over the buckets of 16 tables: the kernel walks a bucket as a list."""
    actions = (Mirred(ifindex=ifindex),)
    return [
        U32Filter(
            keys=(U32Key(12, 0xFFFF_FFFF, 0xAC10_0001), U32Key(16, 0xFFFF_FFFF, 0x0A00_0000 + number)),
            actions=actions,
            pref=1,
            node=1 + (number >> 12),
            table=1 + (number >> 8 & 0xF),
            bucket=number & 0xFF,
        )
        for number in range(rules)
    ]


def encode_figures(rows: int = 1_000_000) -> Figures:
    """Measure encoding alone: five-tuples with a rule id, from columns to messages."""
    match = Match.of(ipv4_src=1, ipv4_dst=2, ip_proto=6, tp_src=3, tp_dst=4)
    actions = (Gact(verdict=Verdict.DROP),)
    template = new_filter(
        "flower",
        0,
        Hook.ingress(1),
        compile_keys(structure(match)),
        actions_kind=ACT,
        actions=encode_actions(actions, bytes(16)),
        cookie_in_actions=cookie_offset(actions),
    )
    numbers = np.arange(rows, dtype=np.uint32)
    full = Rows(
        columns=[numbers] * len(match.shape),
        handles=numbers + 1,
        prefs=np.ones(rows, np.uint32),
        chains=np.zeros(rows, np.uint32),
        cookies=np.zeros((rows, 16), np.uint8),
    )

    def encode() -> None:
        for start in range(0, rows, 2048):
            fill_block(template, full, 1 + start, 64, start, min(start + 2048, rows))

    encode()
    return {"flower_encode_per_s": rows / statistics.median(timed(encode) for _ in range(3))}


def five_tuples(rules: int) -> list[TcFilter]:
    """Return five-tuples that drop, in software."""
    actions = (Gact(verdict=Verdict.DROP),)
    return [
        TcFilter(
            match=Match.of(ipv4_src=0xAC10_0001, ipv4_dst=0x0A00_0000 + number, ip_proto=6, tp_dst=80),
            actions=actions,
            pref=1,
            handle=1 + number,
            placing=Placing.SOFTWARE,
        )
        for number in range(rules)
    ]


def flower_figures(rules: int = 20_000, peer_rules: int = 500, runs: int = 4) -> Figures:
    """Compare installing and reading flower filters with `tc` and with pyroute2, the best run of each.

    `tc` alone takes so long that it runs once, and what disturbs it matters little.
    """
    kernel = LinuxKernel()
    items = five_tuples(rules)
    made = flow_rules(rules)
    handles = np.arange(1, rules + 1, dtype=np.uint32)
    values = {"ipv4_dst": handles + np.uint32(0x0A00_0000 - 1)}
    bulk, objects, stats = [], [], []
    show = f"tc -s -j filter show dev {_DEVICE} ingress".split()
    for _ in range(runs):
        with device(kernel) as hook, TcFilters(kernel, hook) as filters:
            start = time.perf_counter()
            insist(filters.add_many(from_rules(made)))
            objects.append(time.perf_counter() - start)
        with device(kernel) as hook, TcFilters(kernel, hook) as filters:
            start = time.perf_counter()
            insist(list(filters.add_columns(items[0], values, handles).values()))
            bulk.append(time.perf_counter() - start)
            for _ in range(3):
                start = time.perf_counter()
                found = filters.counters()
                stats.append(time.perf_counter() - start)
            if len(found.handles) != rules:
                raise RuntimeError("not all filters were read")
            if len(bulk) == runs:
                by_tc = timed(
                    lambda: json.loads(subprocess.run(show, check=True, capture_output=True).stdout)
                )
    with device(kernel) as hook:
        batch = tc_batch([add_command(item, hook, lambda _: _DEVICE) for item in items])
    with device(kernel) as hook:
        peer = by_pyroute2(hook, peer_rules)
    return {
        "flower_bulk_over_tc_batch": batch / min(bulk),
        "flower_rules_per_s": rules / min(bulk),
        "flower_bulk_over_pyroute2": (peer / peer_rules) / (min(bulk) / rules),
        "flower_rule_objects_over_tc_batch": batch / min(objects),
        "flower_stats_over_tc_json": by_tc / min(stats),
        "flower_stats_per_s": rules / min(stats),
    }


def flow_rules(rules: int) -> list[FlowRule]:
    """Return the rules of `five_tuples` as the model has them, each with an id of its own."""
    actions = (Drop(),)
    return [
        FlowRule(
            match=Match.of(ipv4_src=0xAC10_0001, ipv4_dst=0x0A00_0000 + number, ip_proto=6, tp_dst=80),
            actions=actions,
        )
        for number in range(rules)
    ]


def from_rules(rules: list[FlowRule]) -> list[TcFilter]:
    """Lower rules to filters."""
    lower = Lowering(Targets(ifindexes={}))
    return [
        TcFilter(
            match=rule.match,
            actions=lower(rule.actions, rule.match).actions,
            pref=1,
            handle=OUR_HANDLES + number,
            placing=Placing.SOFTWARE,
            rule_id=rule.rule_id,
        )
        for number, rule in enumerate(rules)
    ]


def by_pyroute2(hook: Hook, rules: int) -> float:
    """Return how long pyroute2 takes for flower filters, with the keys that it lacks registered from outside."""
    from pyroute2 import IPRoute
    from pyroute2.netlink import NLA_F_NESTED, nla
    from pyroute2.netlink.rtnl.tcmsg import common_act, plugins

    class Flower:
        class options(nla):  # noqa: N801  (pyroute2 names it)
            nla_flags = NLA_F_NESTED
            nla_map = tuple(
                (f"TCA_FLOWER_{number}", kind)
                for number, kind in enumerate(
                    ["none", "uint32", "asciiz", "act", *["hex"] * 4, "be16", "uint8"]
                    + ["ip4addr"] * 4
                    + ["ip6addr"] * 4
                    + ["be16"] * 4
                    + ["uint32"]
                )
            )
            act = (
                common_act.tca_act_prio
                if hasattr(common_act, "tca_act_prio")
                else common_act.nla_plus_tca_act_opt
            )

        @staticmethod
        def fix_request(request: dict[str, object]) -> None:
            request["info"] = socket.htons(0x0800) | 1 << 16

        @staticmethod
        def get_parameters(words: dict[str, object]) -> dict[str, object]:
            keys = [(8, 0x0800), (9, 6), (10, "172.16.0.1"), (12, words["destination"]), (19, 80), (22, 1)]
            return {"attrs": [[f"TCA_FLOWER_{number}", value] for number, value in keys]}

    plugins["flower"] = Flower
    with IPRoute() as route:

        def add() -> None:
            for number in range(rules):
                destination = str(ipaddress.IPv4Address(0x0A00_0000 + number))
                route.tc(
                    "add-filter",
                    kind="flower",
                    index=hook.ifindex,
                    parent=hook.parent,
                    prio=1,
                    handle=1 + number,
                    protocol=0x0800,
                    destination=destination,
                )

        return timed(add)


def rss_figures(rules: int = 100_000) -> Figures:
    """Measure the peak of memory that installing rules takes, rules included."""
    kernel = LinuxKernel()
    with device(kernel) as hook:
        return rss_of(kernel, hook, rules)


def rss_alone_figures(rules: int = 100_000) -> Figures:
    """Measure the same where there is no flower: every send is acknowledged, and no kernel sees it."""
    return rss_of(Acknowledging(), Hook.ingress(1), rules)


def rss_of(kernel: LinuxKernel, hook: Hook, rules: int) -> Figures:
    """Install rules, and return the peak of memory of this process, in MiB."""
    with TcFilters(kernel, hook) as filters:
        insist(filters.add_many(from_rules(flow_rules(rules))))
    return {"rss_mb_100k_rules": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


class Acknowledging(LinuxKernel):
    """A kernel that takes whatever is sent."""

    def open_netlink(self, family: int) -> NetlinkChannel:
        """Open a socket that acknowledges the last message of each send."""
        return AcknowledgingChannel(family)


class AcknowledgingChannel(LinuxChannel):
    """Its socket. What is sent goes nowhere."""

    def send(self, data: bytes | bytearray | memoryview) -> None:
        """Note the last message of a send: all of one send are equally long."""
        [length] = struct.unpack_from("=I", data)
        self._last = bytes(data[len(data) - length :][8:12])

    def receive(self, timeout_s: float | None = None) -> bytes:
        """Return its acknowledgement."""
        return struct.pack("=IHH4sIi", 36, 2, 0x100, self._last, 0, 0) + bytes(16)


FIGURES: dict[str, Callable[[], Figures]] = {
    "flower": lambda: encode_figures() | flower_figures(),
    "rss": rss_figures,
    "rss-alone": rss_alone_figures,
}

if __name__ == "__main__":
    print(json.dumps(FIGURES[(sys.argv[1:] or ["flower"])[0]](), indent=2))
