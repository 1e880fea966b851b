"""The emulated kernel's answers as the errors of the SDK, as any plugin translates its kernel's."""

from __future__ import annotations

from collections.abc import Callable

from nicoffload.errors import (
    InvalidRequestError,
    NicOffloadError,
    NotFoundError,
    NotSupportedError,
    Reason,
    ResourceExhaustedError,
    errno_number,
    from_errno,
)
from nicoffload.testing.emulator import assumptions
from nicoffload.testing.emulator.answer import Refused
from nicoffload.testing.emulator.device import Device

_MEANINGS: dict[str, type[NicOffloadError]] = {
    "full": ResourceExhaustedError,
    "hash": ResourceExhaustedError,
    "missing": NotFoundError,
    "too_many": InvalidRequestError,
    "vf_range": NotFoundError,
}
"""What a driver means by an errno, where it uses an unusual one."""

_CAN_NOT = frozenset(
    {"field", "partial_mask", "second_mask", "flow_type", "combination", "action", "vf_target", "required"}
    | {"feature", "eswitch_mode", "mqprio", "empty_rule", "rate", "table", "sriov", "mode", "action_order"}
)
"""Conditions that say "this NIC can't", whatever errno the driver picked for it."""


def translate(answer: Refused, message: str, *, capability: str, device: str) -> NicOffloadError:
    """Return the error that an answer means; the caller raises it ``from`` the answer."""
    number = errno_number(answer.errno)
    if answer.condition in _CAN_NOT:
        reason = Reason(
            code=f"kernel.{answer.condition}", path=answer.path, message=answer.text, errno=answer.errno
        )
        return NotSupportedError(
            message,
            capability=capability,
            reasons=[reason],
            path=answer.path,
            device=device,
            errno=number,
            kernel_message=answer.text,
        )
    return from_errno(
        number,
        message,
        capability=capability,
        device=device,
        path=answer.path,
        kernel_message=answer.text,
        meaning=_MEANINGS.get(answer.condition),
    )


def insist(device: Device, request: Callable[[], None]) -> None:
    """Make a request, and again while the VF is resetting, as a client of such a driver has to.

    Raises:
        Refused: Any other answer, or it was busy for too long.
    """
    until = device.now_ns + assumptions.WAIT_LIMIT_NS
    while True:
        try:
            request()
        except Refused as answer:
            if answer.condition != "busy" or device.now_ns >= until:
                raise
        else:
            return
