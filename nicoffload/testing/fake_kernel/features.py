"""Features of network devices, as ``ethtool -k`` and ``-K`` ask of the kernel (net/ethtool/ioctl.c, common.c)."""

from __future__ import annotations

import errno
import struct
from collections.abc import Callable, Mapping
from types import MappingProxyType

from nicoffload.testing.fake_kernel.drivers import (
    L2_FORWARD,
    NTUPLE,
    PROFILE_FEATURES,
    TC_OFFLOAD,
    facts,
)
from nicoffload.testing.fake_kernel.errnos import refusal
from nicoffload.testing.fake_kernel.netdevs import sync_features
from nicoffload.testing.fake_kernel.world import FakeNetdev, FakeNic, FeatureState, NetdevKind, World

_HEAD = struct.Struct("=II")
_GET_BLOCK = struct.Struct("=IIII")
_SET_BLOCK = struct.Struct("=II")
_NAME_BYTES = 32
_COUNT = 60
WORDS = 2
_NAMES: Mapping[int, str] = MappingProxyType(
    {
        0: "tx-scatter-gather",
        5: "highdma",
        10: "vlan-challenged",
        11: "tx-generic-segmentation",
        14: "rx-gro",
        16: "tx-tcp-segmentation",
        38: NTUPLE,
        39: "rx-hashing",
        40: "rx-checksum",
        42: "loopback",
        48: L2_FORWARD,
        49: TC_OFFLOAD,
    }
)
"""Place of a feature's bit; other places have no name here (include/linux/netdev_features.h has 60)."""
_PLACES = {name: place for place, name in _NAMES.items()}
_NEVER_CHANGED = 1 << _PLACES["vlan-challenged"]
_ALWAYS_ON = frozenset(
    {"tx-scatter-gather", "tx-generic-segmentation", "rx-gro", "rx-hashing", "rx-checksum"}
)


class Features:
    """The features of all network devices.

    Args:
        world: Is told of changes.
        offloaded: Returns how many filters of a device the hardware has.
    """

    def __init__(self, world: World, offloaded: Callable[[FakeNetdev], int]) -> None:
        self._world = world
        self._offloaded = offloaded
        self._wanted: dict[FakeNetdev, int] = {}

    def names(self) -> bytes:
        """Return the names of all features, one after the other, 32 bytes each."""
        return b"".join(_NAMES.get(place, "").encode().ljust(_NAME_BYTES, b"\0") for place in range(_COUNT))

    @property
    def count(self) -> int:
        """How many places there are."""
        return _COUNT

    def get(self, netdev: FakeNetdev, buffer: bytes) -> bytes:
        """Answer ETHTOOL_GFEATURES."""
        command, asked = _HEAD.unpack_from(buffer)
        available, active = _bits(netdev)
        wanted = self._wanted.get(netdev, active)
        blocks = bytearray()
        for word in range(min(asked, WORDS)):
            parts = (available, wanted, active, _NEVER_CHANGED)
            blocks += _GET_BLOCK.pack(*(bits >> 32 * word & 0xFFFF_FFFF for bits in parts))
        return _HEAD.pack(command, WORDS) + blocks

    def set(self, netdev: FakeNetdev, buffer: bytes) -> bytes:
        """Answer ETHTOOL_SFEATURES: what the driver does not follow stays a wish."""
        _, size = _HEAD.unpack_from(buffer)
        if size != WORDS or len(buffer) < _HEAD.size + WORDS * _SET_BLOCK.size:
            raise refusal(errno.EINVAL)
        valid = wanted = 0
        for word in range(WORDS):
            one, two = _SET_BLOCK.unpack_from(buffer, _HEAD.size + word * _SET_BLOCK.size)
            valid |= one << 32 * word
            wanted |= two << 32 * word
        if valid & ~((1 << _COUNT) - 1) or valid & _NEVER_CHANGED:
            raise refusal(errno.EINVAL)
        available, active = _bits(netdev)
        valid &= available
        wishes = self._wanted.get(netdev, active) & ~valid | wanted & valid
        self._wanted[netdev] = wishes
        self._follow(netdev, wishes)
        return buffer

    def forget(self, netdev: FakeNetdev) -> None:
        """Forget the wishes for a network device that is gone."""
        self._wanted.pop(netdev, None)

    def _follow(self, netdev: FakeNetdev, wishes: int) -> None:
        """Let the driver fulfil the wishes; one that it refuses keeps all of them as they were (ndo_set_features)."""
        changed = [
            name
            for name, state in netdev.features.items()
            if not state.fixed and state.active != bool(wishes >> _PLACES[name] & 1)
        ]
        if netdev.nic is not None and any(self._refused(netdev, netdev.nic, name) for name in changed):
            return
        for name in changed:
            state = netdev.features[name]
            state.active = not state.active
            if netdev.nic is not None:
                _drive(netdev.nic, netdev, name, state)
        if changed:
            self._world.netdev_changed(netdev)

    def _refused(self, netdev: FakeNetdev, nic: FakeNic, name: str) -> bool:
        """Tell whether the driver refuses to turn a feature off, for it has rules that need it."""
        if not netdev.features[name].active:
            return False
        needing = [
            table
            for table in nic.device.tables
            if "feature_in_use" in table.spec.errors
            and PROFILE_FEATURES.get(str(table.spec.needs.get("feature"))) == name
        ]
        if name == TC_OFFLOAD and needing and self._offloaded(netdev):
            return True
        return any(table.entries for table in needing)


def _drive(nic: FakeNic, netdev: FakeNetdev, name: str, state: FeatureState) -> None:
    """Let the emulated hardware follow a change of a feature."""
    sync_features(nic)
    if netdev.kind is not NetdevKind.PF:
        return
    device = nic.device
    needing = [
        table for table in device.tables if PROFILE_FEATURES.get(str(table.spec.needs.get("feature"))) == name
    ]
    if name == NTUPLE and not state.active and facts(nic.profile).ntuple_off_erases:
        mechanisms = {table.name: table.mechanism for table in nic.profile.tables}
        for table in device.tables:
            if mechanisms[table.spec.name] == "ntuple":
                device.erase(table.spec.name)
    if any(table.spec.needs.get("feature_disruption") in {"vf_reset", "link_flap"} for table in needing):
        device.sriov.reset_all()
        device.changed()


def _bits(netdev: FakeNetdev) -> tuple[int, int]:
    """Return what can be changed, and what is on."""
    available = active = 0
    for name, state in netdev.features.items():
        bit = 1 << _PLACES[name]
        available |= 0 if state.fixed else bit
        active |= bit if state.active else 0
    for name in _ALWAYS_ON:
        active |= 1 << _PLACES[name]
    return available, active
