"""What an errno of a NIC's driver means: the profile says which conditions answer it, the state which of them holds.

Drivers say one thing with many errnos and many things with one (EBUSY is "full" to one and "resetting" to another,
EINVAL is everything to ixgbe), so the number alone decides nothing. An emulator goes the other way, from condition to
errno; both meet in `nicoffload.profiles.conditions`.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass

from nicoffload.errors import (
    NicOffloadError,
    NotSupportedError,
    Reason,
    ResourceExhaustedError,
    errno_name,
    errno_number,
    from_errno,
    is_unsupported,
)
from nicoffload.linux._answers import Answer, answers
from nicoffload.linux.situation import Operation, Situation, holds
from nicoffload.profiles.conditions import CONDITIONS, Kind
from nicoffload.profiles.types import NicProfile

__all__ = ["Certainty", "Meaning", "Operation", "Situation", "explain", "meanings"]


class Certainty(enum.IntEnum):
    """How sure it is that a condition is the one that the driver meant, surest first."""

    HOLDS = 0
    """It holds, and the profile says that the driver answers so."""
    HOLDS_UNSTATED = 1
    """It holds; no source states the driver's answer."""
    POSSIBLE = 2
    """The profile says that the driver answers so; whether it holds is not known from here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Meaning:
    """One thing that an errno can mean.

    Args:
        condition: As in the profile, such as ``full``.
        kind: The class of error that it is.
        certainty: How sure it is.
        text: What is so, in words.
        cure: What would help; empty where nothing does.
        source: Where the driver does that.
    """

    condition: str
    kind: Kind
    certainty: Certainty
    text: str
    cure: str = ""
    source: str = ""


def meanings(
    profile: NicProfile, operation: Operation, errno: int, situation: Situation
) -> Sequence[Meaning]:
    """Return what an errno can mean, likeliest first; empty where the profile knows nothing of it.

    Args:
        profile: The NIC's.
        operation: What was asked.
        errno: A positive errno.
        situation: What is known of the request and the NIC.
    """
    name = errno_name(errno)
    found = []
    for answer in answers(profile, operation, situation):
        certainty = _certainty(answer, name, holds(answer.condition, profile, situation))
        if certainty is not None:
            condition = CONDITIONS[answer.condition]
            found.append(
                Meaning(
                    condition=answer.condition,
                    kind=condition.kind,
                    certainty=certainty,
                    text=condition.text,
                    cure=condition.cure,
                    source=answer.source,
                )
            )
    return sorted(found, key=lambda each: each.certainty)


def explain(
    error: NicOffloadError,
    profile: NicProfile,
    operation: Operation,
    situation: Situation,
    *,
    capability: str,
    device: str = "",
) -> NicOffloadError:
    """Return what the kernel's answer means of this driver; the error itself where that is nothing else.

    Args:
        error: As the kernel layer made it, from the errno alone. Becomes the cause of what is returned.
        profile: The NIC's.
        operation: What was asked.
        situation: What is known of the request and the NIC.
        capability: What the operation belongs to.
        device: The NIC.
    """
    if error.errno is None or error.uncertain:
        return error
    found = meanings(profile, operation, error.errno, situation)
    if not found:
        return error
    # Of what holds for certain the first says all; of what is only possible every one is told.
    best = [found[0]] if found[0].certainty is not Certainty.POSSIBLE else found
    if isinstance(error, found[0].kind) and not isinstance(error, NotSupportedError) and error.hint:
        return error
    made = _error(error, best, situation, capability, device or error.device)
    made.__cause__ = error
    return made


def _certainty(answer: Answer, name: str, so: bool | None) -> Certainty | None:  # noqa: FBT001 - private
    if so is False:
        return None
    if answer.errno is None:
        # Nobody says "not supported" and means that something does not exist, or is in the way.
        fits = CONDITIONS[answer.condition].kind is NotSupportedError or not is_unsupported(
            errno_number(name)
        )
        return Certainty.HOLDS_UNSTATED if so and fits else None
    if answer.errno != name:
        return None
    return Certainty.HOLDS if so else Certainty.POSSIBLE


def _error(
    error: NicOffloadError, found: Sequence[Meaning], situation: Situation, capability: str, device: str
) -> NicOffloadError:
    assert error.errno is not None
    kind, path = found[0].kind, error.path or situation.path
    message = error.message.removesuffix(f" ({errno_name(error.errno)})")
    if issubclass(kind, NotSupportedError):
        reasons = [
            Reason(
                code=f"driver.{each.condition}",
                path=path,
                message=each.text,
                accepted="",
                source=each.source,
                errno=errno_name(error.errno),
            )
            for each in found
            if issubclass(each.kind, NotSupportedError)
        ]
        return NotSupportedError(
            message,
            capability=capability,
            reasons=reasons,
            path=path,
            device=device,
            errno=error.errno,
            kernel_message=error.kernel_message,
            hint=error.hint or found[0].cure,
        )
    texts = list(dict.fromkeys(each.text for each in found))
    message = f"{message}: {', or '.join(texts)}"
    made = from_errno(
        error.errno,
        message,
        capability=capability,
        device=device,
        path=path,
        kernel_message=error.kernel_message,
        meaning=kind,
        hint=error.hint or found[0].cure,
    )
    if isinstance(made, ResourceExhaustedError):
        made.limit, made.in_use = situation.rows, situation.in_use
    return made
