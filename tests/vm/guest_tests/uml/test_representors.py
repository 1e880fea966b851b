"""Representors of the simulated NIC: sysfs, devlink and we agree on which port is whose."""

from __future__ import annotations

import socket

import pytest

from nicoffload.errors import NotFoundError
from nicoffload.kernel.devlink import Devlink, EswitchMode, Handle, PortFlavour
from nicoffload.kernel.linux import LinuxKernel
from nicoffload.kernel.representors import Role, agrees, identify, representors, vf_representor


def test_sysfs_and_devlink_agree_on_every_port_even_under_other_names(simulated_nic, sh):
    kernel, nic = LinuxKernel(), simulated_nic()
    other = simulated_nic()
    for one in (nic, other):
        one.set_vfs(3)
    handle = Handle.of(nic.handle)
    with Devlink(kernel) as devlink:
        for one in (nic, other):
            devlink.set_eswitch(Handle.of(one.handle), mode=EswitchMode.SWITCHDEV)
        ports = devlink.ports(handle)
        first, second = (port.ifname for port in ports if port.flavour is PortFlavour.PCI_VF and port.vf < 2)
        # Two representors trade their names.
        for old, new in ((first, "swap"), (second, first), ("swap", second)):
            sh(f"ip link set {old} down")
            sh(f"ip link set {old} name {new}")
        ports = devlink.ports(handle)
        assert len(ports) == 4
        found = {one.ifindex: one for one in (identify(kernel, port.ifname) for port in ports)}
        for port in ports:
            assert [agrees(one, port) for one in found.values()].count(True) == 1
            assert agrees(found[port.ifindex], port)
        [uplink] = [port for port in ports if port.flavour is PortFlavour.PHYSICAL]
        assert found[uplink.ifindex].role is Role.UPLINK
        switch = found[uplink.ifindex].switch_id
        assert switch
        assert {one.ifindex for one in representors(kernel, switch)} == set(found)
        for port in ports:
            if port.flavour is PortFlavour.PCI_VF:
                assert vf_representor(kernel, switch, port.vf, pf=port.pf).ifindex == port.ifindex
        with pytest.raises(NotFoundError):
            vf_representor(kernel, switch, 3, pf=0)


def test_what_is_no_port_of_a_nic_is_other(sh):
    sh("ip link add plain type dummy")
    one = identify(LinuxKernel(), "plain")
    assert (one.role, one.ifindex) == (Role.OTHER, socket.if_nametoindex("plain"))
    sh("ip link del plain")
