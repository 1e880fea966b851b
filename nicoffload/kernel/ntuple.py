"""The receive classifier of a NIC: rules of `ethtool -N`, through the ioctl that is their only way in."""

from __future__ import annotations

import dataclasses
import errno
import struct
from collections.abc import Sequence
from dataclasses import dataclass

from nicoffload.errors import (
    DeviceBusyError,
    DeviceGoneError,
    InvalidRequestError,
    NicOffloadError,
    NotFoundError,
    ResourceExhaustedError,
    VerificationError,
    from_errno,
)
from nicoffload.kernel.attributes import MalformedError
from nicoffload.kernel.ntuple_layout import (
    LOCATION_ANY,
    RXNFC_BYTES,
    FlowType,
    NtupleFate,
    NtupleRule,
    NtupleState,
    decode_rule,
    encode_request,
    encode_rule,
    location_of,
    table_of,
)
from nicoffload.kernel.ntuple_rules import add_command, delete_command, flow_type, lower_rule, raise_rule
from nicoffload.kernel.seam import Kernel

__all__ = [
    "FlowType",
    "NtupleFate",
    "NtupleRule",
    "NtupleState",
    "NtupleTable",
    "NtupleTableInfo",
    "add_command",
    "delete_command",
    "flow_type",
    "lower_rule",
    "raise_rule",
]

_COUNT = 0x2E
_GET = 0x2F
_LIST = 0x30
_DELETE = 0x31
_INSERT = 0x32
_DRIVER_CHOOSES = 0x8000_0000  # RX_CLS_LOC_SPECIAL
_CAPABILITY = "ntuple"
_MAX_RULES = 1 << 20
_LIST_ATTEMPTS = 16
_LOCATIONS_START = RXNFC_BYTES - 4  # rule_locs begins before the structure's padding


@dataclass(frozen=True, slots=True, kw_only=True)
class NtupleTableInfo:
    """The table as a whole.

    Args:
        rules: Rules in it, of every owner.
        size: Slots; None where the driver does not say.
        driver_chooses: Whether the driver chooses the slot of a rule, and takes no other.
    """

    rules: int
    size: int | None
    driver_chooses: bool


class NtupleTable:
    """The rules of one network device.

    Args:
        kernel: The kernel.
        ifname: Name of the network device.
        device: Named in errors; the network device's name where empty.
        ifindex: Its number, by which it is checked around each ioctl that it still has the name; None trusts the name.
    """

    def __init__(self, kernel: Kernel, ifname: str, *, device: str = "", ifindex: int | None = None) -> None:
        self._kernel = kernel
        self._ifname = ifname
        self._ifindex = ifindex
        self._device = device or ifname

    def _ask(self, request: bytes) -> bytes:
        """Run the ioctl, which knows devices by name alone, on the device that is meant, or not at all.

        Raises:
            DeviceGoneError: The name is another device's by now. Where that shows only behind the ioctl it is
                `uncertain`: nobody knows which of the two did what was asked.
        """
        self._check_name()
        answer = self._kernel.ethtool(self._ifname, request)
        try:
            self._check_name()
        except DeviceGoneError as error:
            error.uncertain = True
            raise
        return answer

    def _check_name(self) -> None:
        if self._ifindex is None:
            return
        try:
            found = self._kernel.read_sysfs(f"class/net/{self._ifname}/ifindex").strip()
        except OSError as cause:
            raise self._error(cause, f"looking for {self._ifname}") from cause
        if found != str(self._ifindex).encode():
            raise DeviceGoneError(
                f"{self._ifname} is the name of network device {found.decode('ascii', 'replace')} by now, "
                f"not of {self._ifindex}",
                device=self._device,
                hint="open the NIC anew",
            )

    def info(self) -> NtupleTableInfo:
        """Return the number of rules, and the size of the table.

        Raises:
            NicOffloadError: `NotSupportedError`: the driver has no such table, or it is turned off.
        """
        info, _ = self._listed()
        return info

    def locations(self) -> Sequence[int]:
        """Return the slots in use.

        Raises:
            NicOffloadError: See `info`.
        """
        _, locations = self._listed()
        return locations

    def rules(self) -> Sequence[NtupleState]:
        """Return every rule, by slot. One that goes while they are read is left out.

        Raises:
            NicOffloadError: See `info`.
        """
        found = []
        for location in self.locations():
            try:
                found.append(self.get(location))
            except NotFoundError:
                continue
        return found

    def get(self, location: int) -> NtupleState:
        """Return the rule in a slot.

        Raises:
            NicOffloadError: `NotFoundError`: the slot is empty.
        """
        request = encode_request(_GET, location=_slot(location))
        try:
            return decode_rule(self._ask(request))
        except OSError as cause:
            raise self._slot_error(cause, f"reading the rule in slot {location}", location) from cause

    def insert(self, rule: NtupleRule, *, driver_chooses: bool = False) -> int:
        """Install a rule and return its slot.

        A rule without a slot goes where the driver puts it, or, as `ethtool` does it where the driver leaves that to
        the caller, into the last free slot. A driver may replace the rule that a slot already holds.

        Args:
            rule: The rule.
            driver_chooses: The caller knows that the driver chooses, so that nobody need read the table for it.

        Raises:
            NicOffloadError: As the driver refused; `ResourceExhaustedError`: no slot is free;
                `InvalidRequestError`: the driver tells no size to choose a slot by, so the rule must name one;
                `VerificationError`, which is `uncertain`: the rule is in the table, and its slot can't be told.
        """
        if rule.location is None and not driver_chooses and (slot := self._free_slot()) is not None:
            rule = dataclasses.replace(rule, location=slot)
        try:
            answer = self._ask(encode_rule(_INSERT, rule))
        except OSError as cause:
            raise self._error(cause, "installing a rule") from cause
        found = location_of(answer)
        return found if found < _DRIVER_CHOOSES else self._slot_of(rule, found)

    def _slot_of(self, rule: NtupleRule, told: int) -> int:
        """Return where a rule is that the driver took without a word on its slot: where one like it is."""
        wanted = dataclasses.replace(rule, location=None)
        lost = VerificationError(
            "the driver took a rule and did not say where it is",
            expected="a slot",
            actual=f"{told:#x}",
            device=self._device,
            hint="read the rules, and delete it by its slot",
        )
        lost.uncertain = True
        try:
            found = [
                state.location
                for state in self.rules()
                if state.rule is not None and dataclasses.replace(state.rule, location=None) == wanted
            ]
        except NicOffloadError as cause:
            raise lost from cause
        if len(found) != 1:
            raise lost
        return found[0]

    def delete(self, location: int) -> None:
        """Delete the rule in a slot.

        Raises:
            NicOffloadError: `NotFoundError`: the slot is empty, by whichever errno the driver says that.
        """
        try:
            self._ask(encode_request(_DELETE, location=_slot(location)))
        except OSError as cause:
            raise self._slot_error(cause, f"deleting the rule in slot {location}", location) from cause

    def _free_slot(self) -> int | None:
        """Return the last free slot; None where the driver chooses."""
        info, locations = self._listed()
        if info.driver_chooses:
            return None
        if info.size is None:
            raise InvalidRequestError(
                "the driver tells neither a free slot nor how many there are",
                path="/location",
                device=self._device,
                hint="name a slot",
            )
        used = set(locations)
        for slot in range(info.size - 1, -1, -1):
            if slot not in used:
                return slot
        raise ResourceExhaustedError(
            "every slot of the rule table is in use", limit=info.size, in_use=len(used), device=self._device
        )

    def _listed(self) -> tuple[NtupleTableInfo, Sequence[int]]:
        """Return the table and its slots in use. A list that grows between the two calls is read anew."""
        for _ in range(_LIST_ATTEMPTS):
            flags, count = self._count()
            request = encode_request(_LIST, count=count)[:_LOCATIONS_START] + bytes(4 * count + 4)
            try:
                answer = self._ask(request)
            except OSError as cause:
                if cause.errno == errno.EMSGSIZE:
                    continue
                raise self._error(cause, "listing the rules") from cause
            size, found = table_of(answer)
            if found > count:
                raise MalformedError(f"{found} rules in a list of {count}", device=self._device)
            locations = struct.unpack_from(f"={found}I", answer, _LOCATIONS_START)
            size = (size or flags) & ~_DRIVER_CHOOSES & 0xFFFF_FFFF
            info = NtupleTableInfo(
                rules=found, size=size or None, driver_chooses=bool(flags & _DRIVER_CHOOSES)
            )
            return info, sorted(locations)
        raise DeviceBusyError("the list of rules grew again and again", device=self._device)

    def _count(self) -> tuple[int, int]:
        try:
            answer = self._ask(encode_request(_COUNT))
        except OSError as cause:
            raise self._error(cause, "counting the rules") from cause
        flags, count = table_of(answer)
        if count > _MAX_RULES:
            raise MalformedError(f"the driver claims {count} rules", device=self._device)
        return flags, count

    def _slot_error(self, cause: OSError, doing: str, location: int) -> NicOffloadError:
        """Return the error for a slot: drivers say EINVAL as well as ENOENT where it is empty."""
        if cause.errno == errno.EINVAL:
            try:
                empty = location not in self.locations()
            except NicOffloadError:
                empty = False
            if empty:
                return NotFoundError(
                    f"slot {location} holds no rule", device=self._device, errno=cause.errno, path="/location"
                )
        return self._error(cause, doing)

    def _error(self, cause: OSError, doing: str) -> NicOffloadError:
        return from_errno(cause.errno or errno.EIO, doing, capability=_CAPABILITY, device=self._device)


def _slot(location: int) -> int:
    if not 0 <= location < LOCATION_ANY - 2:
        raise InvalidRequestError(f"{location} is no slot", path="/location")
    return location
