"""What a plugin implements: `Driver` and its facets, and `DriverFactory` to find and open NICs."""

from nicoffload.driver.contract import (
    API_VERSION,
    Delivery,
    Driver,
    DriverFactory,
    FlowFilters,
    InstalledRule,
    OpenContext,
    Outcome,
    PacketPath,
    Placement,
    ProfileCatalog,
    RateControl,
    RuleRef,
    Statistics,
    TableState,
    VirtualFunctions,
)

__all__ = [
    "API_VERSION",
    "Delivery",
    "Driver",
    "DriverFactory",
    "FlowFilters",
    "InstalledRule",
    "OpenContext",
    "Outcome",
    "PacketPath",
    "Placement",
    "ProfileCatalog",
    "RateControl",
    "RuleRef",
    "Statistics",
    "TableState",
    "VirtualFunctions",
]
