"""Every behaviour, in the order in which they are tried."""

from __future__ import annotations

from collections.abc import Sequence
from types import MappingProxyType, ModuleType

from nicoffload.errors import InvalidRequestError
from nicoffload.testing.conformance import (
    contract,
    flow_capacity,
    flow_counters,
    flow_install,
    flow_refuse,
    nic_change,
    nic_leases,
    nic_vfs,
    rates,
    statistics,
    vf_count,
    vf_settings,
)
from nicoffload.testing.conformance.behaviour import Behaviour

GROUPS = MappingProxyType(
    {
        "DR": "the driver as a whole",
        "CP": "what it claims",
        "FL": "flow filters",
        "VF": "virtual functions",
        "RT": "rates",
        "ST": "statistics",
        "NIC": "changes through open_nic",
        "LS": "leases of VFs",
        "ER": "errors",
    }
)
"""The letters of a behaviour's number and the capability that they stand for."""


def _collect(modules: Sequence[ModuleType]) -> tuple[Behaviour, ...]:
    found = [value for module in modules for value in vars(module).values() if isinstance(value, Behaviour)]
    order = list(GROUPS)
    return tuple(sorted(found, key=lambda each: (order.index(each.group), each.number)))


CATALOGUE: tuple[Behaviour, ...] = _collect(
    (
        contract,
        nic_change,
        nic_leases,
        nic_vfs,
        flow_install,
        flow_refuse,
        flow_capacity,
        flow_counters,
        vf_count,
        vf_settings,
        rates,
        statistics,
    )
)
"""Every behaviour."""


def select(only: Sequence[str]) -> tuple[Behaviour, ...]:
    """Return the behaviours of some numbers or groups; all where none is named.

    Args:
        only: Numbers (``FL-05``) and groups (``FL``), in any case.

    Raises:
        InvalidRequestError: One is neither.
    """
    wanted = {word.upper() for word in only}
    known = {each.number for each in CATALOGUE} | set(GROUPS)
    for word in sorted(wanted - known):
        groups = ", ".join(f"{letters} ({name})" for letters, name in GROUPS.items())
        raise InvalidRequestError(
            f"{word!r} is no behaviour and no group of them",
            path="only",
            hint=f"`nicoffload conformance --list` shows them; the groups: {groups}",
        )
    return tuple(each for each in CATALOGUE if not wanted or {each.number, each.group} & wanted)
