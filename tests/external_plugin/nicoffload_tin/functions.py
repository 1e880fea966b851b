"""VFs of the Tin One, and how fast each may send."""

from collections.abc import Mapping, Sequence

from nicoffload.driver import RateControl, VirtualFunctions
from nicoffload.errors import (
    InvalidRequestError,
    NicOffloadError,
    NotFoundError,
    NotSupportedError,
    Reason,
    from_errno,
)
from nicoffload.model import Disruption, RateLimit, RateReport, VfConfig, VfState
from nicoffload_tin.device import MAX_VFS

MISSING = ("vlan", "spoof_check", "trust", "link_state")


class TinFunctions(VirtualFunctions):
    def __init__(self, tin, name: str) -> None:
        self._tin = tin
        self._name = name

    def limit(self) -> int:
        return MAX_VFS

    def states(self) -> Sequence[VfState]:
        # What the NIC does not have is None: nobody enforces it, so nobody may report it as off.
        return [
            VfState(
                vf=index,
                mac=vf["mac"],
                vlan=None,
                spoof_check=None,
                trust=None,
                link_state=None,
                rate=RateLimit(max_tx_bps=vf["rate_bps"]),
                driver=vf["driver"],
            )
            for index, vf in enumerate(self._tin.read()["vfs"])
        ]

    def set_count(self, count: int) -> Disruption:
        if not 0 <= count <= MAX_VFS:
            raise InvalidRequestError(
                f"{count} VFs; this NIC has 0 to {MAX_VFS}", path="/count", device=self._name
            )
        before = len(self._tin.read()["vfs"])
        if count == before:
            return Disruption.NONE
        self._tin.set_count(count)
        return Disruption.VF_RESET if before else Disruption.NONE

    def configure_many(self, configs: Sequence[VfConfig]) -> Sequence[NicOffloadError | None]:
        return [self._configure(config) for config in configs]

    def reset(self, vf: int) -> None:
        self._check(vf)  # a Tin One's VF keeps nothing of its guest's

    def bind(self, vf: int, driver: str) -> None:
        try:
            self._tin.bind(vf, driver)
        except OSError as cause:
            raise failed(cause, f"VF {vf} was not bound to {driver!r}", "vf.bind", self._name) from cause

    def _configure(self, config: VfConfig) -> NicOffloadError | None:
        # Looked at before anything is done, so that a config that is refused leaves the VF as it was.
        for name in MISSING:
            if getattr(config, name) is not None:
                return lacking(f"vf.{name}", f"the Tin One has no {name} of VFs", f"/{name}", self._name)
        try:
            self._check(config.vf)
            if config.mac is not None:
                self._tin.set_mac(config.vf, config.mac)
        except NotFoundError as error:
            return error
        return None

    def _check(self, vf: int) -> None:
        count = len(self._tin.read()["vfs"])
        if vf >= count:
            raise NotFoundError(f"there is no VF {vf}; {count} exist", path="/vf", device=self._name)


class TinRates(RateControl):
    def __init__(self, tin, name: str) -> None:
        self._tin = tin
        self._name = name

    def set_many(self, limits: Mapping[int, RateLimit]) -> Mapping[int, RateReport | NicOffloadError]:
        return {vf: self._set(vf, limit) for vf, limit in limits.items()}

    def read(self) -> Sequence[RateReport]:
        return [
            RateReport(vf=index, requested=None, applied=kept, read_back=kept)
            for index, vf in enumerate(self._tin.read()["vfs"])
            for kept in [RateLimit(max_tx_bps=vf["rate_bps"])]
        ]

    def _set(self, vf: int, limit: RateLimit) -> RateReport | NicOffloadError:
        if limit.min_tx_bps is not None:
            return lacking("rates.min_tx", "the Tin One has no guarantees", "/min_tx_bps", self._name)
        try:
            self._tin.set_rate(vf, limit.max_tx_bps)
        except OSError as cause:
            return failed(cause, f"the rate of VF {vf} was refused", "rates.max_tx", self._name)
        kept = self.read()[vf].applied
        note = "" if kept == limit else "the NIC works in steps of 1 Mbit/s"
        return RateReport(vf=vf, requested=limit, applied=kept, read_back=kept, note=note)


def lacking(capability: str, message: str, path: str, device: str) -> NotSupportedError:
    reason = Reason(code="absent", path=path, message=message, source="device.py")
    return NotSupportedError(message, capability=capability, reasons=[reason], path=path, device=device)


def failed(cause: OSError, message: str, capability: str, device: str) -> NicOffloadError:
    error = from_errno(
        cause.errno, message, capability=capability, device=device, kernel_message=cause.strerror
    )
    error.__cause__ = cause
    return error
