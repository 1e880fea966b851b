"""Messages of devlink into values. A message may come from a newer kernel: what is unknown is passed over."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from typing import TypeVar

from nicoffload.errors import InvalidRequestError
from nicoffload.kernel.attributes import Buffer, MalformedError, number, parse, string, walk
from nicoffload.kernel.devlink import numbers as n
from nicoffload.kernel.devlink.values import (
    EncapMode,
    Eswitch,
    EswitchMode,
    FunctionOpstate,
    FunctionState,
    Handle,
    Info,
    InlineMode,
    Port,
    PortFlavour,
    PortFunction,
    Rate,
    RateLeaf,
    RateNode,
    Version,
    VersionKind,
    to_bits_per_s,
)
from nicoffload.kernel.genetlink import GENERIC_HEADER

Attributes = Mapping[int, Buffer]
E = TypeVar("E", bound=enum.Enum)

_VERSION_KINDS: Sequence[tuple[int, VersionKind]] = (
    (n.INFO_VERSION_FIXED, VersionKind.FIXED),
    (n.INFO_VERSION_RUNNING, VersionKind.RUNNING),
    (n.INFO_VERSION_STORED, VersionKind.STORED),
)
_RATE_NODE = 1


def wire_number(member: enum.Enum) -> int:
    """Return the number of an enumeration's member on the wire: its place, as in the kernel's header."""
    return list(type(member)).index(member)


def handle(found: Attributes) -> Handle:
    """Return the device that a message is about.

    Raises:
        MalformedError: It names none.
    """
    try:
        return Handle(bus=string(_need(found, n.BUS_NAME)), name=string(_need(found, n.DEV_NAME)))
    except InvalidRequestError as cause:
        raise MalformedError(f"a message of devlink about {cause}") from cause


def info(payload: Buffer) -> Info:
    """Return what an answer to INFO_GET says.

    Args:
        payload: What follows the netlink header: versions come as attributes of one kind, which a mapping would lose.

    Raises:
        MalformedError: It breaks the format.
    """
    found = parse(payload, GENERIC_HEADER.size)
    kinds = dict(_VERSION_KINDS)
    versions = []
    for kind, start, end in walk(payload, GENERIC_HEADER.size):
        if kind in kinds:
            one = parse(payload, start, end)
            name, value = _text(one, n.INFO_VERSION_NAME), _text(one, n.INFO_VERSION_VALUE)
            versions.append(Version(kind=kinds[kind], name=name, value=value))
    return Info(
        handle=handle(found),
        driver=_text(found, n.INFO_DRIVER_NAME),
        serial_number=_text(found, n.INFO_SERIAL_NUMBER),
        board_serial_number=_text(found, n.INFO_BOARD_SERIAL_NUMBER),
        versions=tuple(versions),
    )


def eswitch(found: Attributes) -> Eswitch:
    """Return what an answer to ESWITCH_GET says; a mode that this SDK does not know is None.

    Raises:
        MalformedError: It breaks the format.
    """
    return Eswitch(
        handle=handle(found),
        mode=_member(EswitchMode, _optional(found, n.ESWITCH_MODE, 2)),
        inline_mode=_member(InlineMode, _optional(found, n.ESWITCH_INLINE_MODE, 1)),
        encap_mode=_member(EncapMode, _optional(found, n.ESWITCH_ENCAP_MODE, 1)),
    )


def port(found: Attributes) -> Port:
    """Return what a message about a port says.

    Raises:
        MalformedError: It breaks the format.
    """
    behind = found.get(n.PORT_FUNCTION)
    return Port(
        handle=handle(found),
        index=number(_need(found, n.PORT_INDEX), 4),
        flavour=_member(PortFlavour, _optional(found, n.PORT_FLAVOUR, 2)) or PortFlavour.OTHER,
        ifindex=_optional(found, n.PORT_NETDEV_IFINDEX, 4),
        ifname=_text(found, n.PORT_NETDEV_NAME),
        number=_optional(found, n.PORT_NUMBER, 4),
        controller=_optional(found, n.PORT_CONTROLLER_NUMBER, 4),
        pf=_optional(found, n.PORT_PCI_PF_NUMBER, 2),
        vf=_optional(found, n.PORT_PCI_VF_NUMBER, 2),
        sf=_optional(found, n.PORT_PCI_SF_NUMBER, 4),
        external=bool(_optional(found, n.PORT_EXTERNAL, 1)),
        function=None if behind is None else _function(parse(behind)),
    )


def _function(found: Attributes) -> PortFunction | None:
    address = found.get(n.FUNCTION_HW_ADDR)
    function = PortFunction(
        # InfiniBand's addresses are longer, and no MAC.
        hw_addr=int.from_bytes(address, "big") if address is not None and len(address) == 6 else None,
        state=_member(FunctionState, _optional(found, n.FUNCTION_STATE, 1)),
        opstate=_member(FunctionOpstate, _optional(found, n.FUNCTION_OPSTATE, 1)),
    )
    return None if function == PortFunction() else function


def rate(found: Attributes) -> Rate:
    """Return what a message about a rate says.

    Raises:
        MalformedError: It breaks the format.
    """
    try:
        is_node = number(_need(found, n.RATE_TYPE), 2) == _RATE_NODE
        ref = (
            RateNode(name=_text(found, n.RATE_NODE_NAME))
            if is_node
            else RateLeaf(port=number(_need(found, n.PORT_INDEX), 4))
        )
    except InvalidRequestError as cause:
        raise MalformedError(f"a rate of devlink: {cause}") from cause
    return Rate(
        handle=handle(found),
        ref=ref,
        tx_share_bps=to_bits_per_s(_optional(found, n.RATE_TX_SHARE, 8) or 0),
        tx_max_bps=to_bits_per_s(_optional(found, n.RATE_TX_MAX, 8) or 0),
        tx_priority=_optional(found, n.RATE_TX_PRIORITY, 4),
        tx_weight=_optional(found, n.RATE_TX_WEIGHT, 4),
        parent=_text(found, n.RATE_PARENT_NODE_NAME),
    )


def _member(kind: type[E], place: int | None) -> E | None:
    members = list(kind)
    return members[place] if place is not None and place < len(members) else None


def _need(found: Attributes, kind: int) -> Buffer:
    try:
        return found[kind]
    except KeyError as cause:
        raise MalformedError(f"a message of devlink comes without attribute {kind}") from cause


def _optional(found: Attributes, kind: int, bytes_wide: int) -> int | None:
    return number(found[kind], bytes_wide) if kind in found else None


def _text(found: Attributes, kind: int) -> str:
    return string(found[kind]) if kind in found else ""
