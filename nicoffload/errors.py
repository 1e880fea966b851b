"""The one error family of the SDK, and the one place where an errno becomes one of its members.

Every error says what went wrong, where in the request (`path`, a JSON pointer), on which device, why, and what would
help. A cause is never swallowed: whoever translates an exception raises the translation ``from`` it.
"""

from __future__ import annotations

import errno as _errno
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, TypedDict, Unpack


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """One reason why a request was refused.

    Args:
        code: Stable, machine-readable name of the reason, such as ``mask.partial``.
        path: JSON pointer to the part of the request it is about, such as ``/match/ipv4_src``; empty for the whole.
        message: What is wrong, for people.
        accepted: What would be accepted in its place; empty where nothing would.
        source: Where the fact comes from: file and function of a driver, or a paper.
        errno: Name of the errno that the driver would answer; empty where it would take the rule and do another thing.
    """

    code: str
    path: str
    message: str
    accepted: str = ""
    source: str = ""
    errno: str = ""

    def __str__(self) -> str:
        where = f"{self.path}: " if self.path else ""
        cure = f" (accepted: {self.accepted})" if self.accepted else ""
        return f"{where}{self.message}{cure}"


class Circumstances(TypedDict, total=False):
    """What every error of the family takes beside its message; `NicOffloadError` explains each."""

    path: str
    device: str
    hint: str
    errno: int | None
    kernel_message: str


class NicOffloadError(Exception):
    """Base of every error that this package raises on purpose.

    Args:
        message: What went wrong.
        path: JSON pointer or field name that it is about.
        device: The NIC, as the user named it, or its PCI address.
        hint: What would help.
        errno: The kernel's error number, where there was one.
        kernel_message: The kernel's own text (extack), where there was one.
    """

    code: ClassVar[str] = "error"
    exit_code: ClassVar[int] = 1
    retryable: ClassVar[bool] = False

    def __init__(
        self,
        message: str,
        *,
        path: str = "",
        device: str = "",
        hint: str = "",
        errno: int | None = None,
        kernel_message: str = "",
    ) -> None:
        super().__init__(message)
        self.message = message
        self.path = path
        self.device = device
        self.hint = hint
        self.errno = errno
        self.kernel_message = kernel_message
        # Which item of a request for many it is about; who collects the errors sets it. Apart from the message, which
        # stays the same whatever else was asked for with it.
        self.subject = ""
        # Whether what was asked for may have been done all the same: the kernel's answer was lost, and looking did not
        # tell. Whoever undoes a request has to undo this part too.
        self.uncertain = False

    def __str__(self) -> str:
        device = f"{self.device}: " if self.device else ""
        where = f"{self.path}: " if self.path else ""
        kernel = f" [kernel: {self.kernel_message}]" if self.kernel_message else ""
        return f"{device}{where}{self.subject and f'{self.subject}: '}{self.message}{kernel}"


class InvalidRequestError(NicOffloadError, ValueError):
    """The request itself is wrong, on any NIC (EINVAL)."""

    code = "invalid_request"
    exit_code = 2


class PolicyError(InvalidRequestError):
    """A policy document breaks its schema or contradicts itself."""

    code = "policy"


class CaptureError(InvalidRequestError):
    """A file is not a packet capture that can be read."""

    code = "capture"


class ProfileError(InvalidRequestError):
    """A NIC profile breaks its schema or contradicts itself."""

    code = "profile"


class NotSupportedError(NicOffloadError):
    """A sound request that this NIC, in this state, can't carry out (EOPNOTSUPP). Never bare.

    Args:
        message: What was asked for.
        capability: Name of the missing capability, such as ``flow_filters`` or ``rates.min_tx``.
        reasons: Every reason, not only the first.
    """

    code = "not_supported"
    exit_code = 3

    def __init__(
        self,
        message: str,
        *,
        capability: str,
        reasons: Sequence[Reason],
        **circumstances: Unpack[Circumstances],
    ) -> None:
        if not capability or not reasons:
            raise TypeError("NotSupportedError needs a capability and at least one reason")
        super().__init__(message, **circumstances)
        self.capability = capability
        self.reasons = tuple(reasons)


class NotFoundError(NicOffloadError, LookupError):
    """The device, VF, rule, profile or lease does not exist (ENOENT)."""

    code = "not_found"
    exit_code = 4


class ConflictError(NicOffloadError):
    """Something else already holds what was asked for (EEXIST).

    Args:
        message: What collides.
        existing: What is there already: a rule id, an owner's name.
    """

    code = "conflict"
    exit_code = 5

    def __init__(
        self,
        message: str,
        *,
        existing: str = "",
        **circumstances: Unpack[Circumstances],
    ) -> None:
        super().__init__(message, **circumstances)
        self.existing = existing


class ResourceExhaustedError(NicOffloadError):
    """A table or pool of the NIC is full (ENOSPC, ENOMEM, or EBUSY of a hash table).

    Args:
        message: What is full.
        limit: How many it holds; None where unknown.
        in_use: How many are in use; None where unknown.
    """

    code = "resource_exhausted"
    exit_code = 6

    def __init__(
        self,
        message: str,
        *,
        limit: int | None = None,
        in_use: int | None = None,
        **circumstances: Unpack[Circumstances],
    ) -> None:
        super().__init__(message, **circumstances)
        self.limit = limit
        self.in_use = in_use


class DeviceBusyError(NicOffloadError):
    """The device is resetting or held by somebody else; the same call may succeed later (EBUSY, EAGAIN)."""

    code = "device_busy"
    exit_code = 7
    retryable = True


class DeviceGoneError(NicOffloadError):
    """The device was removed or no longer answers (ENODEV, EIO)."""

    code = "device_gone"
    exit_code = 8


class AccessDeniedError(NicOffloadError, PermissionError):
    """The process may not do this (EPERM, EACCES)."""

    code = "access_denied"
    exit_code = 9


class VerificationError(NicOffloadError):
    """What was read back differs from what was asked for, although the call succeeded.

    Args:
        message: What differs.
        expected: What was asked for.
        actual: What was read.
    """

    code = "verification"
    exit_code = 10
    retryable = True

    def __init__(
        self,
        message: str,
        *,
        expected: str,
        actual: str,
        **circumstances: Unpack[Circumstances],
    ) -> None:
        super().__init__(message, **circumstances)
        self.expected = expected
        self.actual = actual


class RollbackError(NicOffloadError):
    """A change failed, and undoing it failed too; `residue` lists what is left behind."""

    code = "rollback"
    exit_code = 11

    def __init__(
        self, message: str, *, residue: Sequence[str], **circumstances: Unpack[Circumstances]
    ) -> None:
        super().__init__(message, **circumstances)
        self.residue = tuple(residue)


class JournalError(NicOffloadError):
    """The journal can't be read or written; what could be saved of it was kept beside it."""

    code = "journal"
    exit_code = 12


class KernelError(NicOffloadError, OSError):
    """The kernel answered with an errno that has no better name here."""

    code = "kernel"
    exit_code = 13


class PluginError(NicOffloadError):
    """A plugin could not be loaded or breaks its contract."""

    code = "plugin"
    exit_code = 14


class PluginLoadError(PluginError):
    """A plugin failed to import, has a bad hook signature or another API version."""

    code = "plugin_load"


class PluginContractError(PluginError):
    """A plugin returned something that the driver contract does not allow."""

    code = "plugin_contract"


_FAMILY: dict[int, type[NicOffloadError]] = {
    _errno.EINVAL: InvalidRequestError,
    _errno.ERANGE: InvalidRequestError,
    _errno.EADDRNOTAVAIL: InvalidRequestError,
    _errno.ENOENT: NotFoundError,
    _errno.EEXIST: ConflictError,
    _errno.ENOSPC: ResourceExhaustedError,
    _errno.ENOMEM: ResourceExhaustedError,
    _errno.EBUSY: DeviceBusyError,
    _errno.EAGAIN: DeviceBusyError,
    _errno.ENODEV: DeviceGoneError,
    _errno.EIO: DeviceGoneError,
    _errno.EPERM: AccessDeniedError,
    _errno.EACCES: AccessDeniedError,
}

ENOTSUPP = 524
"""The kernel's internal ENOTSUPP, which mlx5 lets out although user space has no name for it."""

_UNSUPPORTED = frozenset({_errno.EOPNOTSUPP, _errno.EPROTONOSUPPORT, _errno.ENOSYS, ENOTSUPP})


def errno_number(name: str) -> int:
    """Return the number of a symbolic errno, ``ENOTSUPP`` included.

    Raises:
        InvalidRequestError: No errno has that name.
    """
    if name == "ENOTSUPP":
        return ENOTSUPP
    number = getattr(_errno, name, None)
    if not isinstance(number, int):
        raise InvalidRequestError(f"no errno is called {name!r}")
    return number


def is_unsupported(number: int) -> bool:
    """Return whether an errno is one of those that say "not supported" and nothing else."""
    return number in _UNSUPPORTED


def errno_name(number: int) -> str:
    """Return the symbolic name of an errno, or the number as text where it has none."""
    # Linux has two names for 95, and Python's table may give the one that no driver's source uses.
    names = {ENOTSUPP: "ENOTSUPP", _errno.EOPNOTSUPP: "EOPNOTSUPP"}
    return names.get(number) or _errno.errorcode.get(number, str(number))


def from_errno(
    number: int,
    message: str,
    *,
    capability: str,
    device: str = "",
    path: str = "",
    kernel_message: str = "",
    meaning: type[NicOffloadError] | None = None,
    hint: str = "",
) -> NicOffloadError:
    """Return the member of the family that an errno means; the caller raises it ``from`` the cause.

    Args:
        number: A positive errno.
        message: What was being done.
        capability: What the operation belongs to, for `NotSupportedError`.
        device: The NIC.
        path: The part of the request that it is about.
        kernel_message: The kernel's own text.
        meaning: What the driver means by this errno, where a profile says that it is not the usual
            meaning (an SFC filter table says EBUSY when it is full). Must take only the common arguments.
        hint: What would help.
    """
    if is_unsupported(number) and meaning is None:
        reason = Reason(
            code="kernel.unsupported",
            path=path,
            message=kernel_message or f"the kernel answered {errno_name(number)}",
            errno=errno_name(number),
        )
        return NotSupportedError(
            message,
            capability=capability,
            reasons=[reason],
            device=device,
            path=path,
            errno=number,
            kernel_message=kernel_message,
            hint=hint,
        )
    kind = meaning or _FAMILY.get(number, KernelError)
    text = f"{message} ({errno_name(number)})"
    return kind(text, device=device, path=path, errno=number, kernel_message=kernel_message, hint=hint)
