"""The VFs of a software NIC."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace

from nicoffload.driver import VirtualFunctions
from nicoffload.errors import InvalidRequestError, NicOffloadError, NotFoundError, NotSupportedError, Reason
from nicoffload.model import Disruption, LinkState, VfConfig, VfState, VlanTag
from nicoffload.profiles.types import NicProfile
from nicoffload_softnic import layout, links, names
from nicoffload_softnic.path import DataPath

DRIVER = "veth"
"""The kernel's driver of a VF's device."""


class SoftFunctions(VirtualFunctions):
    """The VFs: pairs of devices, one end in the NIC's namespace and one for a VM.

    Args:
        path: The NIC's data path.
        profile: Its profile.
    """

    def __init__(self, path: DataPath, profile: NicProfile) -> None:
        self._path = path
        self._profile = profile
        self._name = names.PREFIX + path.name

    def limit(self) -> int:
        """Return how many VFs there can be."""
        return layout.MAX_VFS

    def states(self) -> Sequence[VfState]:
        """Return all VFs."""
        self._path.check_alive()
        return [self._state(index) for index in range(self._path.vfs)]

    def set_count(self, count: int) -> Disruption:
        """Make VFs, or remove the last ones; those that stay notice nothing."""
        path = self._path
        path.check_alive()
        if not 0 <= count <= self.limit():
            raise InvalidRequestError(
                f"{count} VFs; this NIC has 0 to {self.limit()}", path="/count", device=self._name
            )
        before = path.vfs
        home = path.kernel.open_namespace()
        try:
            for index in reversed(range(count, before)):
                path.remove_vf(index)
            for index in range(before, count):
                path.remove_vf(index)  # what a maker left that was killed
                path.add_vf(index, home)
        finally:
            os.close(home)
        path.shape()
        return Disruption.VF_RESET if count < before else Disruption.NONE

    def configure_many(self, configs: Sequence[VfConfig]) -> Sequence[NicOffloadError | None]:
        """Apply settings; each takes effect with the next packet."""
        self._path.check_alive()
        count = self._path.vfs
        return [self._configure(config, count) for config in configs]

    def reset(self, vf: int) -> None:
        """Make the VF's device anew, down and in this namespace; settings and rates stay."""
        self._check(vf)
        path = self._path
        home = path.kernel.open_namespace()
        try:
            path.renew_vf(vf, home)
        finally:
            os.close(home)
        settings = path.settings(vf)
        if settings.mac:
            links.set_own_mac(path, vf, settings.mac)
        path.set_link(vf, up=is_up(path, settings.link_state))

    def bind(self, vf: int, driver: str) -> None:
        """Refuse: a VF is a network device and no PCI function.

        Raises:
            NotSupportedError: Always; the hint tells how a VM gets the VF.
        """
        self._check(vf)
        ifname = names.vf(self._path.name, vf)
        reason = Reason(
            code="vf.driver",
            path="/driver",
            message="a VF of a software NIC is a network device, and has no driver that could be another one",
            source="ports.py: add_vf",
        )
        raise NotSupportedError(
            f"VF {vf} was not bound to {driver!r}",
            capability="vf.bind",
            reasons=[reason],
            path="/driver",
            device=self._name,
            hint=f"give it to a VM: ip link set dev {ifname} netns NAMESPACE",
        )

    def _check(self, vf: int) -> None:
        self._path.check_alive()
        if not 0 <= vf < self._path.vfs:
            raise NotFoundError(f"there is no VF {vf}", path="/vf", device=self._name)

    def _state(self, index: int) -> VfState:
        settings, facts = self._path.settings(index), self._profile.vf
        return VfState(
            vf=index,
            mac=settings.mac,
            vlan=settings.vlan if facts is not None and facts.vlan.supported == "yes" else None,
            spoof_check=settings.spoof_check,
            trust=settings.trust,
            link_state=settings.link_state,
            rate=settings.rate,
            driver=DRIVER,
            ready=True,
        )

    def _configure(self, config: VfConfig, count: int) -> NicOffloadError | None:
        if config.vf >= count:
            return NotFoundError(f"there is no VF {config.vf}", path="/vf", device=self._name)
        refused = self._lacking(config)
        if refused is not None:
            return refused
        path, before = self._path, self._path.settings(config.vf)
        asked = {
            name: value
            for name in ("mac", "vlan", "spoof_check", "trust", "link_state")
            if (value := getattr(config, name)) is not None
        }
        after = replace(before, **asked)
        path.change(config.vf, after)
        if config.mac:
            links.set_own_mac(path, config.vf, config.mac)
        if config.link_state is not None:
            path.set_link(config.vf, up=is_up(path, after.link_state))
        return None

    def _lacking(self, config: VfConfig) -> NicOffloadError | None:
        """Return the refusal of a setting that the data path has not, by its profile; None where it has all."""
        facts = self._profile.vf
        if facts is None or config.vlan in (None, VlanTag(vid=0)) or facts.vlan.supported == "yes":
            return None
        reason = Reason(
            code="vf.vlan",
            path="/vlan",
            message=facts.vlan.note,
            errno=facts.vlan.errno,
            source=facts.vlan.source,
        )
        return NotSupportedError(
            f"VF {config.vf} has no port VLAN",
            capability="vf.vlan",
            reasons=[reason],
            path="/vlan",
            device=self._name,
        )


def is_up(path: DataPath, state: LinkState) -> bool:
    """Tell whether a VF sees its link up: with `LinkState.AUTO`, as the wire's is."""
    return state is LinkState.ENABLE or (state is LinkState.AUTO and path.has_wire())
