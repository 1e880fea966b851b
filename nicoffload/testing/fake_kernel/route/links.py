"""Messages about links: read, changed, and told of, as ``net/core/rtnetlink.c`` has them."""

from __future__ import annotations

import errno
import struct
from collections.abc import Callable, Iterator, Mapping

from nicoffload.testing.fake_kernel.route.messages import (
    NLM_F_CREATE,
    NLM_F_EXCL,
    NLM_F_MULTI,
    Request,
    header_too_short,
)
from nicoffload.testing.fake_kernel.route.vfs import IFLA_VFINFO_LIST, VfOps
from nicoffload.testing.fake_kernel.route.wire import (
    Rejected,
    parse,
    put,
    put_text,
    put_u8,
    put_u16,
    put_u32,
    text_of,
    u16_of,
    u32_of,
    walk,
)
from nicoffload.testing.fake_kernel.world import FakeNetdev, NetdevKind, World

RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK, RTM_SETLINK = 16, 17, 18, 19
AF_BRIDGE = 7
IFINFO = struct.Struct("=BxHiII")
_ADDRESS, _BROADCAST, _IFNAME, _MTU, _STATS, _QDISC, _LINKINFO = 1, 2, 3, 4, 7, 6, 18
_TXQLEN, _OPERSTATE, _LINKMODE, _NUM_VF, _STATS64, _AF_SPEC, _GROUP = 13, 16, 17, 21, 23, 26, 27
_EXT_MASK, _PROMISCUITY, _NUM_TX, _NUM_RX, _CARRIER, _SWITCH_ID, _PORT_NAME = 29, 30, 31, 32, 33, 36, 38
_MIN_MTU, _MAX_MTU, _PARENT_NAME, _PARENT_BUS = 50, 51, 56, 57
_LEAST = {_MTU: 4, _EXT_MASK: 4, _TXQLEN: 4}
_WITH_VFS, _WITHOUT_STATS = 1, 8
_ETHER, _LOOPBACK = 1, 772
_IFF_UP, _IFF_BROADCAST, _IFF_LOOPBACK, _IFF_RUNNING, _IFF_MULTICAST, _IFF_LOWER_UP = (
    1,
    2,
    8,
    0x40,
    0x1000,
    0x10000,
)
_OPER_DOWN, _OPER_UP = 2, 6
_MIN_ETHER_MTU, _MAX_ETHER_MTU = 68, 9978
_IFNAME_MAX = 15
_BRIDGE_FLAGS, _BRIDGE_MODE, _SELF = 0, 1, 2
_VEB, _VEPA = 0, 1
_BRIDGE_DRIVERS = frozenset({"ixgbe", "i40e", "ice", "mlx5_core"})
"""Drivers with ``ndo_bridge_getlink``: ixgbe_main.c, i40e_main.c, ice_main.c, mlx5 en_main.c."""
_COUNTERS = 25  # of struct rtnl_link_stats64
_FIRST_VF_PORT = 2


class Links:
    """All links.

    Args:
        world: Where they are.
        tell: Tells of a link that changed.
    """

    def __init__(self, world: World, tell: Callable[[FakeNetdev], None]) -> None:
        self._world = world
        self._tell = tell
        self.vfs = VfOps()
        self._modes: dict[FakeNetdev, int] = {}

    def get(self, request: Request) -> bytes:
        """Return one link as a message (``rtnl_getlink``).

        Raises:
            Rejected: There is none, or the request is none.
        """
        _, kind, ifindex, flags, change = self._head(request)
        if kind or flags or change:
            raise Rejected(errno.EINVAL, "Invalid values in header for get link request")
        found = parse(request.payload, IFINFO.size, least=_LEAST, words=True)
        if found.keys() - {_IFNAME, _EXT_MASK, 53, 46}:
            raise Rejected(errno.EINVAL, "Unsupported attribute in get link request")
        netdev = self._find(ifindex, found)
        mask = u32_of(found[_EXT_MASK]) if _EXT_MASK in found else 0
        return request.reply(RTM_NEWLINK, self.write(netdev, mask))

    def dump(self, request: Request) -> Iterator[bytes]:
        """Yield the messages of a dump: of links, or of the ports of bridges and NICs.

        Raises:
            Rejected: The request is none.
        """
        family, kind, ifindex, flags, change = self._head(request)
        found = parse(request.payload, IFINFO.size, least=_LEAST, words=True)
        if kind or flags or change:
            raise Rejected(errno.EINVAL, "Invalid values in header for link dump request")
        if ifindex:
            raise Rejected(errno.EINVAL, "Filter by device index not supported for link dumps")
        if family == AF_BRIDGE:
            for netdev in list(self._world.netdevs.values()):
                body = self._write_port(netdev)
                if body is not None:
                    yield request.reply(RTM_NEWLINK, body, NLM_F_MULTI)
            return
        mask = u32_of(found[_EXT_MASK]) if _EXT_MASK in found else 0
        for netdev in list(self._world.netdevs.values()):
            yield request.reply(RTM_NEWLINK, self.write(netdev, mask), NLM_F_MULTI)

    def set(self, request: Request) -> None:
        """Change a link (``rtnl_setlink``, and ``rtnl_newlink`` of one that is there).

        Raises:
            Rejected: There is none, or its driver refuses; what came before stands.
        """
        family, _, ifindex, flags, change = self._head(request)
        if family == AF_BRIDGE and request.kind == RTM_SETLINK:
            self._set_mode(request, ifindex)
            return
        found = parse(request.payload, IFINFO.size, least=_LEAST, words=True)
        netdev = self._existing(request, ifindex, found)
        told = self._change(netdev, found)
        if flags or change:
            up = bool((flags & change if change else flags) & _IFF_UP)
            wanted = up if not change or change & _IFF_UP else netdev.up
            told = told or wanted != netdev.up
            netdev.up = wanted
        if IFLA_VFINFO_LIST in found:
            self.vfs.change(netdev, found[IFLA_VFINFO_LIST])
            self._tell(netdev)
        if told:
            self._world.netdev_changed(netdev)

    def write(self, netdev: FakeNetdev, mask: int) -> bytes:
        """Return a link as ``rtnl_fill_ifinfo`` writes it, as far as it is modelled.

        Args:
            netdev: The link.
            mask: IFLA_EXT_MASK.
        """
        loopback = netdev.ifname == "lo"
        flags = _IFF_LOOPBACK if loopback else _IFF_BROADCAST | _IFF_MULTICAST
        flags |= _IFF_UP | _IFF_RUNNING | _IFF_LOWER_UP if netdev.up else 0
        body = [
            IFINFO.pack(0, _LOOPBACK if loopback else _ETHER, netdev.ifindex, flags, 0),
            put_text(_IFNAME, netdev.ifname),
            put_u32(_TXQLEN, 1000),
            put_u8(_OPERSTATE, _OPER_UP if netdev.up else _OPER_DOWN),
            put_u8(_LINKMODE, 0),
            put_u32(_MTU, netdev.mtu),
            put_u32(_MIN_MTU, 0 if loopback else _MIN_ETHER_MTU),
            put_u32(_MAX_MTU, 0 if loopback else _MAX_ETHER_MTU),
            put_u32(_GROUP, 0),
            put_u32(_PROMISCUITY, 0),
            put_u32(_NUM_TX, 1),
            put_u32(_NUM_RX, 1),
            put_u8(_CARRIER, int(netdev.up)),
            put(_ADDRESS, netdev.mac.to_bytes(6, "big")),
            put(_BROADCAST, b"\0" * 6 if loopback else b"\xff" * 6),
        ]
        if netdev.port_name:
            body.append(put_text(_PORT_NAME, netdev.port_name))
        if netdev.switch_id:
            body.append(put(_SWITCH_ID, netdev.switch_id))
        counters = self._counters(netdev)
        body += [
            put(_STATS64, struct.pack(f"={_COUNTERS}Q", *counters)),
            put(_STATS, struct.pack("=24I", *(value & 0xFFFF_FFFF for value in counters[:24]))),
        ]
        if mask & _WITH_VFS:
            body += self._write_vfs(netdev, with_stats=not mask & _WITHOUT_STATS)
        body.append(put_text(_QDISC, "noqueue" if loopback else "mq" if netdev.nic else "noop"))
        if netdev.pci_address and netdev.nic is not None:
            body += [put_text(_PARENT_NAME, netdev.pci_address), put_text(_PARENT_BUS, netdev.nic.bus)]
        return b"".join(body)

    def forget(self, netdev: FakeNetdev) -> None:
        """Forget a device that is gone."""
        self._modes.pop(netdev, None)

    # Parts ----------------------------------------------------------------------------------------------------------

    def _head(self, request: Request) -> tuple[int, int, int, int, int]:
        if len(request.payload) < IFINFO.size:
            raise header_too_short()
        family, kind, ifindex, flags, change = IFINFO.unpack_from(request.payload)
        return family, kind, ifindex, flags, change

    def _find(self, ifindex: int, found: Mapping[int, bytes]) -> FakeNetdev:
        if ifindex > 0:
            netdev = self._world.netdev(ifindex)
        elif _IFNAME in found:
            netdev = self._world.netdev_named(text_of(found[_IFNAME]))
        else:
            raise Rejected(errno.EINVAL)
        if netdev is None:
            raise Rejected(errno.ENODEV)
        return netdev

    def _existing(self, request: Request, ifindex: int, found: Mapping[int, bytes]) -> FakeNetdev:
        """Return the link that is to be changed."""
        if request.kind == RTM_SETLINK:
            return self._find(ifindex, found)
        named = self._world.netdev_named(text_of(found[_IFNAME])) if _IFNAME in found else None
        netdev = self._world.netdev(ifindex) if ifindex > 0 else named
        if netdev is None:
            if request.flags & NLM_F_CREATE:
                raise Rejected(errno.EOPNOTSUPP, "fake kernel: links are made by plugging NICs in")
            raise Rejected(errno.ENODEV)
        if request.flags & NLM_F_EXCL:
            raise Rejected(errno.EEXIST)
        if _LINKINFO in found:
            raise Rejected(errno.EOPNOTSUPP)
        return netdev

    def _change(self, netdev: FakeNetdev, found: Mapping[int, bytes]) -> bool:
        """Change name, MTU and address; return whether that changed anything."""
        changed = False
        if _ADDRESS in found:
            if len(found[_ADDRESS]) < 6:
                raise Rejected(errno.EINVAL)
            netdev.mac, changed = int.from_bytes(found[_ADDRESS][:6], "big"), True
        if _MTU in found:
            mtu = u32_of(found[_MTU])
            if not _MIN_ETHER_MTU <= mtu <= _MAX_ETHER_MTU:
                bound = "less than device minimum" if mtu < _MIN_ETHER_MTU else "greater than device maximum"
                raise Rejected(errno.EINVAL, f"mtu {bound}")
            changed = changed or mtu != netdev.mtu
            netdev.mtu = mtu
        name = text_of(found[_IFNAME]) if _IFNAME in found else netdev.ifname
        if name and name != netdev.ifname:
            if len(name) > _IFNAME_MAX or "/" in name or any(char.isspace() for char in name):
                raise Rejected(errno.EINVAL)
            if self._world.netdev_named(name) is not None:
                raise Rejected(errno.EEXIST)
            netdev.ifname, changed = name, True
        return changed

    def _write_vfs(self, netdev: FakeNetdev, *, with_stats: bool) -> list[bytes]:
        count = self.vfs.count(netdev)
        if count is None:
            return []
        found = self.vfs.write(netdev, with_stats=with_stats)
        return [put_u32(_NUM_VF, count), *([] if found is None else [found])]

    def _counters(self, netdev: FakeNetdev) -> list[int]:
        """Return the fields of ``rtnl_link_stats64``: of a PF the port's, of a representor its VF's."""
        counters = [0] * _COUNTERS
        nic = netdev.nic
        if nic is None:
            return counters
        values, statistics = nic.device.ports.values, nic.profile.statistics
        if netdev.vf is not None and _FIRST_VF_PORT + netdev.vf >= len(values):
            return counters  # of a VF that is being removed: its port went first
        if netdev.kind is NetdevKind.REPRESENTOR and netdev.vf is not None:
            stated = statistics.representor
            if stated is None or stated.counts != "all":
                return counters
            row = values[_FIRST_VF_PORT + netdev.vf].tolist()
            if stated.direction == "switch":  # what the VF sends comes in here
                row = [row[1], row[0], row[3], row[2], row[5], row[4]]
        elif netdev.kind is NetdevKind.PF and statistics.port is not None:
            bits = nic.device.faults.width("port") or statistics.port.bits or 64
            row = [int(value) & (1 << bits) - 1 for value in values[0].tolist()]
        elif netdev.kind is NetdevKind.VF and netdev.vf is not None:
            row = values[_FIRST_VF_PORT + netdev.vf].tolist()
        else:
            return counters
        # rx_packets, tx_packets, rx_bytes, tx_bytes, rx_errors, tx_errors, rx_dropped, tx_dropped
        counters[:4], counters[6:8] = row[:4], row[4:6]
        return counters

    # Bridge modes ---------------------------------------------------------------------------------------------------

    def _mode(self, netdev: FakeNetdev) -> int | None:
        """Return whether a NIC forwards between its VFs itself; None where its driver does not say at present."""
        nic = netdev.nic
        if nic is None or netdev.kind is not NetdevKind.PF or nic.profile.driver not in _BRIDGE_DRIVERS:
            return None
        if nic.profile.driver == "ixgbe" and not nic.device.sriov.vfs:
            return None  # ixgbe_ndo_bridge_getlink
        if nic.profile.driver == "mlx5_core" and nic.device.mode != "legacy":
            return None  # mlx5_eswitch_get_vepa
        return self._modes.get(netdev, _VEB)

    def _write_port(self, netdev: FakeNetdev) -> bytes | None:
        mode = self._mode(netdev)
        if mode is None:
            return None
        flags = _IFF_BROADCAST | _IFF_MULTICAST | (_IFF_UP | _IFF_RUNNING | _IFF_LOWER_UP if netdev.up else 0)
        head = IFINFO.pack(AF_BRIDGE, _ETHER, netdev.ifindex, flags, 0)
        body = put_text(_IFNAME, netdev.ifname) + put_u32(_MTU, netdev.mtu)
        body += put_u8(_OPERSTATE, _OPER_UP if netdev.up else _OPER_DOWN)
        body += put(_ADDRESS, netdev.mac.to_bytes(6, "big"))
        return head + body + put(_AF_SPEC, put_u16(_BRIDGE_FLAGS, _SELF) + put_u16(_BRIDGE_MODE, mode))

    def _set_mode(self, request: Request, ifindex: int) -> None:
        found = parse(request.payload, IFINFO.size, least=_LEAST)
        netdev = self._world.netdev(ifindex)
        if netdev is None:
            raise Rejected(errno.ENODEV, "unknown ifindex")
        spec = found.get(_AF_SPEC, b"")
        flags, mode = 0, None
        for kind, start, end in walk(spec):
            if kind == _BRIDGE_FLAGS and end - start >= 2:
                flags = u16_of(spec[start:end])
            elif kind == _BRIDGE_MODE:
                if end - start < 2:
                    raise Rejected(errno.EINVAL)
                mode = u16_of(spec[start:end])
        if not flags & _SELF or self._mode(netdev) is None:
            raise Rejected(errno.EOPNOTSUPP)
        if mode is None:
            return
        if mode not in {_VEB, _VEPA}:
            raise Rejected(errno.EINVAL)
        self._modes[netdev] = mode
        self._tell(netdev)
