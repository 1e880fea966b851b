"""A live NIC: where it is in sysfs and devlink, which network devices stand for its ports, what state it is in."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace

from nicoffload.driver.contract import Ahead, OpenContext
from nicoffload.errors import (
    AccessDeniedError,
    DeviceBusyError,
    DeviceGoneError,
    NicOffloadError,
    NotFoundError,
    NotSupportedError,
    from_errno,
)
from nicoffload.kernel.devlink import Devlink, EswitchMode, Handle, Port, PortFlavour
from nicoffload.kernel.features import Feature, FeatureName, read_feature
from nicoffload.kernel.pci import PciFunction
from nicoffload.kernel.representors import NetdevIdentity, Role, identify, representors
from nicoffload.kernel.seam import Kernel
from nicoffload.linux.coming import coming_representor
from nicoffload.model import FIRST_VF_PORT, DeviceInfo
from nicoffload.profiles.types import NicProfile

UPLINK_PORT = 0
POLL_S = 0.05
"""How long to wait before a state is looked at again."""
_FIRST_SIMULATED = "p1"
_NOT_TOLD = (NotSupportedError, NotFoundError, DeviceGoneError)
"""What Linux answers where there is nothing to tell. Any other error is one: a mode not known is not no mode."""
_LOOKS = 5
_OWN_ROLES = (Role.PF, Role.UPLINK)
_FEATURES = {name.value: name for name in FeatureName} | {"ntuple": FeatureName.NTUPLE}


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a NIC is, which does not change while it is there.

    Args:
        folder: Its folder below ``/sys``.
        handle: Its name in devlink.
    """

    folder: str
    handle: Handle

    @classmethod
    def pci(cls, address: str) -> Place:
        """Return the place of a PCI function."""
        return cls(folder=f"bus/pci/devices/{address}", handle=Handle(bus="pci", name=address))


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """The network devices that stand for the ports of a NIC's switch, as they are now.

    Args:
        uplink: The NIC's own device, which stands for the wire.
        representors: VF index to the switch's end of that VF; empty outside switchdev mode.
    """

    uplink: NetdevIdentity
    representors: Mapping[int, NetdevIdentity]

    def ifindexes(self) -> dict[int, int]:
        """Return switch port to device: what rules can be hung on, and what they can deliver to."""
        found = {FIRST_VF_PORT + vf: one.ifindex for vf, one in self.representors.items()}
        return {UPLINK_PORT: self.uplink.ifindex, **found}

    def names(self) -> dict[int, str]:
        """Return the present name of each device by its number."""
        found = {one.ifindex: one.ifname for one in self.representors.values()}
        return {self.uplink.ifindex: self.uplink.ifname, **found}


class LinuxNic:
    """One live NIC, for the facets and for a plugin's own code. Of one thread.

    Args:
        context: What the plugin was given.
        profile: What the NIC's family can do.
        info: What discovery knows of it.
        place: Where it is; None for the PCI function that `info` names.
        ifname: Network device to use where the NIC has several ports; empty for the first.
    """

    def __init__(
        self,
        context: OpenContext,
        profile: NicProfile,
        info: DeviceInfo,
        *,
        place: Place | None = None,
        ifname: str = "",
    ) -> None:
        self.context = context
        self.kernel: Kernel = context.kernel
        self.profile = profile
        self.place = place or Place.pci(info.pci_address)
        self._info = info
        self._ifname = ifname
        self._ifindex: int | None = None
        self.ahead = Ahead()
        """What will have changed when the commands are run that are shown now."""

    @property
    def device(self) -> str:
        """What errors call it."""
        return self._info.name

    @property
    def info(self) -> DeviceInfo:
        """What is known of it, with the present name of its network device."""
        try:
            return replace(self._info, ifname=self.pf().ifname)
        except NicOffloadError:
            return replace(self._info, ifname="")

    # --------------------------------------------------------------------------------------------- network devices

    def netdevs(self) -> list[NetdevIdentity]:
        """Return the network devices that hang on the NIC in this namespace, by number: its own and representors."""
        try:
            names = self.kernel.list_sysfs(f"{self.place.folder}/net")
        except (FileNotFoundError, NotADirectoryError):
            return []
        found = []
        for name in names:
            try:
                found.append(identify(self.kernel, name))
            except NotFoundError:
                continue  # renamed or gone since
        return sorted(found, key=lambda one: one.ifindex)

    def pf(self) -> NetdevIdentity:
        """Return the NIC's own network device. Known by its number; a change of mode may make another one.

        Raises:
            DeviceGoneError: It has none in this namespace.
        """
        there = self.netdevs()
        # Below a device that is no PCI function (virtio's, a platform's) nothing else can hang.
        own = [one for one in there if one.role in _OWN_ROLES] or [
            one for one in there if one.role is Role.OTHER
        ]
        found = next((one for one in own if one.ifindex == self._ifindex), None)
        if found is None and self._ifindex is None and self._ifname:
            found = next((one for one in own if one.ifname == self._ifname), None)
        if found is None:
            found = own[0] if own else None
        if found is None:
            raise DeviceGoneError(
                "the NIC has no network device here",
                device=self.device,
                hint="its driver is not bound, or the device was moved to another network namespace",
            )
        self._ifindex = found.ifindex
        return found

    def port(self) -> str:
        """Return what tells its network device from those of other ports of one device; empty for the first.

        PCI drivers that make several (mlx4) number them in ``dev_port``, from 0; netdevsim has port names alone.
        """
        try:
            own = self.pf()
            number = self.kernel.read_sysfs(f"class/net/{own.ifname}/dev_port").decode().strip()
        except (NicOffloadError, OSError):
            return ""
        if number != "0":
            return f"port {number}"
        return own.port_name if self.place.handle.bus != "pci" and own.port_name != _FIRST_SIMULATED else ""

    def ports(self) -> Ports:
        """Return the devices of the switch's ports.

        Raises:
            DeviceGoneError: See `pf`.
        """
        uplink = self.pf()
        if not self.has_representors(self.eswitch_mode()):
            return Ports(uplink=uplink, representors={})
        return Ports(uplink=uplink, representors=self._representors(uplink))

    def has_representors(self, mode: str | None) -> bool:
        """Tell whether VFs have representors in a mode of the switch; None is for a NIC without modes."""
        has_some = self.profile.eswitch is not None or self.profile.statistics.representor is not None
        return has_some and mode != EswitchMode.LEGACY.value

    def mode_ahead(self) -> str | None:
        """Return the mode that the switch will be in when the commands are run that are shown now."""
        return self.ahead.mode or self.eswitch_mode()

    def ports_ahead(self, mode: str = "") -> Ports:
        """Return the devices of the ports as they will be; one that is not there yet has a variable for its name.

        Args:
            mode: Mode that the switch will be in; empty for that of `mode_ahead`.

        Raises:
            DeviceGoneError: See `pf`.
        """
        now, then = self.eswitch_mode(), mode or self.mode_ahead()
        count = self.ahead.vf_count
        if count is None and now == then:
            return self.ports()
        coming = range(self.count_vfs() if count is None else count) if self.has_representors(then) else ()
        return Ports(uplink=self.pf(), representors={vf: coming_representor(vf) for vf in coming})

    def _representors(self, uplink: NetdevIdentity) -> dict[int, NetdevIdentity]:
        if by_devlink := self._by_devlink():
            return by_devlink
        if not uplink.switch_id:
            return {}
        number = self._pf_number(uplink)
        return {
            one.port.vf: one
            for one in representors(self.kernel, uplink.switch_id)
            if one.role is Role.VF_REPRESENTOR
            and one.port is not None
            and one.port.vf is not None
            and not one.port.controller
            and one.port.pf == number
        }

    def _by_devlink(self) -> dict[int, NetdevIdentity]:
        """Return VF index to representor where devlink has their ports: by number, for names change as they appear."""
        for _ in range(_LOOKS):
            ports = {
                port.vf: port
                for port in self.devlink_ports()
                if port.flavour is PortFlavour.PCI_VF
                and port.vf is not None
                and port.ifindex
                and not port.external
            }
            try:
                found = {vf: identify(self.kernel, port.ifname) for vf, port in sorted(ports.items())}
            except NotFoundError:
                continue  # renamed between the two looks
            if all(one.ifindex == ports[vf].ifindex for vf, one in found.items()):
                return found
        raise DeviceBusyError(
            "the network devices of its VFs change their names faster than they can be looked at",
            device=self.device,
        )

    def _pf_number(self, uplink: NetdevIdentity) -> int:
        """Return the number that port names have for this PF: that of the function, as all drivers here count."""
        _, dot, function = uplink.pci_address.rpartition(".")
        return int(function) if dot else 0

    def name_of(self, ifindex: int) -> str:
        """Return the present name of a network device of the NIC, for commands."""
        names = {one.ifindex: one.ifname for one in self.netdevs()}
        return names.get(ifindex) or self.ports().names().get(ifindex, f"if{ifindex}")

    # ------------------------------------------------------------------------------------------------------- state

    def eswitch_mode(self) -> str | None:
        """Return the mode of the switch; None where the family has no modes, or the driver does not tell."""
        if self.profile.eswitch is None:
            return None
        try:
            with Devlink(self.kernel) as devlink:
                mode = devlink.eswitch(self.place.handle).mode
        except (*_NOT_TOLD, AccessDeniedError):  # Linux tells the mode to root alone
            return None
        return mode.value if mode is not None else None

    def devlink_ports(self) -> list[Port]:
        """Return the NIC's ports in devlink; empty where the driver has none."""
        try:
            with Devlink(self.kernel) as devlink:
                return devlink.ports(self.place.handle)
        except _NOT_TOLD:
            return []

    def feature(self, name: str, ifname: str) -> Feature | None:
        """Return a feature of a network device by the name that profiles use; None where it is not known."""
        if name not in _FEATURES:
            return None
        try:
            return read_feature(self.kernel, ifname, _FEATURES[name])
        except _NOT_TOLD:
            return None

    def vf_addresses(self) -> list[str]:
        """Return the PCI addresses of the VFs that exist, by index; empty for what is no PCI device."""
        if self.place.handle.bus != "pci":
            return []
        return PciFunction(self.kernel, self.place.handle.name).virtual_functions()

    def count_vfs(self) -> int:
        """Return how many VFs exist, of whatever bus."""
        if self.place.handle.bus == "pci":
            return len(self.vf_addresses())
        try:
            return int(self.kernel.read_sysfs(f"{self.place.folder}/sriov_numvfs"))
        except (OSError, ValueError):
            return 0

    # ----------------------------------------------------------------------------------------------------- waiting

    def wait_until(self, so: Callable[[], bool], timeout_s: float) -> bool:
        """Wait until something is so, and return whether it is.

        Args:
            so: Looks.
            timeout_s: How long, on the clock that the plugin was given.
        """
        deadline_s = self.context.monotonic_s() + timeout_s
        while not so():
            if self.context.monotonic_s() >= deadline_s:
                return False
            self.context.sleep_s(POLL_S)
        return True

    @contextmanager
    def asking(self, doing: str, capability: str) -> Iterator[None]:
        """Turn the operating system's refusal of a socket or file into an error of the SDK."""
        try:
            yield
        except NicOffloadError as error:
            error.device = error.device or self.device
            raise
        except OSError as cause:
            raise from_errno(cause.errno or 5, doing, capability=capability, device=self.device) from cause


def feature_name(name: str) -> FeatureName:
    """Return the kernel's feature for the name that profiles use."""
    return _FEATURES[name]
