"""Tells what was measured in a few lines of text."""

from __future__ import annotations

from collections.abc import Iterator

from examples.lab.records import Goal, PathsView, Results

MAX_FLOWS = 8


def lines(results: Results) -> Iterator[str]:
    """Yield the text, line by line."""
    for view in results.paths:
        yield from _view(view)
    for udp in results.udp:
        if udp.switches:
            yield (
                f"UDP, {udp.switches:,} switches in {udp.seconds:.1f} s ({udp.vswitch}) at "
                f"{udp.rate_bps / 1e6:.0f} Mbit/s: {udp.sent:,} sent, {udp.nic_packets:,} by the NIC, {udp.lost} lost "
                f"({udp.dropped_by_vswitch} by the virtual switch), {udp.duplicated} duplicated, "
                f"{udp.reordered} reordered; a switch takes {udp.switch_ms:.1f} ms"
            )
        else:
            yield f"UDP without switching ({udp.vswitch}): {udp.sent:,} sent, {udp.lost} lost"
    goals = results.goals()
    if goals:
        yield ""
        yield from map(goal_line, goals)


def goal_line(goal: Goal) -> str:
    """Return a goal in one line."""
    sign = ">=" if goal.is_least else "<="
    return f"{'held  ' if goal.held else 'MISSED'}  {goal.text}: {goal.value:.3g} ({sign} {goal.limit:g})"


def _view(view: PathsView) -> Iterator[str]:
    yield ""
    yield f"{'flow':<64} {'vswitch':>10} {'NIC':>10} {'moves':>6}"
    for flow in view.flows[:MAX_FLOWS]:
        yield f"{flow.flow:<64} {flow.vswitch_packets:>10,} {flow.nic_packets:>10,} {flow.moves:>6}"
    if len(view.flows) > MAX_FLOWS:
        yield f"... and {len(view.flows) - MAX_FLOWS} more in flows.csv"
    yield (
        f"to the VMs: {view.counted_packets:,} packets in the view, {view.received_packets:,} at their interfaces, "
        f"{view.dropped_by_vswitch:,} dropped by the virtual switch"
    )
    yield ""
