"""Stands between `open_nic` and a driver: keeps it open, makes its journal durable, and fails at the n-th call."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from nicoffload.driver import (
    Driver,
    DriverFactory,
    FlowFilters,
    OpenContext,
    PacketPath,
    RateControl,
    Statistics,
    VirtualFunctions,
)
from nicoffload.errors import KernelError
from nicoffload.model import Capability, DeviceInfo
from nicoffload.nic import Nic, open_nic
from nicoffload.profiles.load import Catalog
from nicoffload.profiles.types import NicProfile
from nicoffload.registry import Registry
from nicoffload.testing.conformance.under_test import NicUnderTest

CHANGING: Mapping[str, tuple[str, ...]] = {
    "flow_filters": ("create_many", "destroy_many", "enable_table", "set_mode"),
    "virtual_functions": ("set_count", "configure_many", "reset", "bind"),
    "rates": ("set_many",),
}
"""Calls of each facet that change a NIC."""


class Killed(BaseException):
    """The process that makes a change is gone: nobody in it handles anything any more."""


class Strike:
    """Counts the calls that change a NIC, and strikes at one of them.

    Args:
        at: The call to strike at, from 0; None for none.
        after: Whether the call is carried out first.
        kills: Whether the process is gone from then on; otherwise that one call fails.
    """

    def __init__(self, at: int | None = None, *, after: bool = False, kills: bool = False) -> None:
        self._at = at
        self._after = after
        self._kills = kills
        self.calls: list[str] = []
        self.dead = False

    def __call__(self, name: str, call: Callable[[], Any]) -> Any:
        """Carry out a call, or strike."""
        if self.dead:
            raise Killed(name)
        number = len(self.calls)
        self.calls.append(name)
        if number != self._at:
            return call()
        if self._after:
            call()
        return self._strike(name)

    def look(self, call: Callable[[], Any]) -> Any:
        """Carry out a call that changes nothing."""
        if self.dead:
            raise Killed
        return call()

    def _strike(self, name: str) -> NoReturn:
        if self._kills:
            self.dead = True
            raise Killed(name)
        raise KernelError(f"{name} was made to fail by the conformance kit", device="conformance")


class _Facet:
    """A facet whose changing calls pass through a strike."""

    def __init__(self, facet: object, names: Sequence[str], strike: Strike) -> None:
        self._facet = facet
        self._names = names
        self._strike = strike

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._facet, name)
        if not callable(value):
            return value
        strike = self._strike
        if name in self._names:
            return lambda *args, **keywords: strike(name, lambda: value(*args, **keywords))
        return lambda *args, **keywords: strike.look(lambda: value(*args, **keywords))


class Between(Driver):
    """A driver that hands every call on to another one.

    Args:
        driver: The other one; it is not closed.
        strike: What the changing calls pass through.
        durable: Whether the journal is on disk.
    """

    def __init__(self, driver: Driver, strike: Strike | None = None, *, durable: bool = False) -> None:
        self._driver = driver
        self._durable = durable
        self.strike = strike or Strike()
        for name in ("flow_filters", "virtual_functions", "rates"):
            facet = getattr(driver, name)
            setattr(self, name, None if facet is None else _Facet(facet, CHANGING[name], self.strike))
        for name in dir(Driver):
            if name.startswith(("equivalents", "look_ahead")):  # the shell commands that would do the same
                setattr(self, name, getattr(driver, name))

    flow_filters: FlowFilters | None
    virtual_functions: VirtualFunctions | None
    rates: RateControl | None

    @property
    def statistics(self) -> Statistics | None:  # type: ignore[override]
        """Its counters."""
        return self._driver.statistics

    @property
    def packet_path(self) -> PacketPath | None:  # type: ignore[override]
        """Its data path."""
        return self._driver.packet_path

    @property
    def info(self) -> DeviceInfo:
        """The NIC."""
        return self._driver.info

    @property
    def profile(self) -> NicProfile:
        """Its profile."""
        return self._driver.profile

    def capabilities(self) -> Sequence[Capability]:
        """Return what the NIC can do."""
        return self._driver.capabilities()

    @property
    def persistent(self) -> bool:
        """Whether the journal is on disk."""
        return self._durable

    def identity(self) -> str:
        """Return what the journal files the NIC's records under."""
        return self._driver.identity()

    def port(self) -> str:
        """Return the port whose rules these are."""
        return self._driver.port()

    def close(self) -> None:
        """Leave the other driver open."""


class _One(DriverFactory):
    """Opens one NIC, which is open already."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver

    def discover(self, context: OpenContext) -> Sequence[DeviceInfo]:  # noqa: ARG002 - the contract's signature
        """Return the NIC."""
        return (self._driver.info,)

    def claims(self, name: str) -> bool:  # noqa: ARG002 - likewise
        """Claim any name: there is one NIC."""
        return True

    def open(self, name: str, context: OpenContext) -> Driver:  # noqa: ARG002 - likewise
        """Return the driver."""
        return self._driver


def open_over(
    driver: Driver,
    under_test: NicUnderTest,
    *,
    state_dir: Path,
    durable: bool,
    wall_clock_s: Callable[[], float],
) -> Nic:
    """Return a NIC through `open_nic`, driven by a driver that is open already.

    Args:
        driver: The driver; closing the NIC leaves it open.
        under_test: The NIC, for its name.
        state_dir: Folder of the journal.
        durable: Whether the journal is on disk.
        wall_clock_s: Seconds since the epoch.
    """
    between = driver if isinstance(driver, Between) else Between(driver, durable=durable)
    registry = Registry((), Catalog(()), [("conformance", _One(between))])
    return open_nic(
        under_test.name,
        registry=registry,
        state_dir=state_dir,
        owner="conformance kit",
        wall_clock_s=wall_clock_s,
        sleep_s=under_test.sleep_s,
    )
