"""What is written to sysfs as Linux reads it: numbers and truth values."""

from __future__ import annotations

import errno
import re
from collections.abc import Mapping

from nicoffload.testing.fake_kernel.errnos import refusal

_NUMBER = re.compile(r"\+?(?:0[xX](?P<hex>[0-9a-fA-F]+)|(?P<dec>[0-9]+))\n?")
_U16 = 1 << 16
_BOOLS: Mapping[str, bool] = {
    **dict.fromkeys(("1", "y", "Y", "t", "T", "on", "ON", "On"), True),
    **dict.fromkeys(("0", "n", "N", "f", "F", "of", "OF", "Of"), False),
}


def pci_number(data: bytes) -> int:
    """Return a number of VFs: whatever ``kstrtou16`` does not read is EINVAL (drivers/pci/iov.c)."""
    try:
        number = simulated_number(data)
    except OSError as cause:
        raise refusal(errno.EINVAL) from cause
    if number >= _U16:
        raise refusal(errno.EINVAL)
    return number


def simulated_number(data: bytes) -> int:
    """Return a number as ``kstrtouint`` reads it."""
    match = _NUMBER.fullmatch(data.decode("ascii", "replace"))
    if match is None:
        raise refusal(errno.EINVAL)
    if match["hex"]:
        return int(match["hex"], 16)
    digits = match["dec"]
    try:
        number = int(digits, 8 if digits.startswith("0") else 10)
    except ValueError as cause:
        raise refusal(errno.EINVAL) from cause
    if number >= 1 << 32:
        raise refusal(errno.ERANGE)
    return number


def truth(data: bytes) -> bool:
    """Return a truth value as ``kstrtobool`` reads it: by its first letter, of ``o`` by its second too."""
    text = data.decode("ascii", "replace")
    found = _BOOLS.get(text[:2] if text[:1] in {"o", "O"} else text[:1])
    if found is None:
        raise refusal(errno.EINVAL)
    return found
