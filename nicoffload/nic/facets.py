"""The facets of a driver, and what to say where one is missing."""

from __future__ import annotations

from typing import TypeVar

from nicoffload.driver.contract import Driver, FlowFilters, RateControl, Statistics, VirtualFunctions
from nicoffload.errors import NotSupportedError, Reason
from nicoffload.model import Support
from nicoffload.nic.flow_book import FlowBook
from nicoffload.nic.leases import LeaseDesk

T = TypeVar("T")

_WORDS = {
    "flow_filters": ("flow_filters", "flow filters"),
    "virtual_functions": ("vf", "virtual functions"),
    "rates": ("rates", "rate limits"),
    "statistics": ("statistics", "statistics"),
}


class Facets:
    """Returns a facet of a NIC, or raises `NotSupportedError` with what the NIC says about it.

    Args:
        driver: The NIC.
        device: Its name, for errors.
    """

    def __init__(self, driver: Driver, device: str) -> None:
        self._driver = driver
        self._device = device

    def need(self, facet: str) -> None:
        """Raise unless the NIC has a facet."""
        if getattr(self._driver, facet) is None:
            raise self._missing(facet)

    def filters(self) -> FlowFilters:
        """Return the flow filters."""
        return self._present(self._driver.flow_filters, "flow_filters")

    def book(self, book: FlowBook | None) -> FlowBook:
        """Return the book of rules."""
        return self._present(book, "flow_filters")

    def vfs(self) -> VirtualFunctions:
        """Return the VFs."""
        return self._present(self._driver.virtual_functions, "virtual_functions")

    def desk(self, desk: LeaseDesk | None) -> LeaseDesk:
        """Return who gives VFs out."""
        return self._present(desk, "virtual_functions")

    def rates(self) -> RateControl:
        """Return the rates."""
        return self._present(self._driver.rates, "rates")

    def statistics(self) -> Statistics:
        """Return the statistics."""
        return self._present(self._driver.statistics, "statistics")

    def _present(self, facet: T | None, name: str) -> T:
        if facet is None:
            raise self._missing(name)
        return facet

    def _missing(self, facet: str) -> NotSupportedError:
        prefix, words = _WORDS[facet]
        reasons = [
            Reason(code="facet.missing", path="", message=each.detail, source=each.source)
            for each in self._driver.capabilities()
            if each.name.split(".")[0] == prefix and each.support is Support.NO and each.detail
        ]
        none = Reason(
            code="facet.missing", path="", message=f"family {self._driver.profile.family} has no {words}"
        )
        return NotSupportedError(
            f"this NIC has no {words}",
            capability=prefix,
            reasons=reasons or [none],
            device=self._device,
            hint="`nicoffload capabilities` shows what it can do",
        )
