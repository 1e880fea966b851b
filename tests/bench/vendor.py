"""What a vendor's plugin costs over the kernel layer, and `open_nic` over the plugin; printed as JSON.

Run in the guest, on a simulated NIC: `python tests/bench/vendor.py netdevsim/netdevsim10`.
"""

from __future__ import annotations

import gc
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from nicoffload import load_registry, open_nic
from nicoffload.compiler import Compiler
from nicoffload.driver.contract import Placement, RuleRef
from nicoffload.kernel.linux import LinuxKernel
from nicoffload.kernel.netlink import Netlink
from nicoffload.kernel.seam import NETLINK_ROUTE
from nicoffload.kernel.tc import (
    FilterRef,
    Hook,
    Lowering,
    Placing,
    Targets,
    TcFilter,
    TcFilters,
    qdisc,
)
from nicoffload.linux import LinuxDriver
from nicoffload.model import Drop, FlowRule, Match
from nicoffload.nic import Nic

Figures = dict[str, float]


def five_tuples(count: int) -> list[FlowRule]:
    """Return rules on five-tuples, all different."""
    drop = (Drop(),)
    return [
        FlowRule(
            match=Match.of(
                ipv4_src=0x0A000000 + n,
                ipv4_dst=0x0B000000 + n,
                ip_proto=6,
                tp_src=1024 + n % 50_000,
                tp_dst=80,
            ),
            actions=drop,
        )
        for n in range(count)
    ]


def timed(work: Callable[[], object]) -> tuple[float, object]:
    """Return how long something took, and its result; without the collector, which others' garbage would wake."""
    gc.collect()
    gc.disable()
    try:
        start = time.perf_counter()
        found = work()
        return time.perf_counter() - start, found
    finally:
        gc.enable()


def by_kernel(rules: Sequence[FlowRule], ifindex: int) -> float:
    """Install rules through the kernel layer alone, from the model's objects on."""
    kernel = LinuxKernel()
    with Netlink(kernel, NETLINK_ROUTE) as netlink:
        qdisc.ensure(netlink, ifindex)

    with TcFilters(kernel, Hook.ingress(ifindex)) as filters:

        def work() -> list[object]:
            lower = Lowering(Targets(ifindexes={}))
            items = [
                TcFilter(
                    match=rule.match,
                    actions=lower(rule.actions, rule.match).actions,
                    pref=100,
                    handle=0x8000_0001 + n,
                    placing=Placing.HARDWARE,
                    rule_id=rule.rule_id,
                )
                for n, rule in enumerate(rules)
            ]
            return list(filters.add_many(items))

        took, outcomes = timed(work)
        refs = [one for one in outcomes if isinstance(one, FilterRef)]  # type: ignore[attr-defined]
        if len(refs) != len(rules):
            raise RuntimeError(f"{len(rules) - len(refs)} rules were refused")
        filters.delete_many(refs)
    return took


def by_kernel_columns(rules: Sequence[FlowRule], ifindex: int) -> float:
    """Install rules through the kernel layer's fastest way, still from the model's objects on."""
    kernel = LinuxKernel()
    with TcFilters(kernel, Hook.ingress(ifindex)) as filters:

        def work() -> object:
            first = rules[0]
            like = TcFilter(
                match=first.match,
                actions=Lowering(Targets(ifindexes={}))(first.actions, first.match).actions,
                pref=100,
                placing=Placing.HARDWARE,
                rule_id=first.rule_id,
            )
            names = [name for name, _ in first.match.shape]
            values = zip(*(rule.match.values for rule in rules), strict=True)
            columns = {
                name: np.array(column, np.uint64)
                for name, column in zip(names, values, strict=True)
                if name not in {"eth_type", "ip_proto"}
            }
            cookies = np.frombuffer(b"".join([rule.rule_id.bytes for rule in rules]), np.uint8)
            handles = np.arange(0x8000_0001, 0x8000_0001 + len(rules), dtype=np.uint32)
            return filters.add_columns(like, columns, handles, cookies=cookies.reshape(-1, 16))

        took, refused = timed(work)
        if refused:
            raise RuntimeError(f"some rules were refused: {refused}")
        filters.delete_many([state.ref for state in filters.dump()])
    return took


def by_driver(rules: Sequence[FlowRule], driver: LinuxDriver) -> float:
    """Install the same through the plugin, each with its place."""
    filters = driver.flow_filters
    assert filters is not None
    placements = [
        one for one in Compiler(filters.tables(), vfs=0).place_many(rules) if isinstance(one, Placement)
    ]
    took, outcomes = timed(lambda: filters.create_many(placements))
    refs = [one for one in outcomes if isinstance(one, RuleRef)]  # type: ignore[attr-defined]
    if len(refs) != len(rules):
        raise RuntimeError(f"{len(rules) - len(refs)} rules were refused")
    filters.destroy_many(refs)
    return took


def by_nic(rules: Sequence[FlowRule], name: str) -> tuple[float, Figures]:
    """Install the same through `open_nic`, with a journal in a file; return how long all took, and parts of it."""
    with tempfile.TemporaryDirectory() as folder, open_nic(name, state_dir=Path(folder)) as nic:
        nic.flows()
        parts = _watched(nic)
        took, _ = timed(lambda: nic.add_flows(rules))
        spent = dict(parts)
        nic.remove_flows([rule.rule_id for rule in rules])
    return took, spent


def _watched(nic: Nic) -> Figures:
    """Let a NIC note how long its parts take, in seconds by name."""
    book = nic._book
    assert book is not None
    spent: Figures = {}

    def watch(owner: object, method: str, name: str) -> None:
        inner = getattr(owner, method)

        def watched(*words: object, **options: object) -> object:
            start = time.perf_counter()
            try:
                return inner(*words, **options)
            finally:
                spent[name] = spent.get(name, 0.0) + time.perf_counter() - start

        setattr(owner, method, watched)

    watch(book.compiler(), "place_many", "place")
    watch(nic._journal, "begin", "begin")
    watch(nic._journal, "finish", "finish")
    watch(book.filters, "create_many", "create")
    watch(book.filters, "dump", "read_back")
    return spent


def figures(name: str, count: int = 10_000, runs: int = 3) -> Figures:
    """Return the ratios on a NIC."""
    driver = load_registry().open(name)
    assert isinstance(driver, LinuxDriver)
    ifindex = driver.nic.pf().ifindex
    kernel: list[float] = []
    vendor: list[float] = []
    whole: list[tuple[float, Figures]] = []
    columns: list[float] = []
    for _ in range(runs):
        rules = five_tuples(count)
        kernel.append(by_kernel(rules, ifindex))
        columns.append(by_kernel_columns(rules, ifindex))
        vendor.append(by_driver(rules, driver))
        whole.append(by_nic(rules, name))
    took, parts = min(whole, key=lambda one: one[0])
    return {
        # Against the faster way of the kernel layer, and against the one that takes an object a rule.
        "vendor_over_kernel": min(vendor) / min(columns),
        "vendor_over_kernel_objects": min(vendor) / min(kernel),
        "nic_over_driver": took / min(vendor),
        "driver_us_per_rule": min(vendor) / count * 1e6,
        "nic_us_per_rule": took / count * 1e6,
        **{f"nic_{name}_us_per_rule": spent / count * 1e6 for name, spent in parts.items()},
    }


if __name__ == "__main__":
    print(json.dumps(figures(sys.argv[1]), indent=2))
