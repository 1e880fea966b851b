"""Rules as another program would make them, for what a plugin has to leave alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from nicoffload.driver import Driver, Placement
from nicoffload.errors import NicOffloadError
from nicoffload.kernel.netlink import Netlink
from nicoffload.kernel.seam import NETLINK_ROUTE
from nicoffload.kernel.tc import FilterState, Hook, TcFilters, qdisc
from nicoffload.linux import LinuxDriver

_FIRST_PREF = 0xC000
"""From here downwards `tc` gives out prefs by itself."""


def through_tc(driver: Driver, placement: Placement) -> Callable[[], None]:
    """Put a rule into the NIC as `tc` would: no cookie, and a handle and a pref that are not ours.

    How the NIC's driver wants to be told of it is learnt from the plugin, which installs it and takes it out first.

    Args:
        driver: An open live NIC.
        placement: A rule that a table of flower takes.

    Returns:
        What takes it out again.

    Raises:
        NicOffloadError: The NIC does not take it.
    """
    assert isinstance(driver, LinuxDriver), "tc fills tables of live NICs only"
    assert driver.flow_filters is not None, "a placement names a table"
    kernel, device = driver.nic.kernel, driver.nic.device
    (ref,) = driver.flow_filters.create_many([placement])
    if isinstance(ref, NicOffloadError):
        raise ref
    hook, like, taken = _find(driver, placement)
    (answer,) = driver.flow_filters.destroy_many([ref])
    if answer is not None:
        raise answer
    with Netlink(kernel, NETLINK_ROUTE, device=device) as netlink:
        # One that is there only for this rule goes with the NIC, or stays, as one of another program's would.
        qdisc.ensure(netlink, hook.ifindex)
    pref = next(pref for pref in range(_FIRST_PREF, 0, -1) if pref not in taken)
    with TcFilters(kernel, hook, device=device) as filters:
        theirs = filters.add(replace(like.filter, rule_id=None, handle=0, pref=pref))

    def take_out() -> None:
        with TcFilters(kernel, hook, device=device) as filters:
            filters.delete_many([theirs])

    return take_out


def _find(driver: LinuxDriver, placement: Placement) -> tuple[Hook, FilterState, set[int]]:
    """Return the filter of a rule, the hook that it is on, and the prefs in use there."""
    for ifindex in driver.nic.ports().ifindexes().values():
        hook = Hook.ingress(ifindex)
        with TcFilters(driver.nic.kernel, hook, device=driver.nic.device) as filters:
            found = filters.dump()
        for state in found:
            if state.filter.rule_id == placement.rule.rule_id:
                return hook, state, {one.ref.pref for one in found}
    raise NicOffloadError("the rule was installed and no port has it", device=driver.nic.device)
