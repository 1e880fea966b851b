"""The error family: one root, nothing bare, one place that maps errnos."""

import errno
import inspect

import pytest

from nicoffload import errors
from nicoffload.errors import (
    ConflictError,
    DeviceBusyError,
    InvalidRequestError,
    KernelError,
    NicOffloadError,
    NotFoundError,
    NotSupportedError,
    Reason,
    ResourceExhaustedError,
    from_errno,
)

FAMILY = [
    kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, NicOffloadError)
]


def test_codes_are_unique():
    codes = [kind.code for kind in FAMILY]
    assert len(set(codes)) == len(codes)


def test_exit_codes_separate_the_kinds_that_a_script_can_act_on():
    direct = [kind for kind in FAMILY if kind.__bases__[0] is NicOffloadError]
    assert len({kind.exit_code for kind in direct}) == len(direct)
    assert all(0 < kind.exit_code < 64 for kind in FAMILY)


@pytest.mark.parametrize(
    ("kind", "builtin"),
    [
        (InvalidRequestError, ValueError),
        (NotFoundError, LookupError),
        (errors.AccessDeniedError, PermissionError),
        (KernelError, OSError),
    ],
)
def test_an_error_is_also_the_builtin_that_people_catch(kind, builtin):
    assert issubclass(kind, builtin)


def test_not_supported_is_never_bare():
    with pytest.raises(TypeError):
        NotSupportedError("no", capability="flow", reasons=[])
    with pytest.raises(TypeError):
        NotSupportedError("no", capability="", reasons=[Reason(code="x", path="", message="y")])


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.EINVAL, InvalidRequestError),
        (errno.ERANGE, InvalidRequestError),
        (errno.ENOENT, NotFoundError),
        (errno.EEXIST, ConflictError),
        (errno.ENOSPC, ResourceExhaustedError),
        (errno.EBUSY, DeviceBusyError),
        (errno.EAGAIN, DeviceBusyError),
        (errno.EOPNOTSUPP, NotSupportedError),
        (errno.EPROTONOSUPPORT, NotSupportedError),
        (errors.ENOTSUPP, NotSupportedError),
        (errno.EXDEV, KernelError),
    ],
)
def test_each_errno_has_one_meaning(number, kind):
    error = from_errno(
        number, "adding a rule", capability="flow_filters", device="mock:x", kernel_message="why not"
    )
    assert type(error) is kind
    assert error.errno == number
    assert "mock:x" in str(error)
    assert "why not" in str(error)


def test_a_driver_can_mean_something_else_by_an_errno():
    error = from_errno(
        errno.EBUSY, "adding a rule", capability="flow_filters", meaning=ResourceExhaustedError
    )
    assert type(error) is ResourceExhaustedError


def test_only_what_may_pass_later_is_retryable():
    assert {kind.code for kind in FAMILY if kind.retryable} == {"device_busy", "verification"}


def test_errno_524_has_a_name_although_user_space_has_none():
    assert errors.errno_number(errors.errno_name(524)) == 524


def test_errno_95_has_the_name_that_drivers_use():
    assert errors.errno_name(errno.EOPNOTSUPP) == "EOPNOTSUPP"
