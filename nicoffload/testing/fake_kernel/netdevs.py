"""How a network device looks when it appears: its name, its port, its features at first."""

from __future__ import annotations

import zlib

from nicoffload.testing.emulator import assumptions
from nicoffload.testing.fake_kernel.drivers import (
    L2_FORWARD,
    NTUPLE,
    PROFILE_FEATURES,
    TC_OFFLOAD,
    DriverFacts,
    facts,
    has_tc_offload,
)
from nicoffload.testing.fake_kernel.world import FakeNetdev, FakeNic, FeatureState, NetdevKind, World

_VF_MAC = 0x02_00_00_01_00_00
_DEFAULT_REPRESENTOR = "pf<P>vf<V>"


def make_pf(world: World, nic: FakeNic, ifname: str) -> FakeNetdev:
    """Return the network device of a physical function, not yet in the world."""
    port = port_number(nic)
    known = facts(nic.profile)
    return FakeNetdev(
        0,
        world.free_name(ifname),
        NetdevKind.PF,
        nic=nic,
        pci_address=nic.pci_address,
        switch_id=switch_of(nic),
        port_name=known.port_name.format(port=port, number=port + 1),
        mac=assumptions.PF_MAC + (_number(nic.pci_address) << 8 & 0xFF_0000),
        features=_pf_features(nic, known),
    )


def make_vf(world: World, nic: FakeNic, vf: int, ifname: str) -> FakeNetdev:
    """Return the network device of a VF whose driver is on the host, not yet in the world."""
    administered = nic.device.sriov.vfs[vf].mac
    features = {
        NTUPLE: FeatureState(active=False, fixed=True),
        TC_OFFLOAD: FeatureState(active=False, fixed=True),
        L2_FORWARD: FeatureState(active=False, fixed=True),
    }
    return FakeNetdev(
        0,
        world.free_name(f"{ifname}v{vf}"),
        NetdevKind.VF,
        nic=nic,
        vf=vf,
        pci_address=nic.vfs[vf].address,
        mac=administered or _VF_MAC + (_number(nic.pci_address) << 16 & 0xFF_0000_0000) + vf,
        features=features,
    )


def make_representor(world: World, nic: FakeNic, vf: int, ifname: str) -> FakeNetdev:
    """Return the representor of a VF, not yet in the world."""
    stated = nic.profile.statistics.representor
    template = (stated.phys_port_name if stated else "") or _DEFAULT_REPRESENTOR
    port = str(port_number(nic))
    name = template.replace("<port>", port).replace("<P>", port).replace("<V>", str(vf))
    known = facts(nic.profile)
    features = {
        NTUPLE: FeatureState(active=False, fixed=True),
        TC_OFFLOAD: FeatureState(active=known.representor_tc, fixed=known.tc_fixed),
        L2_FORWARD: FeatureState(active=False, fixed=True),
    }
    return FakeNetdev(
        0,
        world.free_name(f"{ifname}r{vf}"),
        NetdevKind.REPRESENTOR,
        nic=nic,
        vf=vf,
        pci_address=nic.pci_address,
        switch_id=nic.switch_id,
        port_name=name,
        mac=_VF_MAC + 0x8000 + vf,
        features=features,
    )


def in_switchdev(nic: FakeNic) -> bool:
    """Tell whether a NIC's VFs have representors: in switchdev mode, and always where there is no mode to set."""
    if nic.profile.eswitch is None:
        return nic.profile.statistics.representor is not None
    return nic.device.mode == "switchdev"


def switch_of(nic: FakeNic) -> bytes:
    """Return the switch that the PF's network device names at present."""
    named = facts(nic.profile).switch_in_legacy or in_switchdev(nic)
    return nic.switch_id if named else b""


def sync_features(nic: FakeNic) -> None:
    """Tell the emulated hardware which features are on: tc's, where any network device of the NIC has it on."""
    for name, kernel_name in PROFILE_FEATURES.items():
        if name in nic.device.features:
            devices = nic.netdevs() if kernel_name == TC_OFFLOAD else iter([nic.pf])
            on = any(one.features[kernel_name].active for one in devices if one.kind is not NetdevKind.VF)
            if nic.device.features[name] != on:
                nic.device.features[name] = on
                nic.device.changed()


def queue_count(netdev: FakeNetdev) -> int:
    """Return how many receive queues a network device has at present."""
    if netdev.nic is None or netdev.nic.bus != "pci":
        return 1
    if netdev.kind is NetdevKind.PF:
        return netdev.nic.device.pf_queues
    return netdev.nic.device.sriov.targets().queues_per_vf if netdev.kind is NetdevKind.VF else 1


def port_number(nic: FakeNic) -> int:
    """Return the number of the physical port: the PCI function's."""
    tail = nic.pci_address.rpartition(".")[2]
    return int(tail) if nic.bus == "pci" else 0


def _pf_features(nic: FakeNic, known: DriverFacts) -> dict[str, FeatureState]:
    states = nic.device.features
    has_table = any(table.mechanism == "ntuple" for table in nic.profile.tables)
    ntuple = FeatureState(
        active=has_table and bool(known.ntuple_feature), fixed=known.ntuple_feature is None or not has_table
    )
    if "ntuple" in states:
        ntuple = FeatureState(active=states["ntuple"])
    tc_offload = FeatureState(active=False, fixed=True)
    if has_tc_offload(nic.profile):
        fixed = known.tc_fixed
        tc_offload = FeatureState(active=states.get("hw-tc-offload", True), fixed=fixed)
    return {
        NTUPLE: ntuple,
        TC_OFFLOAD: tc_offload,
        L2_FORWARD: FeatureState(active=False, fixed=nic.profile.driver not in {"ixgbe", "i40e"}),
    }


def _number(text: str) -> int:
    """Return a number that is always the same for a text."""
    return zlib.crc32(text.encode())
