"""The NIC rules of the lab's flows: each flow one rule for each direction."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

from examples.lab.topology import WIRE_IP, LabVm
from nicoffload.model import FIRST_VF_PORT, FlowRule, Match, ToUplink, ToVf

TCP, UDP = 6, 17
SERVER_PORT = 5201
UDP_PORT = 7001
FLOOD_PORT = 7002
FLOOD_IP = "10.98.0.1"
"""No VM has it: a VM drops what comes to it once its interface has counted it, which costs next to nothing."""

IDLE_PORT = 7003


def client_port(vm: LabVm) -> int:
    """Return the port that the wire's end of a VM's flow has."""
    return 40_000 + vm.number


def to_vm(vm: LabVm, protocol: int, port: int, ip: str = "") -> FlowRule:
    """Return the rule that brings a VM's flow from the wire to its virtual function.

    Args:
        vm: The VM.
        protocol: Of IP.
        port: The VM's.
        ip: The VM's address; empty for the one that it has.
    """
    match = Match.of(
        eth_type=0x0800,
        ip_proto=protocol,
        ipv4_src=_number(WIRE_IP),
        ipv4_dst=_number(ip or vm.ip),
        tp_src=client_port(vm),
        tp_dst=port,
    )
    return FlowRule(match=match, actions=(ToVf(vf=vm.vf),))


def from_vm(vm: LabVm, protocol: int, port: int) -> FlowRule:
    """Return the rule that lets what a VM answers past the virtual switch."""
    match = Match.of(
        in_port=FIRST_VF_PORT + vm.vf,
        eth_type=0x0800,
        ip_proto=protocol,
        ipv4_src=_number(vm.ip),
        ipv4_dst=_number(WIRE_IP),
        tp_src=port,
        tp_dst=client_port(vm),
    )
    return FlowRule(match=match, actions=(ToUplink(),))


def rules(vms: Sequence[LabVm], protocol: int, port: int) -> list[FlowRule]:
    """Return the rules that put all these VMs' flows on the NIC, both ways."""
    return [make(vm, protocol, port) for vm in vms for make in (to_vm, from_vm)]


def _number(ip: str) -> int:
    return int(ipaddress.IPv4Address(ip))
