"""The shell commands that would do the same to VFs and rates, for plans. An emulated NIC has none."""

from __future__ import annotations

import enum

from nicoffload.driver.contract import Driver
from nicoffload.model import RateLimit, VfConfig, VlanTag, format_mac

_MBIT = 1_000_000


def of_count(driver: Driver, count: int) -> tuple[str, ...]:
    """Return how to make VFs by hand, where the kernel has a file for it."""
    sriov = driver.profile.sriov
    if not driver.info.pci_address or sriov is None or sriov.method != "sysfs":
        return ()
    file = f"/sys/bus/pci/devices/{driver.info.pci_address}/sriov_numvfs"
    return (f"echo 0 > {file}", f"echo {count} > {file}")


def of_config(driver: Driver, config: VfConfig) -> tuple[str, ...]:
    """Return how to set a VF by hand."""
    name = driver.info.ifname
    if not name:
        return ()
    words: list[str] = []
    if config.mac is not None:
        words.append(f"mac {format_mac(config.mac)}")
    if config.vlan is not None:
        words.append(f"vlan {config.vlan.vid} qos {config.vlan.pcp} proto {config.vlan.protocol}")
    if config.spoof_check is not None:
        words.append(f"spoofchk {_switch(on=config.spoof_check)}")
    if config.trust is not None:
        words.append(f"trust {_switch(on=config.trust)}")
    if config.link_state is not None:
        words.append(f"state {config.link_state.value}")
    return tuple(f"ip link set dev {name} vf {config.vf} {word}" for word in words)


def of_rate(driver: Driver, vf: int, limit: RateLimit) -> tuple[str, ...]:
    """Return how to set rates by hand; `ip` knows whole Mbit/s only, and 0 is its word for none."""
    name = driver.info.ifname
    rates = (limit.min_tx_bps or 0, limit.max_tx_bps or 0)
    if not name or any(rate % _MBIT for rate in rates):
        return ()
    low, high = (rate // _MBIT for rate in rates)
    return (f"ip link set dev {name} vf {vf} min_tx_rate {low} max_tx_rate {high}",)


def shown(value: object) -> str:
    """Return a setting's value for people."""
    if isinstance(value, bool):
        return _switch(on=value)
    if isinstance(value, VlanTag):
        return (
            "none"
            if not value.vid and not value.pcp
            else f"{value.vid} priority {value.pcp} ({value.protocol})"
        )
    if isinstance(value, enum.Enum):
        return str(value.value)
    return format_mac(value) if isinstance(value, int) else str(value)


def _switch(*, on: bool) -> str:
    return "on" if on else "off"
