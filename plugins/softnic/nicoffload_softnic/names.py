"""How a software NIC and its devices are called."""

from __future__ import annotations

import re

from nicoffload.errors import InvalidRequestError

PREFIX = "soft:"
"""Of the name that `open_nic` takes."""
NAMESPACE_PREFIX = "nicsoft-"
_NAME = re.compile(r"[a-z0-9]{1,8}")


def checked(name: str) -> str:
    """Return a NIC's name, without prefix.

    Raises:
        InvalidRequestError: It is none.
    """
    if not _NAME.fullmatch(name):
        raise InvalidRequestError(
            f"{name!r} is no name of a software NIC", path="/name", hint="1 to 8 of a-z and 0-9, such as lab0"
        )
    return name


def namespace_of(name: str) -> str:
    """Return the name of a NIC's own network namespace."""
    return NAMESPACE_PREFIX + name


def namespace_path(name: str) -> str:
    """Return the file of a NIC's own network namespace."""
    return f"/run/netns/{namespace_of(name)}"


def wire(name: str) -> str:
    """Return the device at the other end of the uplink."""
    return f"{name}w"


def pf(name: str) -> str:
    """Return the PF's device."""
    return f"{name}pf"


def vf(name: str, index: int) -> str:
    """Return a VF's device."""
    return f"{name}vf{index}"


def representor(name: str, index: int) -> str:
    """Return the device of a VF's representor."""
    return f"{name}r{index}"
