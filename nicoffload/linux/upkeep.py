"""Rates that a driver drops when the link changes, set again when the kernel tells of it."""

from __future__ import annotations

from collections.abc import Sequence

from nicoffload.driver.contract import Mended, Upkeep
from nicoffload.errors import NicOffloadError
from nicoffload.kernel.events import Events, LinkEvent, Lost, Topic
from nicoffload.linux.nic import LinuxNic
from nicoffload.linux.rates import LinuxRates
from nicoffload.model import RateLimit


class RateUpkeep(Upkeep):
    """Sets rates again that igb and ixgbe zero when the speed of the link changes.

    Source: igb_main.c:9822 (igb_check_vf_rate_limit), ixgbe_sriov.c:1621.

    Args:
        nic: The NIC.
        rates: Its rates, which know what was asked for in this process.
    """

    def __init__(self, nic: LinuxNic, rates: LinuxRates) -> None:
        self._nic = nic
        self._rates = rates
        self._events: Events | None = None

    def wait(self, timeout_s: float) -> bool:
        """Wait for an event of the NIC's link. The first call begins to listen, and says yes: nobody did before."""
        with self._nic.asking("listening for events", "events"):
            if self._events is None:
                self._events = Events(self._nic.kernel, (Topic.LINK,))
                return True
            ifindex = self._nic.pf().ifindex
            return any(
                isinstance(event, Lost) or (isinstance(event, LinkEvent) and event.ifindex == ifindex)
                for event in self._events.read(timeout_s)
            )

    def mend(self) -> Sequence[Mended]:
        """Set again the rates that the driver dropped, in one call."""
        lost = self._rates.lost()
        if not lost:
            return ()
        answers = self._rates.set_many(lost)
        return [
            Mended(
                target=f"vf:{vf}/rate",
                detail=f"the driver dropped {_words(limit)} when the link changed",
                error=answer if isinstance(answer := answers[vf], NicOffloadError) else None,
            )
            for vf, limit in lost.items()
        ]

    def close(self) -> None:
        """Stop listening. Repeatable."""
        if self._events is not None:
            self._events.close()
            self._events = None


def _words(limit: RateLimit) -> str:
    parts = [
        f"{word} {bps} bit/s"
        for word, bps in (("the guarantee of", limit.min_tx_bps), ("the limit of", limit.max_tx_bps))
        if bps is not None
    ]
    return " and ".join(parts)
