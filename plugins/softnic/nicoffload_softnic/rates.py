"""Transmit rates of the VFs of a software NIC."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from nicoffload.driver import RateControl
from nicoffload.errors import InvalidRequestError, NicOffloadError, NotFoundError
from nicoffload.model import RateLimit, RateReport
from nicoffload_softnic import layout, names, shaper
from nicoffload_softnic.device import SoftDevice

_STEP_BPS = 1000
_SMALLEST_BPS = 8000


def rate_of(device: SoftDevice, vf: int) -> RateLimit:
    """Return the rates of a VF."""
    port = device.port(layout.FIRST_VF + vf)
    return RateLimit(min_tx_bps=int(port["min_tx_bps"]) or None, max_tx_bps=int(port["max_tx_bps"]) or None)


class SoftRates(RateControl):
    """The rates, enforced by HTB on all that a VF sends.

    Args:
        device: The NIC.
    """

    def __init__(self, device: SoftDevice) -> None:
        self._device = device
        self._name = names.PREFIX + device.name

    def set_many(self, limits: Mapping[int, RateLimit]) -> Mapping[int, RateReport | NicOffloadError]:
        """Set rates and put them in force together; where the guarantees exceed the port, none is changed."""
        device = self._device
        device.check_alive()
        answers: dict[int, RateReport | NicOffloadError] = {}
        taken: dict[int, RateLimit] = {}
        for vf, limit in limits.items():
            error = self._problem(vf, limit)
            if error is not None:
                answers[vf] = error
            else:
                taken[vf] = limit
        excess = self._excess(taken)
        if excess:
            return answers | {vf: self._exceeds(excess) for vf in taken}
        before = {vf: rate_of(device, vf) for vf in taken}
        try:
            self._write(taken)
            shaper.apply(device)
        except NicOffloadError as cause:
            self._write(before)
            return answers | dict.fromkeys(taken, cause)
        return answers | {vf: self._report(vf, limit) for vf, limit in taken.items()}

    def read(self) -> Sequence[RateReport]:
        """Return the rates of all VFs."""
        self._device.check_alive()
        return [self._report(vf, None) for vf in range(self._device.vfs)]

    def _write(self, limits: Mapping[int, RateLimit]) -> None:
        for vf, limit in limits.items():
            port = self._device.port(layout.FIRST_VF + vf)
            port["min_tx_bps"] = _in_steps(limit.min_tx_bps)
            port["max_tx_bps"] = _in_steps(limit.max_tx_bps)

    def _problem(self, vf: int, limit: RateLimit) -> NicOffloadError | None:
        if vf >= self._device.vfs:
            return NotFoundError(f"there is no VF {vf}", path="/vf", device=self._name)
        whole = shaper.link_bps(self._device)
        for name, rate in (("min_tx_bps", limit.min_tx_bps), ("max_tx_bps", limit.max_tx_bps)):
            if rate is not None and rate > whole:
                return InvalidRequestError(
                    f"{rate} bit/s is more than the port's {whole}",
                    path=f"/{name}",
                    device=self._name,
                )
        return None

    def _excess(self, taken: Mapping[int, RateLimit]) -> int:
        """Return the sum of all guarantees where it exceeds the port; else 0."""
        after = {vf: rate_of(self._device, vf) for vf in range(self._device.vfs)} | dict(taken)
        total = sum(limit.min_tx_bps or 0 for limit in after.values())
        return total if total > shaper.link_bps(self._device) else 0

    def _exceeds(self, total: int) -> NicOffloadError:
        return InvalidRequestError(
            f"the guarantees of all VFs would be {total} bit/s, more than the port's "
            f"{shaper.link_bps(self._device)}",
            path="/min_tx_bps",
            device=self._name,
        )

    def _report(self, vf: int, requested: RateLimit | None) -> RateReport:
        held = rate_of(self._device, vf)
        steps = f"the NIC works in steps of {_STEP_BPS} bit/s, and with {_SMALLEST_BPS} at least"
        note = "" if requested is None or requested == held else steps
        return RateReport(vf=vf, requested=requested, applied=held, read_back=held, note=note)


def _in_steps(bps: int | None) -> int:
    return 0 if bps is None else max(bps // _STEP_BPS * _STEP_BPS, _SMALLEST_BPS)
