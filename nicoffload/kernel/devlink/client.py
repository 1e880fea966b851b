"""A NIC's switch, ports and transmit rates, asked and told through devlink."""

from __future__ import annotations

import errno
from types import TracebackType
from typing import Self

from nicoffload.errors import InvalidRequestError, KernelError, NicOffloadError, NotFoundError, from_errno
from nicoffload.kernel.attributes import attribute as raw
from nicoffload.kernel.attributes import nested, text, u8, u16, u32, u64
from nicoffload.kernel.devlink import decode
from nicoffload.kernel.devlink import numbers as n
from nicoffload.kernel.devlink.values import (
    EncapMode,
    Eswitch,
    EswitchMode,
    FunctionState,
    Handle,
    Info,
    InlineMode,
    Port,
    Rate,
    RateChange,
    RateLeaf,
    RateNode,
    check_hw_addr,
    to_bytes_per_s,
)
from nicoffload.kernel.genetlink import GenericSocket, body
from nicoffload.kernel.netlink import NLM_F_CREATE, NLM_F_EXCL, KernelRefusal, Message, Netlink
from nicoffload.kernel.seam import NETLINK_GENERIC, Kernel

_INFO, _ESWITCH, _PORT, _FUNCTION, _RATE = (
    "devlink.info",
    "devlink.eswitch",
    "devlink.port",
    "devlink.port_function",
    "devlink.rate",
)


class Devlink:
    """Devlink of one kernel. Of one thread.

    Args:
        kernel: Whose.

    Raises:
        NotSupportedError: The kernel has no devlink.
    """

    def __init__(self, kernel: Kernel) -> None:
        self._netlink = Netlink(kernel, NETLINK_GENERIC)
        try:
            self._socket = GenericSocket(self._netlink, n.FAMILY)
        except BaseException:
            self._netlink.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the socket. Repeatable."""
        self._netlink.close()

    def devices(self) -> list[Handle]:
        """Return every device, in the kernel's order."""
        found = self._socket.dump(n.CMD_GET, b"", capability="devlink")
        return [decode.handle(body(message)[1]) for message in found]

    def info(self, handle: Handle) -> Info:
        """Return driver, serial numbers and versions.

        Raises:
            DeviceGoneError: There is no such device.
            NotSupportedError: The driver tells nothing.
        """
        return decode.info(self._ask(n.CMD_INFO_GET, handle, b"", "reading the device", _INFO).payload)

    def eswitch(self, handle: Handle) -> Eswitch:
        """Return the modes of a device's switch.

        Raises:
            DeviceGoneError: There is no such device.
            NotSupportedError: The driver has no modes.
        """
        answer = self._ask(n.CMD_ESWITCH_GET, handle, b"", "reading the switch", _ESWITCH)
        return decode.eswitch(body(answer)[1])

    def set_eswitch(
        self,
        handle: Handle,
        *,
        mode: EswitchMode | None = None,
        inline_mode: InlineMode | None = None,
        encap_mode: EncapMode | None = None,
    ) -> None:
        """Set modes of a device's switch; None leaves one as it is.

        The kernel sets them in this order, and does not take back those before one that it refuses.

        Raises:
            InvalidRequestError: Nothing is to be set, or the kernel calls it wrong.
            DeviceBusyError: Rate nodes, or flows, stand against it.
            DeviceGoneError: There is no such device.
            NotSupportedError: The driver does not have it, or not in this state (VFs exist).
        """
        payload = b""
        if mode is not None:
            payload += u16(n.ESWITCH_MODE, decode.wire_number(mode))
        if inline_mode is not None:
            payload += u8(n.ESWITCH_INLINE_MODE, decode.wire_number(inline_mode))
        if encap_mode is not None:
            payload += u8(n.ESWITCH_ENCAP_MODE, decode.wire_number(encap_mode))
        if not payload:
            raise InvalidRequestError("no mode of the switch is to be set", device=str(handle))
        self._tell(n.CMD_ESWITCH_SET, handle, payload, "setting the switch's mode", _ESWITCH)

    def ports(self, handle: Handle | None = None) -> list[Port]:
        """Return the ports of a device; of all devices for None."""
        found = self._socket.dump(n.CMD_PORT_GET, b"", capability=_PORT)
        ports = [decode.port(body(message)[1]) for message in found]
        return [port for port in ports if handle in (None, port.handle)]

    def port(self, handle: Handle, index: int) -> Port:
        """Return one port.

        Raises:
            NotFoundError: The device has no such port.
            DeviceGoneError: There is no such device.
        """
        what = f"reading port {index}"
        answer = self._ask(n.CMD_PORT_GET, handle, u32(n.PORT_INDEX, index), what, _PORT, part=True)
        return decode.port(body(answer)[1])

    def set_function(
        self,
        handle: Handle,
        index: int,
        *,
        hw_addr: int | None = None,
        state: FunctionState | None = None,
    ) -> None:
        """Set address and state of the function behind a port; None leaves one as it is.

        Args:
            handle: The device.
            index: Of the port.
            hw_addr: 48-bit MAC address.
            state: Whether it may be used.

        Raises:
            InvalidRequestError: Nothing is to be set, or the address is none of a function.
            NotFoundError: The device has no such port.
            NotSupportedError: The driver can't set it at this port.
        """
        settings = []
        if hw_addr is not None:
            check_hw_addr(hw_addr)
            settings.append(raw(n.FUNCTION_HW_ADDR, hw_addr.to_bytes(6, "big")))
        if state is not None:
            settings.append(u8(n.FUNCTION_STATE, decode.wire_number(state)))
        if not settings:
            raise InvalidRequestError("nothing of the function is to be set", device=str(handle))
        payload = u32(n.PORT_INDEX, index) + nested(n.PORT_FUNCTION, *settings)
        what = f"setting the function of port {index}"
        self._tell(n.CMD_PORT_SET, handle, payload, what, _FUNCTION, part=True)

    def rates(self, handle: Handle | None = None) -> list[Rate]:
        """Return the rates of a device's leaves and nodes; of all devices for None."""
        found = self._socket.dump(n.CMD_RATE_GET, b"", capability=_RATE)
        rates = [decode.rate(body(message)[1]) for message in found]
        return [rate for rate in rates if handle in (None, rate.handle)]

    def rate(self, handle: Handle, ref: RateLeaf | RateNode) -> Rate:
        """Return the rate of one leaf or node.

        Raises:
            NotFoundError: The device has no such leaf or node.
            DeviceGoneError: There is no such device.
        """
        answer = self._ask(n.CMD_RATE_GET, handle, _named(ref), f"reading rate {ref}", _RATE, part=True)
        return decode.rate(body(answer)[1])

    def set_rate(self, handle: Handle, ref: RateLeaf | RateNode, change: RateChange) -> None:
        """Set the rate of a leaf or node.

        The kernel sets share, limit, priority, weight and parent in this order, and does not take back those before
        one that it refuses: read the rate after an error.

        Raises:
            InvalidRequestError: Nothing is to be set, or the driver takes no such rate.
            NotFoundError: The device has no such leaf or node, or no such parent.
            DeviceBusyError: The node can't have that parent now.
            NotSupportedError: The driver can't set it.
        """
        payload = _settings(change)
        if not payload:
            raise InvalidRequestError("nothing of the rate is to be set", device=str(handle))
        self._tell(n.CMD_RATE_SET, handle, _named(ref) + payload, f"setting rate {ref}", _RATE, part=True)

    def create_node(self, handle: Handle, node: RateNode, change: RateChange | None = None) -> None:
        """Make a node, with its rate.

        Raises:
            ConflictError: The device has a node of that name.
            InvalidRequestError: The driver takes no such rate.
            NotSupportedError: The driver has no nodes, or none in this mode of its switch.
        """
        payload = _named(node) + _settings(change or RateChange())
        what = f"making rate node {node}"
        self._tell(n.CMD_RATE_NEW, handle, payload, what, _RATE, part=True, flags=NLM_F_CREATE | NLM_F_EXCL)

    def delete_node(self, handle: Handle, node: RateNode) -> None:
        """Remove a node.

        Raises:
            NotFoundError: The device has no such node.
            DeviceBusyError: Leaves or nodes are in it.
        """
        what = f"removing rate node {node}"
        self._tell(n.CMD_RATE_DEL, handle, _named(node), what, _RATE, part=True)

    def _ask(
        self, command: int, handle: Handle, payload: bytes, what: str, capability: str, *, part: bool = False
    ) -> Message:
        answers = self._tell(command, handle, payload, what, capability, part=part)
        if not answers:
            raise KernelError(f"{what}: acknowledged without an answer", device=str(handle))
        return answers[0]

    def _tell(
        self,
        command: int,
        handle: Handle,
        payload: bytes,
        what: str,
        capability: str,
        *,
        part: bool = False,
        flags: int = 0,
    ) -> list[Message]:
        refused, answers = self._socket.request(command, _of(handle) + payload, flags)
        if refused:
            raise self._error(refused, handle, what, capability, part=part)
        return answers

    def _error(
        self, refused: KernelRefusal, handle: Handle, what: str, capability: str, *, part: bool
    ) -> NicOffloadError:
        """Return the error, which tells a device that is gone (ENODEV) from a part that it does not have (ENODEV)."""
        meaning = None
        if part and refused.errno == errno.ENODEV and not self._socket.request(n.CMD_GET, _of(handle))[0]:
            meaning = NotFoundError
        return from_errno(
            refused.errno,
            what,
            capability=capability,
            device=str(handle),
            kernel_message=refused.text,
            meaning=meaning,
        )


def _of(handle: Handle) -> bytes:
    return text(n.BUS_NAME, handle.bus) + text(n.DEV_NAME, handle.name)


def _named(ref: RateLeaf | RateNode) -> bytes:
    if isinstance(ref, RateLeaf):
        return u32(n.PORT_INDEX, ref.port)
    return text(n.RATE_NODE_NAME, ref.name)


def _settings(change: RateChange) -> bytes:
    payload = b""
    if change.tx_share_bps is not None:
        payload += u64(n.RATE_TX_SHARE, to_bytes_per_s(change.tx_share_bps, "/tx_share_bps"))
    if change.tx_max_bps is not None:
        payload += u64(n.RATE_TX_MAX, to_bytes_per_s(change.tx_max_bps, "/tx_max_bps"))
    if change.tx_priority is not None:
        payload += u32(n.RATE_TX_PRIORITY, change.tx_priority)
    if change.tx_weight is not None:
        payload += u32(n.RATE_TX_WEIGHT, change.tx_weight)
    if change.parent is not None:
        payload += text(n.RATE_PARENT_NODE_NAME, change.parent)
    return payload
