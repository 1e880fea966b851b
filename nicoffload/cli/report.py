"""Errors and reasons as lines for people and as JSON values."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

from nicoffload.errors import (
    ConflictError,
    NicOffloadError,
    NotSupportedError,
    Reason,
    ResourceExhaustedError,
    RollbackError,
    VerificationError,
)


def error_lines(fault: NicOffloadError) -> Iterator[str]:
    """Yield the lines that tell a person what went wrong, where, and what would help."""
    yield f"error: {_headline(fault)}"
    text, column = getattr(fault, "text", None), getattr(fault, "column", None)
    if isinstance(text, str) and isinstance(column, int) and text.isprintable():
        yield f"  {text}"
        yield f"  {'^':>{column}}"
    if isinstance(fault, NotSupportedError):
        yield from reasons_lines(fault.reasons)
    if isinstance(fault, RollbackError):
        yield from (f"  left behind: {residue}" for residue in fault.residue)
    if isinstance(fault, ConflictError) and fault.existing:
        yield f"  already there: {fault.existing}"
    if isinstance(fault, VerificationError):
        yield f"  asked for: {fault.expected}"
        yield f"  read back: {fault.actual}"
    if isinstance(fault, ResourceExhaustedError) and fault.limit is not None:
        in_use = "" if fault.in_use is None else f"{fault.in_use} in use of "
        yield f"  {in_use}{fault.limit}"
    if fault.hint:
        yield f"  hint: {fault.hint}"


def reasons_lines(reasons: Sequence[Reason]) -> Iterator[str]:
    """Yield each reason: its place and message, then what would be accepted, the driver's answer and the source."""
    said = ""
    for reason in reasons:
        where = f"{reason.path}: " if reason.path else ""
        yield f"  - {where}{reason.message}"
        if reason.accepted:
            yield f"      accepted: {reason.accepted}"
        if reason.errno:
            yield f"      the driver would answer: {reason.errno}"
        if reason.source:
            yield f"      source: {'as above' if reason.source == said else reason.source}"
        said = reason.source


def _headline(fault: NicOffloadError) -> str:
    """Return the error's text, without what the lines of the reasons say again."""
    text = str(fault)
    if not isinstance(fault, NotSupportedError):
        return text
    kernel = f" [kernel: {fault.kernel_message}]" if fault.kernel_message else ""
    before = text.removesuffix(kernel).removesuffix(fault.message)
    # Who raises it may end the message with the reasons, for those who see no more than the message.
    message = min((fault.message.partition(f": {reason}")[0] for reason in fault.reasons), key=len)
    known = any(fault.kernel_message in reason.message for reason in fault.reasons)
    return f"{before}{message}{'' if known else kernel}"


def reason_to_json(reason: Reason) -> dict[str, Any]:
    """Return a reason as a JSON value."""
    return dataclasses.asdict(reason)


def error_to_json(fault: NicOffloadError) -> dict[str, Any]:
    """Return an error as a JSON value, with what its class adds."""
    document: dict[str, Any] = {
        "code": fault.code,
        "exit_code": fault.exit_code,
        "message": fault.message,
        "subject": fault.subject,
        "path": fault.path,
        "device": fault.device,
        "hint": fault.hint,
        "errno": fault.errno,
        "kernel_message": fault.kernel_message,
        "retryable": fault.retryable,
    }
    if isinstance(fault, NotSupportedError):
        document["capability"] = fault.capability
        document["reasons"] = [reason_to_json(reason) for reason in fault.reasons]
    for name in ("existing", "limit", "in_use", "expected", "actual", "column"):
        if hasattr(fault, name):
            document[name] = getattr(fault, name)
    if isinstance(fault, RollbackError):
        document["residue"] = list(fault.residue)
    return document
