"""Virtual functions in messages about links: settings made one by one, and what is reported of each."""

from __future__ import annotations

import errno
import struct
import sys
from collections.abc import Callable, Mapping
from typing import Any

from nicoffload.model import LinkState, VlanTag
from nicoffload.testing.emulator.answer import Refused
from nicoffload.testing.emulator.vfs import Value, Vf
from nicoffload.testing.fake_kernel.drivers import facts
from nicoffload.testing.fake_kernel.route.wire import Rejected, parse, put, put_u64, walk
from nicoffload.testing.fake_kernel.world import FakeNetdev, FakeNic, NetdevKind

IFLA_VFINFO_LIST = 22
_VF_INFO = 1
_MAC, _VLAN, _TX_RATE, _SPOOFCHK, _LINK_STATE, _RATE, _RSS_QUERY, _STATS, _TRUST = range(1, 10)
_GUIDS = (10, 11)
_VLAN_LIST, _BROADCAST = 12, 13
_VLAN_INFO = 1
_MAX_VLANS = 1
_LEAST = {
    _MAC: 36,
    _VLAN: 12,
    _TX_RATE: 8,
    _SPOOFCHK: 8,
    _RATE: 12,
    _LINK_STATE: 8,
    _RSS_QUERY: 8,
    _TRUST: 8,
    **dict.fromkeys(_GUIDS, 16),
}
_TWO, _THREE = struct.Struct("=II"), struct.Struct("=III")
_MAC_FORM = struct.Struct("=I6s26x")
_VLAN_FORM = struct.Struct("=IIIH2x")
HOST = sys.byteorder
_INT_MAX = 0x7FFF_FFFF
_NOT_REPORTED = 0xFFFF_FFFF
_MBPS = 1_000_000
_STATES = (LinkState.AUTO, LinkState.ENABLE, LinkState.DISABLE)
_BROADCAST_MAC = b"\xff" * 6 + bytes(26)
_COUNTED = {
    "rx_packets": 0,
    "tx_packets": 1,
    "rx_bytes": 2,
    "tx_bytes": 3,
    "broadcast": 4,
    "multicast": 5,
    "rx_dropped": 7,
    "tx_dropped": 8,
}
"""Numbers of the counters; 6 is padding."""
_ROWS = {"rx_packets": 0, "tx_packets": 1, "rx_bytes": 2, "tx_bytes": 3, "rx_dropped": 4, "tx_dropped": 5}
"""Columns of the emulator's ports; it counts neither broadcast nor multicast apart."""
_FIRST_VF_PORT = 2
_RSS_QUERY_DRIVERS = frozenset({"ixgbe", "netdevsim"})
"""Drivers with ``ndo_set_vf_rss_query_en``: ixgbe_main.c, netdevsim/netdev.c."""


class VfOps:
    """What a driver does with requests about its VFs.

    What no profile has, whether a VF may ask for the RSS table, is kept here.
    """

    def __init__(self) -> None:
        self._rss_query: dict[tuple[FakeNic, int], bool] = {}

    def count(self, netdev: FakeNetdev) -> int | None:
        """Return how many VFs a device's function has; None for a device of no function."""
        nic = netdev.nic
        if nic is None:
            return None
        if netdev.kind is not NetdevKind.PF:
            return 0
        count: int = len(nic.device.sriov.vfs)
        for lie in nic.device.faults.lies("vf_count"):
            count = min(count, int(lie.get("count", count)))
        return count

    def change(self, netdev: FakeNetdev, payload: bytes) -> None:
        """Make the settings of an IFLA_VFINFO_LIST, in its order; the first that is refused ends it.

        Raises:
            Rejected: As the driver does; what came before it stands.
        """
        for kind, start, end in walk(payload):
            if kind != _VF_INFO:
                raise Rejected(errno.EINVAL)
            found = parse(payload, start, end, least=_LEAST)
            if _BROADCAST in found:
                raise Rejected(errno.EINVAL)
            self._change_one(netdev, found)

    def write(self, netdev: FakeNetdev, *, with_stats: bool) -> bytes | None:
        """Return the list of a device's VFs as ``rtnl_fill_vf`` writes it; None where the driver can't tell."""
        nic, count = netdev.nic, self.count(netdev)
        if nic is None or netdev.kind is not NetdevKind.PF or not _reports(nic):
            return None
        parts = []
        for vf in nic.device.sriov.vfs[:count]:
            if nic.device.faults.active:
                try:
                    nic.device.faults.check("vf_read", nic.device)
                except Refused:
                    continue  # a driver that fails to describe a VF drops it from the list
            parts.append(put(_VF_INFO, self._describe(nic, vf, with_stats=with_stats)))
        return put(IFLA_VFINFO_LIST, b"".join(parts))

    # Settings -------------------------------------------------------------------------------------------------------

    def _change_one(self, netdev: FakeNetdev, found: Mapping[int, bytes]) -> None:
        """Make what one IFLA_VF_INFO says, in the order of ``do_setvfinfo``."""
        nic = netdev.nic if netdev.kind is NetdevKind.PF else None
        done = False
        for kind, act in self._steps():
            if kind not in found:
                continue
            done = True
            index, *values = _fields(kind, found[kind])
            if index >= _INT_MAX:
                raise Rejected(errno.EINVAL)
            if nic is None:
                raise Rejected(errno.EOPNOTSUPP)
            act(nic, index, values)
        if any(kind in found for kind in _GUIDS):
            raise Rejected(errno.EOPNOTSUPP)
        if not done:
            raise Rejected(errno.EINVAL)

    def _steps(self) -> tuple[tuple[int, Callable[[FakeNic, int, list[Any]], None]], ...]:
        return (
            (_MAC, lambda nic, vf, values: _set(nic, vf, "mac", int.from_bytes(values[0], "big"))),
            (_VLAN, lambda nic, vf, values: _set_vlan(nic, vf, values[0], values[1], 0x8100)),
            (_VLAN_LIST, lambda nic, vf, values: _set_vlan(nic, vf, *values)),
            (_TX_RATE, lambda nic, vf, values: _set_rate(nic, vf, None, values[0])),
            (_RATE, lambda nic, vf, values: _set_rate(nic, vf, values[0], values[1])),
            (_SPOOFCHK, lambda nic, vf, values: _set(nic, vf, "spoof_check", bool(values[0]))),
            (_LINK_STATE, lambda nic, vf, values: _set_link_state(nic, vf, values[0])),
            (_RSS_QUERY, lambda nic, vf, values: self._set_rss_query(nic, vf, bool(values[0]))),
            (_TRUST, lambda nic, vf, values: _set(nic, vf, "trust", bool(values[0]))),
        )

    def _set_rss_query(self, nic: FakeNic, vf: int, value: bool) -> None:  # noqa: FBT001  (as the message has it)
        if nic.profile.driver not in _RSS_QUERY_DRIVERS:
            raise Rejected(errno.EOPNOTSUPP)
        if vf >= len(nic.device.sriov.vfs):
            raise Rejected(errno.EINVAL)
        self._rss_query[nic, vf] = value

    # Reports --------------------------------------------------------------------------------------------------------

    def _describe(self, nic: FakeNic, vf: Vf, *, with_stats: bool) -> bytes:
        """Return one VF as ``rtnl_fill_vfinfo`` writes it, with its presets where the driver says nothing."""
        doc = nic.profile.document["vf"]
        lies = _lies(nic, "vfs", vf.index)
        mac = lies.get("mac", vf.mac) if doc["mac"]["supported"] != "no" else 0
        vlan = (vf.vid, vf.pcp) if doc["vlan"]["supported"] != "no" else (0, 0)
        low, high = self._rates(nic, vf)
        spoof = _switch(doc["spoof_check"], lies.get("spoof_check", vf.spoof_check))
        trust = _switch(doc["trust"], lies.get("trust", vf.trust))
        state = _STATES.index(vf.link_state) if doc["link_state"]["supported"] != "no" else 0
        rss_query = _NOT_REPORTED
        if nic.profile.driver in _RSS_QUERY_DRIVERS:
            rss_query = int(self._rss_query.get((nic, vf.index), False))
        tpid = int.from_bytes((0x88A8 if vf.protocol == "802.1ad" else 0x8100).to_bytes(2, "big"), HOST)
        parts = [
            put(_MAC, _MAC_FORM.pack(vf.index, mac.to_bytes(6, "big"))),
            put(_BROADCAST, _BROADCAST_MAC),
            put(_VLAN, _THREE.pack(vf.index, *vlan)),
            put(_RATE, _THREE.pack(vf.index, low, high)),
            put(_TX_RATE, _TWO.pack(vf.index, high)),
            put(_SPOOFCHK, _TWO.pack(vf.index, spoof)),
            put(_LINK_STATE, _TWO.pack(vf.index, state)),
            put(_RSS_QUERY, _TWO.pack(vf.index, rss_query)),
            put(_TRUST, _TWO.pack(vf.index, trust)),
            put(_VLAN_LIST, put(_VLAN_INFO, _VLAN_FORM.pack(vf.index, *vlan, tpid))),
        ]
        if with_stats:
            counted = zip(_COUNTED.values(), self._counters(nic, vf.index), strict=True)
            parts.append(put(_STATS, b"".join(put_u64(place, value) for place, value in counted)))
        return b"".join(parts)

    def _rates(self, nic: FakeNic, vf: Vf) -> tuple[int, int]:
        sriov, lies = nic.device.sriov, _lies(nic, "rates", vf.index)
        found = []
        for kind in ("min_tx", "max_tx"):
            held = sriov.holds_rate(vf, kind)
            found.append(lies.get(f"{kind}_bps", getattr(vf, kind).reported if held else 0) or 0)
        return found[0] // _MBPS, found[1] // _MBPS

    def _counters(self, nic: FakeNic, vf: int) -> list[int]:
        """Return the counters of a VF: zeros where the driver has none, which the kernel does not tell apart."""
        stated = nic.profile.statistics.vf
        row = nic.device.ports.values[_FIRST_VF_PORT + vf].tolist()
        bits = (stated and (nic.device.faults.width("vf") or stated.bits)) or 64
        return [
            int(row[_ROWS[name]]) & (1 << bits) - 1
            if stated is not None and name in stated.values and name in _ROWS
            else 0
            for name in _COUNTED
        ]


def _reports(nic: FakeNic) -> bool:
    """Return whether the driver describes VFs at all (``ndo_get_vf_config``): EF100's does not."""
    doc = nic.profile.document["vf"]
    if doc is None:
        return False
    return any(doc[name]["supported"] != "no" for name in ("vlan", "spoof_check", "trust", "link_state"))


def _fields(kind: int, payload: bytes) -> list[Any]:
    """Return index and values of a setting."""
    if kind == _MAC:
        return list(_MAC_FORM.unpack_from(payload))
    if kind == _VLAN_LIST:
        entries = list(walk(payload))
        if any(one != _VLAN_INFO or end - start < _VLAN_FORM.size for one, start, end in entries):
            raise Rejected(errno.EINVAL)
        if len(entries) > _MAX_VLANS:
            raise Rejected(errno.EOPNOTSUPP)
        if not entries:
            raise Rejected(errno.EINVAL)
        index, vid, pcp, tpid = _VLAN_FORM.unpack_from(payload, entries[0][1])
        return [index, vid, pcp, int.from_bytes(tpid.to_bytes(2, HOST), "big")]
    form = _THREE if kind in {_VLAN, _RATE} else _TWO
    return list(form.unpack_from(payload))


def _set(nic: FakeNic, vf: int, name: str, value: Value) -> None:
    doc = nic.profile.document["vf"]
    if doc is None or not _has_op(nic, name):
        raise Rejected(errno.EOPNOTSUPP)
    if name == "mac" and isinstance(value, int) and value >> 40 & 1:
        raise Rejected(errno.EINVAL)
    _ask(lambda: nic.device.sriov.set(vf, name, value))


def _has_op(nic: FakeNic, name: str) -> bool:
    """Return whether the driver has the function: EF100's MAC is set through devlink alone (efx_devlink.c:78)."""
    return name != "mac" or _reports(nic)


def _set_vlan(nic: FakeNic, vf: int, vid: int, pcp: int, tpid: int) -> None:
    doc = nic.profile.document["vf"]
    if doc is None:
        raise Rejected(errno.EOPNOTSUPP)
    if tpid not in {0x8100, 0x88A8}:
        stated = doc["vlan_protocols"].get("value_errno") or doc["vlan_protocols"].get("errno")
        raise Rejected(getattr(errno, stated or "EPROTONOSUPPORT"))
    if vid > 4095 or pcp > 7:
        _ask(
            lambda: (
                nic.device.sriov.set(vf, "vlan", VlanTag(vid=0)) if vf >= len(nic.device.sriov.vfs) else None
            )
        )
        raise Rejected(getattr(errno, doc["errors"].get("vlan_range") or "EINVAL"))
    protocol = "802.1Q" if tpid == 0x8100 else "802.1ad"
    _set(nic, vf, "vlan", VlanTag(vid=vid, pcp=pcp, protocol=protocol))


def _set_link_state(nic: FakeNic, vf: int, number: int) -> None:
    if number >= len(_STATES):
        raise Rejected(errno.EINVAL)
    _set(nic, vf, "link_state", _STATES[number])


def _set_rate(nic: FakeNic, vf: int, low: int | None, high: int) -> None:
    """Set both rates as ``rtnl_set_vf_rate`` does; without `low`, the guarantee stays (IFLA_VF_TX_RATE)."""
    sriov, doc = nic.device.sriov, nic.profile.document
    if doc["vf"] is None:
        raise Rejected(errno.EOPNOTSUPP)
    if low is None:
        if vf >= len(sriov.vfs):
            raise Rejected(errno.EINVAL)
        low = sriov.vfs[vf].min_tx.reported // _MBPS
    if high and high < low:
        raise Rejected(errno.EINVAL)
    if nic.device.mode == "switchdev" and not facts(nic.profile).vf_rate_in_switchdev:
        raise Rejected(errno.EOPNOTSUPP)
    supported = [doc["rates"][kind]["supported"] != "no" for kind in ("min_tx", "max_tx")]
    if not any(supported):
        raise Rejected(getattr(errno, doc["rates"]["max_tx"].get("errno", "EOPNOTSUPP")))
    if low or supported[0]:
        _ask(lambda: sriov.set_rate(vf, "min_tx", low * _MBPS))
    _ask(lambda: sriov.set_rate(vf, "max_tx", high * _MBPS))


def _ask(request: Callable[[], object]) -> None:
    try:
        request()
    except Refused as answer:
        number = 524 if answer.errno == "ENOTSUPP" else getattr(errno, answer.errno, errno.EINVAL)
        raise Rejected(number) from answer


def _switch(doc: Mapping[str, Any], value: bool) -> int:  # noqa: FBT001  (a value to report)
    return int(value) if doc["supported"] != "no" else _NOT_REPORTED


def _lies(nic: FakeNic, about: str, vf: int) -> dict[str, Any]:
    if not nic.device.faults.active:
        return {}
    return {
        key: value
        for lie in nic.device.faults.lies(about)
        if lie.get("vf", vf) == vf
        for key, value in lie.items()
    }
