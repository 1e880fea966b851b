"""Counters of the uplink and of VFs, each from where the driver has them, and none where it has none."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from nicoffload.driver.contract import Statistics
from nicoffload.errors import NicOffloadError
from nicoffload.kernel.link import read_link
from nicoffload.kernel.vf import VfLink
from nicoffload.linux.counting import counter_facts
from nicoffload.linux.nic import LinuxNic
from nicoffload.model import TrafficStats, format_switch_port
from nicoffload.model.values import FIRST_VF_PORT
from nicoffload.profiles.types import Counters

_MIRRORED = {
    "rx_packets": "tx_packets",
    "tx_packets": "rx_packets",
    "rx_bytes": "tx_bytes",
    "tx_bytes": "rx_bytes",
    "rx_dropped": "tx_dropped",
    "tx_dropped": "rx_dropped",
}
_VALUES = tuple(_MIRRORED)


class LinuxStatistics(Statistics):
    """Counters through rtnetlink and representors, as the profile says what they mean.

    Args:
        nic: The NIC.
    """

    def __init__(self, nic: LinuxNic) -> None:
        self._nic = nic

    def read(self) -> Sequence[TrafficStats]:
        """Return the counters of the uplink and of every VF that has some.

        Linux says 0 for a VF whose driver counts nothing; such a VF is left out here.
        """
        with self._nic.asking("reading counters", "statistics"):
            return [*self._uplink(), *self._vfs()]

    def _uplink(self) -> Iterator[TrafficStats]:
        port = self._nic.profile.statistics.port
        if port is not None:
            yield self._row("uplink", self._nic.pf().ifindex, port, "nic:port")

    def _vfs(self) -> Iterator[TrafficStats]:
        statistics = self._nic.profile.statistics
        if statistics.vf is not None:
            with VfLink(self._nic.kernel, self._nic.pf().ifindex, device=self._nic.device) as link:
                yield from (
                    _only(one, statistics.vf) for one in link.traffic(counter_facts(statistics.vf, "nic:vf"))
                )
            return
        representor = statistics.representor
        if representor is None or representor.counts != "all" or statistics.port is None:
            return
        for vf, one in sorted(self._nic.ports().representors.items()):
            name = format_switch_port(FIRST_VF_PORT + vf)
            try:
                yield self._row(
                    name,
                    one.ifindex,
                    statistics.port,
                    "nic:representor",
                    mirrored=representor.direction == "switch",
                )
            except NicOffloadError:
                continue  # it went with its VF since

    def _row(
        self, name: str, ifindex: int, counters: Counters, source: str, *, mirrored: bool = False
    ) -> TrafficStats:
        found = read_link(self._nic.kernel, ifindex, device=self._nic.device).counters
        values: dict[str, Any] = {
            value: found.get(_MIRRORED[value] if mirrored else value) if value in counters.values else None
            for value in _VALUES
        }
        return TrafficStats(name=name, facts=counter_facts(counters, source), **values)


def _only(stats: TrafficStats, counters: Counters) -> TrafficStats:
    """Return counters without those that the driver does not have, which Linux gives as 0."""
    values: dict[str, Any] = {value: None for value in _VALUES if value not in counters.values}
    return replace(stats, **values)
