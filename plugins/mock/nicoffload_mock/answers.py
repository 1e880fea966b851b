"""The emulated kernel's answers as the errors of the SDK, as any plugin translates its kernel's."""

from __future__ import annotations

from collections.abc import Callable

from nicoffload.errors import NicOffloadError, NotSupportedError, Reason, errno_number, from_errno
from nicoffload.profiles.conditions import CONDITIONS
from nicoffload.testing.emulator import assumptions
from nicoffload.testing.emulator.answer import Refused
from nicoffload.testing.emulator.device import Device


def translate(answer: Refused, message: str, *, capability: str, device: str) -> NicOffloadError:
    """Return the error that an answer means; the caller raises it ``from`` the answer."""
    number = errno_number(answer.errno)
    known = CONDITIONS.get(answer.condition)
    if known is not None and known.kind is NotSupportedError:
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
        meaning=known.kind if known else None,
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
