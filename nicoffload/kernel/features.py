"""What a network device's driver may turn on and off: tc offload, ntuple filters, forwarding offload."""

from __future__ import annotations

import enum
import errno
import struct
from dataclasses import dataclass

from nicoffload.errors import (
    ConflictError,
    NotSupportedError,
    Reason,
    VerificationError,
    from_errno,
    is_unsupported,
)
from nicoffload.kernel.attributes import MalformedError, string
from nicoffload.kernel.ntuple_layout import encode_request, table_of
from nicoffload.kernel.seam import Kernel

_GSTRINGS, _GSSET_INFO, _GFEATURES, _SFEATURES = 0x1B, 0x37, 0x3A, 0x3B
_COUNT = 0x2E  # ETHTOOL_GRXCLSRLCNT
_SET_OF_FEATURES = 4
_STRING_BYTES = 32
_MAX_FEATURES = 4096
_INFO = struct.Struct("=IIQI")
_STRINGS = struct.Struct("=III")
_HEAD = struct.Struct("=II")
_GET_BLOCK = struct.Struct("=IIII")
"""Available, requested, active, never changed: a bit a feature."""
_SET_BLOCK = struct.Struct("=II")
"""Valid, requested."""


class FeatureName(enum.Enum):
    """Features that decide what can be offloaded, by the kernel's names."""

    HW_TC_OFFLOAD = "hw-tc-offload"
    NTUPLE = "rx-ntuple-filter"
    L2_FWD_OFFLOAD = "l2-fwd-offload"


@dataclass(frozen=True, slots=True, kw_only=True)
class Feature:
    """State of one feature.

    Args:
        name: The kernel's name.
        active: Whether it is on.
        requested: Whether somebody wants it on; it may still be off, for want of another.
        fixed: Whether nobody can change it.
    """

    name: str
    active: bool
    requested: bool
    fixed: bool


def read_features(kernel: Kernel, ifname: str) -> tuple[Feature, ...]:
    """Return every feature that the kernel knows, in its order.

    Raises:
        DeviceGoneError: There is no such device.
        InvalidRequestError: It is no name of a device.
        NicOffloadError: The kernel refuses for another reason.
    """
    names = _names(kernel, ifname)
    if not names:
        return ()
    blocks = (len(names) + 31) // 32
    answer = _ioctl(kernel, ifname, _HEAD.pack(_GFEATURES, blocks) + bytes(blocks * _GET_BLOCK.size))
    if _HEAD.unpack_from(answer)[1] < blocks:
        raise MalformedError("the kernel tells the state of fewer features than it names", device=ifname)
    words = [_GET_BLOCK.unpack_from(answer, _HEAD.size + place * _GET_BLOCK.size) for place in range(blocks)]
    found = []
    for place, name in enumerate(names):
        available, requested, active, never = (bool(word >> place % 32 & 1) for word in words[place // 32])
        if name:
            found.append(Feature(name=name, active=active, requested=requested, fixed=never or not available))
    return tuple(found)


def read_feature(kernel: Kernel, ifname: str, name: FeatureName) -> Feature:
    """Return one feature.

    Raises:
        NotSupportedError: The kernel does not know it.
        NicOffloadError: See `read_features`.
    """
    for one in read_features(kernel, ifname):
        if one.name == name.value:
            return one
    raise _unsupported(ifname, name, "this kernel does not know the feature")


def set_feature(
    kernel: Kernel, ifname: str, name: FeatureName, *, on: bool, with_rules: bool = False
) -> None:
    """Turn one feature on or off, and read it back: the kernel notes a wish that the driver does not fulfil as done.

    Equivalent to: ``ethtool -K NIC NAME on|off``

    Args:
        kernel: The kernel.
        ifname: Name of the network device.
        name: Which feature.
        on: Whether it is to be on.
        with_rules: Turn `FeatureName.NTUPLE` off though rules are there. igb, ixgbe, i40e, ice and SFC delete all of
            them then, of whatever owner.

    Raises:
        ConflictError: The feature holds rules, and they are not to go.
        NotSupportedError: The feature is fixed to the other state, or the kernel does not know it.
        VerificationError: It was noted, and the driver did not follow.
        NicOffloadError: See `read_features`.
    """
    before = read_feature(kernel, ifname, name)
    if before.active == before.requested == on:
        return
    if before.fixed:
        if before.active == on:
            return
        raise _unsupported(ifname, name, f"it is fixed {_word(on=before.active)} on this device")
    if name is FeatureName.NTUPLE and not on and not with_rules and (count := _rules(kernel, ifname)):
        raise ConflictError(
            f"{count} ethtool rules are there, which some drivers delete with {name.value}",
            existing=f"{count} rules",
            path=f"/{name.value}",
            device=ifname,
            hint="delete the rules first, or say that they may go",
        )
    names = _names(kernel, ifname)
    place = names.index(name.value)
    blocks = bytearray(((len(names) + 31) // 32) * _SET_BLOCK.size)
    bit = 1 << place % 32
    _SET_BLOCK.pack_into(blocks, place // 32 * _SET_BLOCK.size, bit, bit if on else 0)
    _ioctl(kernel, ifname, _HEAD.pack(_SFEATURES, len(blocks) // _SET_BLOCK.size) + bytes(blocks))
    if read_feature(kernel, ifname, name).active != on:
        raise VerificationError(
            f"{name.value} did not change",
            expected=_word(on=on),
            actual=_word(on=not on),
            path=f"/{name.value}",
            device=ifname,
            hint="rules in hardware hold it on, and another feature that is off may hold it off: see the kernel's log",
        )


def feature_command(ifname: str, name: FeatureName, *, on: bool) -> str:
    """Return the ethtool command that does the same."""
    alias = "ntuple" if name is FeatureName.NTUPLE else name.value
    return f"ethtool -K {ifname} {alias} {_word(on=on)}"


def _rules(kernel: Kernel, ifname: str) -> int:
    """Return how many rules the receive classifier has; 0 where there is none, or it does not say."""
    try:
        return table_of(kernel.ethtool(ifname, encode_request(_COUNT)))[1]
    except OSError as cause:
        if is_unsupported(cause.errno or 0) or cause.errno == errno.EINVAL:
            return 0
        raise from_errno(
            cause.errno or errno.EIO, "counting the rules", capability="features", device=ifname
        ) from cause


def _names(kernel: Kernel, ifname: str) -> list[str]:
    """Return the kernel's names of its features, by the place of their bit; empty where a place is free."""
    answer = _ioctl(kernel, ifname, _INFO.pack(_GSSET_INFO, 0, 1 << _SET_OF_FEATURES, 0))
    _, _, mask, count = _INFO.unpack(answer)
    if not mask:
        return []
    if count > _MAX_FEATURES:
        raise MalformedError(f"the kernel claims to have {count} features", device=ifname)
    request = _STRINGS.pack(_GSTRINGS, _SET_OF_FEATURES, count) + bytes(count * _STRING_BYTES)
    answer = _ioctl(kernel, ifname, request)[_STRINGS.size :]
    return [string(answer[start : start + _STRING_BYTES]) for start in range(0, len(answer), _STRING_BYTES)]


def _ioctl(kernel: Kernel, ifname: str, request: bytes) -> bytes:
    try:
        return kernel.ethtool(ifname, request)
    except OSError as cause:
        number = cause.errno or errno.EIO
        raise from_errno(number, "features of the device", capability="features", device=ifname) from cause


def _unsupported(ifname: str, name: FeatureName, why: str) -> NotSupportedError:
    reason = Reason(code="feature.fixed", path=f"/{name.value}", message=why, errno="EOPNOTSUPP")
    return NotSupportedError(
        f"{name.value} can't be changed", capability=f"features.{name.value}", reasons=[reason], device=ifname
    )


def _word(*, on: bool) -> str:
    return "on" if on else "off"
