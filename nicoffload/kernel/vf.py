"""Virtual functions over rtnetlink: their settings, made and read, and their counters."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from nicoffload.errors import DeviceGoneError, KernelError, NicOffloadError
from nicoffload.kernel.attributes import Buffer, MalformedError, number, parse, u32
from nicoffload.kernel.netlink import NLM_F_ACK, NLM_F_REQUEST, Netlink, encode
from nicoffload.kernel.seam import NETLINK_ROUTE, Kernel
from nicoffload.kernel.vf_layout import (
    VFINFO_LIST,
    VfReport,
    VfRequest,
    VfSetting,
    decode_reports,
    decode_traffic,
    encode_settings,
    set_commands,
)
from nicoffload.model import CounterFacts, TrafficStats

__all__ = ["VfLink", "VfRefusal", "VfReport", "VfRequest", "VfSetting", "set_commands"]

_RTM_NEWLINK = 16
_RTM_GETLINK = 18
_NUM_VF = 21
_EXT_MASK = 29
_WITH_VFS = 1
_WITHOUT_STATS = 8  # with counters, some 250 VFs no longer fit the 64 KiB of an attribute
_MAY_OVERFLOW = 128  # far fewer than ever did not fit
_IFINFO = struct.Struct("=BxHiII")


@dataclass(frozen=True, slots=True, kw_only=True)
class VfRefusal:
    """A setting that was not made.

    Args:
        vf: Index of the VF.
        setting: Which.
        error: Why.
    """

    vf: int
    setting: VfSetting
    error: NicOffloadError


class VfLink:
    """The VFs of one PF, reached through its network device. Of one thread; close it.

    Args:
        kernel: The kernel.
        ifindex: Number of the PF's network device.
        device: Named in errors.

    Raises:
        OSError: No netlink socket can be had.
    """

    def __init__(self, kernel: Kernel, ifindex: int, *, device: str = "") -> None:
        self._netlink = Netlink(kernel, NETLINK_ROUTE, device=device)
        self._link = _IFINFO.pack(0, 0, ifindex, 0, 0)
        self._device = device

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the socket. Repeatable."""
        self._netlink.close()

    def apply(self, requests: Sequence[VfRequest]) -> list[VfRefusal]:
        """Make settings, each by itself, in the order of the requests; one that is refused stops none of the others.

        Returns:
            What was refused; empty where all was made.

        Raises:
            KernelError: The answer is lost; what was made has to be read back.
        """
        items = [
            (request.config.vf, setting, payload)
            for request in requests
            for setting, payload in encode_settings(request)
        ]
        if not items:
            return []
        first = self._netlink.reserve(len(items))
        last = first + len(items) - 1
        data = b"".join(
            encode(
                _RTM_NEWLINK,
                NLM_F_REQUEST | (NLM_F_ACK if first + place == last else 0),
                first + place,
                self._link + payload,
            )
            for place, (_, _, payload) in enumerate(items)
        )
        refusals = self._netlink.batch(data, last).refusals
        return [
            VfRefusal(
                vf=vf,
                setting=setting,
                error=refusals[first + place].error(
                    f"setting {setting.value} of VF {vf}",
                    capability=f"vf.{setting.value}",
                    device=self._device,
                    path=f"/vfs/{vf}/{setting.value}",
                ),
            )
            for place, (vf, setting, _) in enumerate(items)
            if first + place in refusals
        ]

    def read(self) -> list[VfReport]:
        """Return what the kernel reports of each VF. One that its driver fails to describe is not among them.

        Raises:
            NicOffloadError: `DeviceGoneError`: there is no such network device.
        """
        found = self._get(_WITH_VFS | _WITHOUT_STATS)
        return decode_reports(found[VFINFO_LIST]) if VFINFO_LIST in found else []

    def count(self) -> int:
        """Return how many VFs the kernel counts, those included that `read` leaves out."""
        found = self._get(_WITH_VFS | _WITHOUT_STATS)
        return number(found[_NUM_VF], 4) if _NUM_VF in found else 0

    def traffic(self, facts: CounterFacts | None) -> list[TrafficStats]:
        """Return the counters of each VF.

        Args:
            facts: How the driver counts, by the NIC's profile; None where it has no counters of VFs. Linux says 0 in
                their place then, and this says None.

        Raises:
            NicOffloadError: `DeviceGoneError`: there is no such network device; `KernelError`: it has so many VFs that
                Linux can't tell their counters in one answer, and there is no other.
        """
        try:
            found = self._get(_WITH_VFS)
            counters = decode_traffic(found[VFINFO_LIST], facts) if VFINFO_LIST in found else []
            whole = _NUM_VF in found and len(counters) == number(found[_NUM_VF], 4)
        except MalformedError as cause:
            if (count := self.count()) >= _MAY_OVERFLOW:
                raise self._too_many(0, count) from cause
            raise
        if not whole and (count := self.count()) >= _MAY_OVERFLOW and len(counters) < len(self.read()):
            raise self._too_many(len(counters), count)
        return counters

    def _too_many(self, told: int, count: int) -> KernelError:
        return KernelError(
            f"the kernel tells the counters of {told} of {count} VFs",
            device=self._device,
            path="/vfs",
            hint="an answer has room for 64 KiB of VFs (rtnetlink.c:rtnl_fill_vf), some 250; make fewer VFs",
        )

    def _get(self, mask: int) -> dict[int, Buffer]:
        refusal, replies = self._netlink.request(_RTM_GETLINK, 0, self._link + u32(_EXT_MASK, mask))
        if refusal is not None:
            raise refusal.error("reading the VFs", capability="vf", device=self._device)
        for reply in replies:
            if reply.kind == _RTM_NEWLINK:
                if len(reply.payload) < _IFINFO.size:
                    raise MalformedError("a link is cut short", device=self._device)
                return parse(reply.payload, _IFINFO.size)
        raise DeviceGoneError("the kernel did not describe the network device", device=self._device)
