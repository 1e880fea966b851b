"""Which packets belong to which VM: from a list of VMs, or guessed from the traffic."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from nicoffload.codec import load_json, parse_rate
from nicoffload.errors import InvalidRequestError
from nicoffload.flexivoffload.headers import Headers
from nicoffload.model import FIRST_VF_PORT, RateLimit, format_mac, parse_mac
from nicoffload.packets import HAS_ETH, HAS_IPV4, HAS_IPV6, TRUNCATED
from nicoffload.schema import validate

NO_VM = -1
VSWITCH_ONLY, RX, TX = 0, 1, 2
"""What a flow is to the NIC: none of its business, for a VM, or from a VM."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Vm:
    """A virtual machine.

    Args:
        name: Unique.
        vf: Index of its virtual function, unique.
        macs: Its 48-bit addresses.
        ips: Its addresses, as text.
        max_tx_bps: Limit on what it sends; None for none.
    """

    name: str
    vf: int
    macs: tuple[int, ...] = ()
    ips: tuple[str, ...] = ()
    max_tx_bps: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ends:
    """What VM directory knows of some headers, in columns.

    Args:
        kind: int8[N], `VSWITCH_ONLY`, `RX` or `TX`.
        vm: int32[N], index of the VM; `NO_VM` where there is none. A packet between VMs belongs to its sender.
        is_local: bool[N], both ends are VMs.
        in_port: int32[N], the port of the NIC's switch that the packet would enter.
    """

    kind: npt.NDArray[np.int8]
    vm: npt.NDArray[np.int32]
    is_local: npt.NDArray[np.bool_]
    in_port: npt.NDArray[np.int32]


Address = tuple[int, int]
"""Family (0 MAC, 4, 6) and number."""


Pair = tuple[Address, Address]
"""MAC and IP address of one end of a packet."""

NO_MAC = -1
"""Stands for the MAC address of a packet without Ethernet header."""


class VmDirectory:
    """Finds the VMs of packets, and makes VMs up from destinations where nobody named them.

    Args:
        vms: The VMs.
        infer_limit: How many VMs may be guessed; 0 where `vms` is all there is.
    """

    def __init__(self, vms: Sequence[Vm], *, infer_limit: int = 0) -> None:
        self.vms = list(vms)
        self.inferred = infer_limit > 0
        self._infer_limit = infer_limit
        self._by_address: dict[Address, int] = {}
        self._partners: set[Address] = set()
        for index, vm in enumerate(self.vms):
            for address in _addresses(vm):
                self._by_address[address] = index

    def look_up(self, headers: Headers) -> Ends:
        """Return the ends of headers, in the order in which their first packets came.

        The order matters only where VMs are guessed: an address that nobody knows becomes a VM when a packet is sent
        to it, unless the packet comes from a VM, or the address was seen as the partner of one.
        """
        count = len(headers)
        kind = np.zeros(count, np.int8)
        vm = np.full(count, NO_VM, np.int32)
        is_local = np.zeros(count, np.bool_)
        ends = zip(
            _addresses_of(headers, "src"), _addresses_of(headers, "dst"), _unicast_ip(headers), strict=True
        )
        for row, (sender, receiver, (present, is_group)) in enumerate(ends):
            if not present:
                continue
            source, target = self._ends_of(sender, receiver, is_group=is_group)
            if source != NO_VM:
                kind[row], vm[row], is_local[row] = TX, source, target != NO_VM
            elif target != NO_VM:
                kind[row], vm[row] = RX, target
            if is_group:
                kind[row] = VSWITCH_ONLY
        vfs = np.array([one.vf for one in self.vms] or [0], np.int32)
        in_port = np.where(vm >= 0, FIRST_VF_PORT + vfs[vm], 0).astype(np.int32)
        in_port[kind != TX] = 0
        return Ends(kind=kind, vm=vm, is_local=is_local, in_port=in_port)

    def _ends_of(self, sender: Pair, receiver: Pair, *, is_group: bool) -> tuple[int, int]:
        source = self._find(sender)
        target = NO_VM if is_group else self._find(receiver)
        if not self.inferred or is_group or target != NO_VM:
            return source, target
        here, there = receiver[1], sender[1]
        if source != NO_VM:
            self._note_partner(here)
        elif len(self.vms) < self._infer_limit and here not in self._partners and _is_unicast(here):
            target = self._make_up(here)
            self._note_partner(there)
        return source, target

    def _find(self, end: Pair) -> int:
        mac, ip = end
        found = self._by_address.get(mac)
        return self._by_address.get(ip, NO_VM) if found is None else found

    def _note_partner(self, address: Address) -> None:
        # Only while there is something left to guess: the set would grow with the capture.
        if len(self.vms) < self._infer_limit and len(self._partners) < 1 << 16:
            self._partners.add(address)

    def _make_up(self, address: Address) -> int:
        index = len(self.vms)
        text = str(
            ipaddress.IPv4Address(address[1]) if address[0] == 4 else ipaddress.IPv6Address(address[1])
        )
        self.vms.append(Vm(name=text, vf=index, ips=(text,)))
        self._by_address[address] = index
        return index


def _addresses(vm: Vm) -> Iterator[Address]:
    for mac in vm.macs:
        yield 0, mac
    for text in vm.ips:
        ip = ipaddress.ip_address(text)
        yield ip.version, int(ip)


def _addresses_of(headers: Headers, end: str) -> Iterator[Pair]:
    """Yield the addresses of one end of headers, ``src`` or ``dst``: by columns, as rows are slow to take apart."""
    columns = ("present", f"eth_{end}", f"ipv4_{end}", f"ipv6_{end}_hi", f"ipv6_{end}_lo")
    for present, mac, ipv4, high, low in zip(*(headers[name].tolist() for name in columns), strict=True):
        ip = (4, ipv4) if present & HAS_IPV4 else (6, high << 64 | low)
        yield (0, mac if present & HAS_ETH else NO_MAC), ip


def _is_unicast(address: Address) -> bool:
    ip = ipaddress.IPv4Address(address[1]) if address[0] == 4 else ipaddress.IPv6Address(address[1])
    return not (ip.is_multicast or ip.is_unspecified or ip.is_loopback or address == (4, 0xFFFFFFFF))


def _unicast_ip(headers: Headers) -> Iterator[tuple[bool, bool]]:
    present = headers["present"]
    is_ip = ((present & (HAS_IPV4 | HAS_IPV6)) != 0) & ((present & TRUNCATED) == 0)
    group = ((present & HAS_ETH) != 0) & ((headers["eth_dst"] >> np.uint64(40)) & np.uint64(1) != 0)
    group |= ((present & HAS_IPV4) != 0) & (headers["ipv4_dst"] >= 0xE0000000)
    group |= ((present & HAS_IPV6) != 0) & (headers["ipv6_dst_hi"] >> np.uint64(56) == 0xFF)
    return zip(is_ip.tolist(), group.tolist(), strict=True)


def load_vms(path: Path) -> tuple[Vm, ...]:
    """Read a list of VMs.

    Args:
        path: JSON: ``{"vms": [{"name": "web", "vf": 0, "macs": ["02:…"], "ips": ["10.0.0.5"], "max_tx": "1G"}]}``.

    Raises:
        InvalidRequestError: It can't be read, breaks its schema, or names a VF, name or address twice.
    """
    try:
        document = load_json(path.read_text("utf-8"), str(path))
    except OSError as cause:
        raise InvalidRequestError(cause.strerror or str(cause), path=str(path)) from cause
    except ValueError as cause:
        raise InvalidRequestError(
            cause.message if isinstance(cause, InvalidRequestError) else f"{path}: not JSON: {cause}",
            hint='it holds {"vms": [{"name": "web", "vf": 0, "ips": […]}]}',
        ) from cause
    validate(document, "vms", source=str(path))
    vms = tuple(_vm(entry, f"/vms/{index}") for index, entry in enumerate(document["vms"]))
    _check_unique(vms)
    return vms


def _vm(entry: dict[str, object], path: str) -> Vm:
    macs, ips = entry.get("macs", []), entry.get("ips", [])
    assert isinstance(macs, list)
    assert isinstance(ips, list)
    parsed_ips = []
    for index, text in enumerate(ips):
        try:
            parsed_ips.append(str(ipaddress.ip_address(text)))
        except ValueError as cause:
            raise InvalidRequestError(f"{text!r} is no IP address", path=f"{path}/ips/{index}") from cause
    if not (macs or ips):
        # In words here, as a schema can only call one of the two keys missing.
        raise InvalidRequestError(
            f"VM {entry['name']!r} has no address, so no packet is known to be its",
            path=path,
            hint="give it macs or ips",
        )
    rate = entry.get("max_tx")
    return Vm(
        name=str(entry["name"]),
        vf=int(str(entry["vf"])),
        macs=tuple(parse_mac(text, f"{path}/macs/{index}") for index, text in enumerate(macs)),
        ips=tuple(parsed_ips),
        max_tx_bps=None if rate is None else _checked_rate(str(rate), f"{path}/max_tx"),
    )


def _checked_rate(text: str, path: str) -> int | None:
    rate_bps = parse_rate(text, path)
    try:
        RateLimit(max_tx_bps=rate_bps)
    except InvalidRequestError as cause:
        raise InvalidRequestError(f"max_tx: {cause.message}", path=path, hint=cause.hint) from cause
    return rate_bps


def _check_unique(vms: Sequence[Vm]) -> None:
    seen: dict[object, int] = {}
    for index, vm in enumerate(vms):
        for what, key in _claims(vm):
            if key in seen:
                raise InvalidRequestError(
                    f"{what} belongs to {vms[seen[key]].name!r} already", path=f"/vms/{index}"
                )
            seen[key] = index


def _claims(vm: Vm) -> Iterator[tuple[str, object]]:
    yield f"the name {vm.name!r}", ("name", vm.name)
    yield f"VF {vm.vf}", ("vf", vm.vf)
    for family, number in _addresses(vm):
        yield (
            format_mac(number) if family == 0 else f"address {ipaddress.ip_address(number)}",
            (family, number),
        )
