"""The VFs of a software NIC."""

from __future__ import annotations

import os
from collections.abc import Sequence

from nicoffload.driver import VirtualFunctions
from nicoffload.errors import InvalidRequestError, NicOffloadError, NotFoundError, NotSupportedError, Reason
from nicoffload.kernel import veth
from nicoffload.model import Disruption, LinkState, VfConfig, VfState, VlanTag
from nicoffload_softnic import layout, names, ports, shaper
from nicoffload_softnic.device import SoftDevice
from nicoffload_softnic.rates import rate_of

DRIVER = "veth"
"""The kernel's driver of a VF's device."""
_LINK_STATES = (LinkState.AUTO, LinkState.ENABLE, LinkState.DISABLE)
_PROTOCOLS = {"802.1Q": 0x8100, "802.1ad": 0x88A8}
_PCP_SHIFT = 13


class SoftFunctions(VirtualFunctions):
    """The VFs: pairs of devices, one end in the NIC's namespace and one for a VM.

    Args:
        device: The NIC.
    """

    def __init__(self, device: SoftDevice) -> None:
        self._device = device
        self._name = names.PREFIX + device.name

    def limit(self) -> int:
        """Return how many VFs there can be."""
        return layout.MAX_VFS

    def states(self) -> Sequence[VfState]:
        """Return all VFs."""
        self._device.check_alive()
        return [self._state(index) for index in range(self._device.vfs)]

    def set_count(self, count: int) -> Disruption:
        """Make VFs, or remove the last ones; those that stay notice nothing."""
        device = self._device
        device.check_alive()
        if not 0 <= count <= self.limit():
            raise InvalidRequestError(
                f"{count} VFs; this NIC has 0 to {self.limit()}", path="/count", device=self._name
            )
        before = device.vfs
        home = device.kernel.open_namespace()
        try:
            for index in reversed(range(count, before)):
                ports.remove_vf(device, index)
            for index in range(before, count):
                ports.remove_vf(device, index)  # what a maker left that was killed
                ports.add_vf(device, index, home)
        finally:
            os.close(home)
        shaper.apply(device)
        return Disruption.VF_RESET if count < before else Disruption.NONE

    def configure_many(self, configs: Sequence[VfConfig]) -> Sequence[NicOffloadError | None]:
        """Apply settings; each takes effect with the next packet."""
        self._device.check_alive()
        return [self._configure(config) for config in configs]

    def reset(self, vf: int) -> None:
        """Make the VF's device anew, down and in this namespace; settings and rates stay."""
        self._check(vf)
        device, number = self._device, layout.FIRST_VF + vf
        ifindex = layout.ifindex_of(number)
        home = device.kernel.open_namespace()
        try:
            if veth.find_link(device.netlink, ifindex) is not None:
                veth.delete_link(device.netlink, ifindex)
            ports.add_pair(device, number, representor=False, home=home)
        finally:
            os.close(home)
        mac = self._mac(vf)
        if mac:
            ports.set_own_mac(device, vf, mac)
        self._apply_link(vf)

    def bind(self, vf: int, driver: str) -> None:
        """Refuse: a VF is a network device and no PCI function.

        Raises:
            NotSupportedError: Always; the hint tells how a VM gets the VF.
        """
        self._check(vf)
        ifname = names.vf(self._device.name, vf)
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
        self._device.check_alive()
        if not 0 <= vf < self._device.vfs:
            raise NotFoundError(f"there is no VF {vf}", path="/vf", device=self._name)

    def _state(self, index: int) -> VfState:
        port = self._device.port(layout.FIRST_VF + index)
        tci = int(port["tci"]) if port["flags"] & layout.PORT_VLAN else 0
        protocol = "802.1ad" if tci and port["vlan_proto"] == _PROTOCOLS["802.1ad"] else "802.1Q"
        return VfState(
            vf=index,
            mac=self._mac(index),
            vlan=VlanTag(vid=tci & 0xFFF, pcp=tci >> _PCP_SHIFT, protocol=protocol),
            spoof_check=bool(port["settings"] & ports.SPOOF_CHECK_SET),
            trust=bool(port["settings"] & ports.TRUSTED),
            link_state=_LINK_STATES[port["link_state"]],
            rate=rate_of(self._device, index),
            driver=DRIVER,
            ready=bool(port["role"] == layout.ROLE_VF),
        )

    def _mac(self, index: int) -> int:
        port = self._device.port(layout.FIRST_VF + index)
        return int.from_bytes(port["mac"].tobytes(), "big") if port["flags"] & layout.PORT_MAC else 0

    def _configure(self, config: VfConfig) -> NicOffloadError | None:
        if config.vf >= self._device.vfs:
            return NotFoundError(f"there is no VF {config.vf}", path="/vf", device=self._name)
        port = self._device.port(layout.FIRST_VF + config.vf)
        if config.mac is not None:
            # The flag is off while the address is half written.
            port["flags"] &= 0xFF ^ layout.PORT_MAC
            port["mac"] = list(config.mac.to_bytes(6, "big"))
            if config.mac:
                port["flags"] |= layout.PORT_MAC
                ports.set_own_mac(self._device, config.vf, config.mac)
        if config.vlan is not None:
            port["flags"] &= 0xFF ^ layout.PORT_VLAN
            port["tci"] = config.vlan.vid | config.vlan.pcp << _PCP_SHIFT
            port["vlan_proto"] = _PROTOCOLS[config.vlan.protocol]
            if config.vlan.vid or config.vlan.pcp:
                port["flags"] |= layout.PORT_VLAN
        if config.spoof_check is not None:
            _put(port, "flags", layout.PORT_SPOOF_CHECK, on=config.spoof_check)
            _put(port, "settings", ports.SPOOF_CHECK_SET, on=config.spoof_check)
        if config.trust is not None:
            _put(port, "flags", layout.PORT_MAC_FILTER, on=not config.trust)
            _put(port, "settings", ports.TRUSTED, on=config.trust)
        if config.link_state is not None:
            port["link_state"] = _LINK_STATES.index(config.link_state)
            self._apply_link(config.vf)
        return None

    def _apply_link(self, vf: int) -> None:
        """Let the VF see its link as it is set: a link that is down here has no carrier there."""
        number = layout.FIRST_VF + vf
        port = self._device.port(number)
        is_down = _LINK_STATES[port["link_state"]] is LinkState.DISABLE
        _put(port, "flags", layout.PORT_DOWN, on=is_down)
        veth.set_up(self._device.netlink, layout.ifindex_of(number), up=not is_down)


def _put(port: object, field: str, bit: int, *, on: bool) -> None:
    held = int(port[field])  # type: ignore[index]  # an entry of a structured array
    port[field] = held | bit if on else held & ~bit & 0xFF  # type: ignore[index]
