"""Devlink of the fake kernel: devices, their switch's modes, ports, port functions and rates (net/devlink)."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from nicoffload.errors import errno_number
from nicoffload.kernel.seam import NETLINK_GENERIC
from nicoffload.testing.emulator.answer import Refused
from nicoffload.testing.fake_kernel import devlink_rates as rates
from nicoffload.testing.fake_kernel import netlink
from nicoffload.testing.fake_kernel.devlink_messages import (
    ENCAP,
    INLINE,
    MODE,
    PORT_FUNCTION,
    PORT_INDEX,
    Command,
    describe_device,
    describe_eswitch,
    describe_info,
    describe_port,
    describe_rate,
    policy,
)
from nicoffload.testing.fake_kernel.devlink_rates import RateObject, RateTree
from nicoffload.testing.fake_kernel.drivers import facts
from nicoffload.testing.fake_kernel.genetlink import HEADER, FamilyInfo
from nicoffload.testing.fake_kernel.netlink import RejectedError, Reply, Request
from nicoffload.testing.fake_kernel.world import (
    FakeFunction,
    FakeNetdev,
    FakeNic,
    NetdevKind,
    Watcher,
    World,
)

_CONFIG_GROUP = 0x0B
_LARGEST = 179
_BUS, _DEVICE = 1, 2
_HW_ADDR, _STATE = 1, 2
_FUNCTION_POLICY: netlink.Policy = {_HW_ADDR: netlink.BINARY, _STATE: 1}
_MODES = ("legacy", "switchdev")
_ENCAP_BASIC = 1
_MULTICAST_BIT = 1 << 40
_INLINE_DRIVERS = frozenset({"mlx5_core"})
"""Drivers with operations for inline and encapsulation mode."""
_MODE_TEXTS: Mapping[tuple[str, str], str] = {
    ("ice", "vfs_present"): "ice: Changing eswitch mode is allowed only if there is no VFs created",
    ("mlx5_core", "flows_present"): "mlx5_core: Can't change mode, E-Switch is busy",
}
"""From intel/ice/ice_eswitch.c ice_eswitch_mode_set, mellanox/mlx5/core/eswitch_offloads.c."""


@dataclass(slots=True)
class DevlinkState:
    """What devlink keeps of one NIC.

    Args:
        rates: Its rate objects.
        inline_mode: As the driver reports it.
        encap_mode: Likewise.
        names: Number of a port's network device to the name that was told.
    """

    rates: RateTree
    inline_mode: int = 0
    encap_mode: int = _ENCAP_BASIC
    names: dict[int, str] = field(default_factory=dict)


@dataclass(slots=True)
class _Call:
    """A request, with what it is about."""

    request: Request
    attributes: dict[int, bytes]
    state: DevlinkState | None = field(default=None)

    @property
    def found(self) -> DevlinkState:
        """The device that it names."""
        assert self.state is not None
        return self.state


class DevlinkServer(Watcher):
    """The family ``devlink``.

    Args:
        world: Whose NICs.
    """

    info = FamilyInfo(
        name="devlink", number=0x15, version=1, largest=_LARGEST, groups={"config": _CONFIG_GROUP}
    )

    def __init__(self, world: World) -> None:
        self._world = world
        self._states: dict[FakeNic, DevlinkState] = {}
        self._commands: dict[int, Callable[[_Call], Reply]] = {
            Command.GET: self._get,
            Command.PORT_GET: self._port_get,
            Command.PORT_SET: self._port_set,
            Command.ESWITCH_GET: self._eswitch_get,
            Command.ESWITCH_SET: self._eswitch_set,
            Command.INFO_GET: self._info_get,
            Command.RATE_GET: self._rate_get,
            Command.RATE_SET: self._rate_set,
            Command.RATE_NEW: self._rate_new,
            Command.RATE_DEL: self._rate_del,
        }
        world.watch(self)

    # Requests -------------------------------------------------------------------------------------------------------

    def handle(self, command: int, request: Request, attributes: bytes) -> Reply:
        """Answer a request."""
        answer = self._commands.get(command)
        taken = policy(command, dump=request.is_dump)
        if answer is None or taken is None:
            raise RejectedError(errno.EOPNOTSUPP)
        call = _Call(request, netlink.parse(attributes, taken))
        for kind, most in ((MODE, 1), (INLINE, 3), (ENCAP, 1)):
            if kind in call.attributes and netlink.number_of(call.attributes[kind]) > most:
                raise RejectedError(errno.ERANGE, "integer out of range")
        if not self._world.here.is_home:  # where no device of devlink is
            if request.is_dump:
                return Reply(())
            raise RejectedError(errno.ENODEV)
        if not request.is_dump:
            call.state = self._named(call.attributes)
        return answer(call)

    def _named(self, attributes: Mapping[int, bytes]) -> DevlinkState:
        if _BUS not in attributes or _DEVICE not in attributes:
            raise RejectedError(errno.EINVAL)
        bus, name = netlink.text_of(attributes[_BUS]), netlink.text_of(attributes[_DEVICE])
        for nic, state in self._states.items():
            if (nic.bus, nic.pci_address) == (bus, name):
                return state
        raise RejectedError(errno.ENODEV)

    def _chosen(self, call: _Call) -> Iterator[DevlinkState]:
        """Yield the devices that a dump is about: all, or the one it names."""
        if _BUS in call.attributes or _DEVICE in call.attributes:
            yield self._named(call.attributes)
            return
        yield from self._states.values()

    def _get(self, call: _Call) -> Reply:
        states = self._chosen(call) if call.request.is_dump else [call.found]
        return _reply(Command.NEW, (describe_device(state.rates.nic) for state in states))

    def _info_get(self, call: _Call) -> Reply:
        states = self._chosen(call) if call.request.is_dump else [call.found]
        return _reply(Command.INFO_GET, (describe_info(state.rates.nic) for state in states))

    # Switch ---------------------------------------------------------------------------------------------------------

    def _eswitch_get(self, call: _Call) -> Reply:
        state = call.found
        nic = state.rates.nic
        mode = _MODES.index(nic.device.mode) if nic.profile.eswitch else None
        modes = (state.inline_mode, state.encap_mode) if nic.profile.driver in _INLINE_DRIVERS else None
        return _reply(Command.ESWITCH_GET, [describe_eswitch(nic, mode, modes)])

    def _eswitch_set(self, call: _Call) -> Reply:
        state = call.found
        text = ""
        if MODE in call.attributes:
            text = self._set_mode(state, _MODES[netlink.number_of(call.attributes[MODE])])
        if INLINE in call.attributes:
            self._set_inline(state, netlink.number_of(call.attributes[INLINE]))
        if ENCAP in call.attributes:
            self._set_encap(state, netlink.number_of(call.attributes[ENCAP]))
        return Reply(text=text)

    def _set_mode(self, state: DevlinkState, mode: str) -> str:
        """Set the mode; return what the driver says with success."""
        nic = state.rates.nic
        if nic.profile.eswitch is None:
            raise RejectedError(errno.EOPNOTSUPP)
        if state.rates.nodes:
            raise RejectedError(errno.EBUSY, "Rate node(s) exists.")
        if mode == nic.device.mode:
            return ""
        try:
            nic.device.set_mode(mode)
        except Refused as cause:
            text = _MODE_TEXTS.get((nic.profile.driver, cause.condition), "")
            raise RejectedError(errno_number(cause.errno), text) from cause
        return f"ice: Changed eswitch mode to {mode}" if nic.profile.driver == "ice" else ""

    def _set_inline(self, state: DevlinkState, mode: int) -> None:
        driver = state.rates.nic.profile.driver
        if driver not in _INLINE_DRIVERS:
            raise RejectedError(errno.EOPNOTSUPP)
        if mode:  # as on ConnectX-4 Lx and later, which need no inline headers
            raise RejectedError(errno.EOPNOTSUPP, f"{driver}: Inline mode can't be set")

    def _set_encap(self, state: DevlinkState, mode: int) -> None:
        nic = state.rates.nic
        if nic.profile.driver not in _INLINE_DRIVERS:
            raise RejectedError(errno.EOPNOTSUPP)
        busy = any(table.entries for table in nic.device.tables if table.spec.picker == "none")
        if nic.device.mode == "switchdev" and mode != state.encap_mode and busy:
            raise RejectedError(
                errno.EOPNOTSUPP,
                f"{nic.profile.driver}: Can't set encapsulation when flows are configured",
            )
        state.encap_mode = mode

    # Ports ----------------------------------------------------------------------------------------------------------

    def _port_get(self, call: _Call) -> Reply:
        if not call.request.is_dump:
            netdev = self._port(call)
            return _reply(Command.PORT_NEW, [_show_port(netdev)])
        devices = (netdev for state in self._chosen(call) for netdev in _ports(state.rates.nic))
        return _reply(Command.PORT_NEW, (_show_port(netdev) for netdev in devices))

    def _port_set(self, call: _Call) -> Reply:
        netdev = self._port(call)
        nic = call.found.rates.nic
        if PORT_FUNCTION not in call.attributes:
            return Reply()
        function = netlink.parse(call.attributes[PORT_FUNCTION], _FUNCTION_POLICY)
        known = facts(nic.profile)
        if _HW_ADDR in function and not (known.vf_hw_addr and (netdev.vf is not None or known.pf_hw_addr)):
            raise RejectedError(errno.EOPNOTSUPP, "Port doesn't support function attributes")
        if _STATE in function:
            raise RejectedError(errno.EOPNOTSUPP, "Function does not support state setting")
        if _HW_ADDR in function:
            self._set_hw_addr(nic, netdev, function[_HW_ADDR])
            self._notify(Command.PORT_NEW, _show_port(netdev))
        return Reply()

    def _set_hw_addr(self, nic: FakeNic, netdev: FakeNetdev, address: bytes) -> None:
        if len(address) != 6:
            raise RejectedError(errno.EINVAL, "Address must be 6 bytes for Ethernet device")
        mac = int.from_bytes(address, "big")
        if mac & _MULTICAST_BIT:
            raise RejectedError(errno.EINVAL, "Non-unicast hardware address unsupported")
        if netdev.vf is None:
            raise RejectedError(errno.EPERM, f"port mac change not allowed (mport: {port_index(netdev)})")
        try:
            nic.device.sriov.set(netdev.vf, "mac", mac)
        except Refused as cause:
            raise RejectedError(errno_number(cause.errno)) from cause

    def _port(self, call: _Call) -> FakeNetdev:
        """Return the network device of the port that a request names."""
        if PORT_INDEX not in call.attributes:
            raise RejectedError(errno.EINVAL)
        wanted = netlink.number_of(call.attributes[PORT_INDEX])
        for netdev in _ports(call.found.rates.nic):
            if port_index(netdev) == wanted:
                return netdev
        raise RejectedError(errno.ENODEV)

    # Rates ----------------------------------------------------------------------------------------------------------

    def _rate_get(self, call: _Call) -> Reply:
        if not call.request.is_dump:
            return _reply(Command.RATE_NEW, [_show_rate(self._rate(call))])
        objects = (one for state in self._chosen(call) for one in state.rates.objects())
        return _reply(Command.RATE_NEW, (_show_rate(one) for one in objects))

    def _rate_set(self, call: _Call) -> Reply:
        one = self._rate(call)
        call.found.rates.set(one, call.attributes)
        self._notify(Command.RATE_NEW, _show_rate(one))
        return Reply()

    def _rate_new(self, call: _Call) -> Reply:
        made = call.found.rates.create(call.attributes)
        self._notify(Command.RATE_NEW, _show_rate(made))
        return Reply()

    def _rate_del(self, call: _Call) -> Reply:
        node = call.found.rates.node(call.attributes)
        shown = _show_rate(node)
        call.found.rates.delete(node)
        self._notify(Command.RATE_DEL, shown)
        return Reply()

    def _rate(self, call: _Call) -> RateObject:
        if PORT_INDEX not in call.attributes:
            if rates.NODE_NAME not in call.attributes:
                raise RejectedError(errno.EINVAL)
            return call.found.rates.node(call.attributes)
        netdev = self._port(call)
        leaf = None if netdev.vf is None else call.found.rates.leaves.get(netdev.vf)
        if leaf is None:
            raise RejectedError(errno.ENODEV)
        return leaf

    # What comes and goes --------------------------------------------------------------------------------------------

    def driver_bound(self, function: FakeFunction) -> None:
        """Register a NIC whose driver has devlink."""
        nic = function.nic
        if function.vf is None and facts(nic.profile).devlink and function.driver == nic.profile.driver:
            self._states[nic] = DevlinkState(RateTree(nic))
            self._notify(Command.NEW, describe_device(nic))

    def driver_unbound(self, function: FakeFunction) -> None:
        """Forget it."""
        if function.vf is None and function.nic in self._states:
            state = self._states.pop(function.nic)
            for node in state.rates.nodes.values():
                self._notify(Command.RATE_DEL, _show_rate(node))
            self._notify(Command.DEL, describe_device(function.nic))

    def netdev_appeared(self, netdev: FakeNetdev) -> None:
        """Register the port of a network device, and the rate object of a VF's."""
        state = self._state_of(netdev)
        if state is None:
            return
        state.names[netdev.ifindex] = netdev.ifname
        self._notify(Command.PORT_NEW, _show_port(netdev))
        if netdev.vf is not None and state.rates.nic.profile.rates.devlink is not None:
            leaf = state.rates.leaves[netdev.vf] = RateObject(state.rates.nic, netdev.vf)
            self._notify(Command.RATE_NEW, _show_rate(leaf))

    def netdev_changed(self, netdev: FakeNetdev) -> None:
        """Tell the new name of a port's network device; devlink hears of nothing else."""
        state = self._state_of(netdev)
        if state is not None and state.names.get(netdev.ifindex) != netdev.ifname:
            state.names[netdev.ifindex] = netdev.ifname
            self._notify(Command.PORT_NEW, _show_port(netdev))

    def netdev_gone(self, netdev: FakeNetdev) -> None:
        """Forget its port and rate object."""
        state = self._state_of(netdev)
        if state is None:
            return
        if netdev.vf is not None and netdev.vf in state.rates.leaves:
            self._notify(Command.RATE_DEL, _show_rate(state.rates.leaves.pop(netdev.vf)))
        self._notify(Command.PORT_DEL, _show_port(netdev))
        state.names.pop(netdev.ifindex, None)

    def netdev_left(self, netdev: FakeNetdev) -> None:
        """Tell of the port without it: the port stays (net/devlink/port.c, devlink_port_netdevice_event)."""
        if self._world.here.is_home and self._state_of(netdev) is not None:
            self._notify(Command.PORT_NEW, _show_port(netdev))

    def netdev_arrived(self, netdev: FakeNetdev) -> None:
        """Tell of the port with it, where devlink can see it."""
        if self._world.here.is_home and self._state_of(netdev) is not None:
            self._notify(Command.PORT_NEW, _show_port(netdev))

    def _state_of(self, netdev: FakeNetdev) -> DevlinkState | None:
        if netdev.nic is None or not _has_port(netdev):
            return None
        return self._states.get(netdev.nic)

    def _notify(self, command: Command, attributes: bytes) -> None:
        with self._world.within(self._world.home):
            if self._world.heard(NETLINK_GENERIC, _CONFIG_GROUP):
                payload = _payload(command, attributes)
                self._world.notify(
                    NETLINK_GENERIC, _CONFIG_GROUP, netlink.notification(self.info.number, payload)
                )


def port_index(netdev: FakeNetdev) -> int:
    """Return the number of a network device's devlink port."""
    assert netdev.nic is not None
    known = facts(netdev.nic.profile)
    return known.pf_port if netdev.vf is None else known.vf_port + netdev.vf


def _has_port(netdev: FakeNetdev) -> bool:
    if netdev.nic is None or netdev.kind not in {NetdevKind.PF, NetdevKind.REPRESENTOR}:
        return False
    # Of sfc's NICs only those with representors have ports (ethernet/sfc/efx_devlink.c, mae.c).
    return netdev.nic.profile.driver != "sfc" or netdev.nic.profile.statistics.representor is not None


def _ports(nic: FakeNic) -> list[FakeNetdev]:
    return sorted((one for one in nic.netdevs() if _has_port(one)), key=port_index)


def _show_port(netdev: FakeNetdev) -> bytes:
    nic = netdev.nic
    assert nic is not None
    address = None
    if netdev.vf is not None and facts(nic.profile).vf_hw_addr and netdev.vf < len(nic.device.sriov.vfs):
        address = nic.device.sriov.vfs[netdev.vf].mac
    return describe_port(netdev, port_index(netdev), address)


def _show_rate(one: RateObject) -> bytes:
    port = None if one.vf is None else facts(one.nic.profile).vf_port + one.vf
    return describe_rate(one, port)


def _payload(command: Command, attributes: bytes) -> bytes:
    return HEADER.pack(command, DevlinkServer.info.version, 0) + attributes


def _reply(command: Command, described: Iterator[bytes] | list[bytes]) -> Reply:
    kind = DevlinkServer.info.number
    return Reply(tuple((kind, _payload(command, attributes)) for attributes in described))
