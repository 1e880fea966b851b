"""The devlink command that does the same: what ``--explain`` prints, and what the tests run to compare kernel state."""

from __future__ import annotations

from nicoffload.kernel.devlink.values import (
    EncapMode,
    EswitchMode,
    FunctionState,
    Handle,
    InlineMode,
    RateChange,
    RateLeaf,
    RateNode,
)
from nicoffload.model import format_mac

_RATE = "devlink port function rate"


def eswitch_command(
    handle: Handle,
    *,
    mode: EswitchMode | None = None,
    inline_mode: InlineMode | None = None,
    encap_mode: EncapMode | None = None,
) -> str:
    """Return what sets the modes of a switch; None leaves one as it is."""
    words = [f"devlink dev eswitch set {handle}"]
    words += [f"mode {mode.value}"] if mode else []
    words += [f"inline-mode {inline_mode.value}"] if inline_mode else []
    words += [f"encap-mode {encap_mode.value}"] if encap_mode else []
    return " ".join(words)


def function_command(
    handle: Handle,
    index: int | str,
    *,
    hw_addr: int | None = None,
    state: FunctionState | None = None,
) -> str:
    """Return what sets address and state of the function behind a port; None leaves one as it is.

    Args:
        handle: The device.
        index: Index of the port; text stands for handle and index, of a port that is not there yet.
        hw_addr: The address.
        state: The state.
    """
    words = [f"devlink port function set {_port(handle, index)}"]
    words += [f"hw_addr {format_mac(hw_addr)}"] if hw_addr is not None else []
    words += [f"state {state.value}"] if state else []
    return " ".join(words)


def rate_command(handle: Handle, ref: RateLeaf | RateNode | str, change: RateChange) -> str:
    """Return what sets the rate of a leaf or node; text stands for handle and leaf, of a port that is not there yet."""
    return " ".join([f"{_RATE} set {_port(handle, ref)}", *_settings(change)])


def create_node_command(handle: Handle, node: RateNode, change: RateChange | None = None) -> str:
    """Return what makes a node, with its rate."""
    return " ".join([f"{_RATE} add {handle}/{node}", *_settings(change or RateChange())])


def delete_node_command(handle: Handle, node: RateNode) -> str:
    """Return what removes a node."""
    return f"{_RATE} del {handle}/{node}"


def _port(handle: Handle, port: int | RateLeaf | RateNode | str) -> str:
    return port if isinstance(port, str) else f"{handle}/{port}"


def _settings(change: RateChange) -> list[str]:
    words = []
    if change.tx_share_bps is not None:
        words.append(f"tx_share {change.tx_share_bps}bit")
    if change.tx_max_bps is not None:
        words.append(f"tx_max {change.tx_max_bps}bit")
    if change.tx_priority is not None:
        words.append(f"tx_priority {change.tx_priority}")
    if change.tx_weight is not None:
        words.append(f"tx_weight {change.tx_weight}")
    if change.parent is not None:
        words.append(f"parent {change.parent}" if change.parent else "noparent")
    return words
