"""Transmit rates of the VFs of a software NIC."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from nicoffload.driver import RateControl
from nicoffload.errors import InvalidRequestError, NicOffloadError, NotFoundError, NotSupportedError, Reason
from nicoffload.model import RateLimit, RateReport
from nicoffload.profiles.types import NicProfile
from nicoffload_softnic import names
from nicoffload_softnic.path import DEFAULT_LINK_BPS, DataPath

_STEP_BPS = 1000
_SMALLEST_BPS = 8000


class SoftRates(RateControl):
    """The rates, enforced by HTB on all that a VF sends.

    Args:
        path: The NIC's data path.
        profile: Its profile.
    """

    def __init__(self, path: DataPath, profile: NicProfile) -> None:
        self._path = path
        self._rates = profile.rates
        self._name = names.PREFIX + path.name

    def set_many(self, limits: Mapping[int, RateLimit]) -> Mapping[int, RateReport | NicOffloadError]:
        """Set rates and put them in force together; where the guarantees exceed the port, none is changed."""
        path = self._path
        path.check_alive()
        count = path.vfs
        answers: dict[int, RateReport | NicOffloadError] = {}
        taken: dict[int, RateLimit] = {}
        for vf, limit in limits.items():
            error = self._problem(vf, limit, count)
            if error is not None:
                answers[vf] = error
            else:
                taken[vf] = limit
        excess = self._excess(taken)
        if excess:
            return answers | {vf: self._exceeds(excess) for vf in taken}
        before = {vf: path.settings(vf).rate for vf in taken}
        try:
            self._write({vf: _in_steps(limit) for vf, limit in taken.items()})
            path.shape()
        except NicOffloadError as cause:
            self._write(before)
            return answers | dict.fromkeys(taken, cause)
        return answers | {vf: self._report(vf, limit) for vf, limit in taken.items()}

    def read(self) -> Sequence[RateReport]:
        """Return the rates of all VFs."""
        self._path.check_alive()
        return [self._report(vf, None) for vf in range(self._path.vfs)]

    def _write(self, limits: Mapping[int, RateLimit]) -> None:
        for vf, limit in limits.items():
            self._path.change(vf, replace(self._path.settings(vf), rate=limit))

    def _problem(self, vf: int, limit: RateLimit, count: int) -> NicOffloadError | None:
        if vf >= count:
            return NotFoundError(f"there is no VF {vf}", path="/vf", device=self._name)
        if limit.min_tx_bps is not None and self._rates.min_tx.supported == "no":
            return self._no_guarantee(vf)
        whole = self._link_bps()
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
        after = {vf: self._path.settings(vf).rate for vf in range(self._path.vfs)} | dict(taken)
        total = sum(limit.min_tx_bps or 0 for limit in after.values())
        return total if total > self._link_bps() else 0

    def _exceeds(self, total: int) -> NicOffloadError:
        return InvalidRequestError(
            f"the guarantees of all VFs would be {total} bit/s, more than the port's {self._link_bps()}",
            path="/min_tx_bps",
            device=self._name,
        )

    def _report(self, vf: int, requested: RateLimit | None) -> RateReport:
        held = self._path.settings(vf).rate
        steps = f"the NIC works in steps of {_STEP_BPS} bit/s, and with {_SMALLEST_BPS} at least"
        note = "" if requested is None or requested == held else steps
        return RateReport(vf=vf, requested=requested, applied=held, read_back=held, note=note)

    def _link_bps(self) -> int:
        return self._path.link_bps or DEFAULT_LINK_BPS

    def _no_guarantee(self, vf: int) -> NicOffloadError:
        facts = self._rates.min_tx
        reason = Reason(
            code="rate.min_tx",
            path="/min_tx_bps",
            message=facts.needs,
            errno=facts.errno,
            source=facts.source,
        )
        return NotSupportedError(
            f"VF {vf} can't have a guarantee",
            capability="rates.min_tx",
            reasons=[reason],
            path="/min_tx_bps",
            device=self._name,
        )


def _in_steps(limit: RateLimit) -> RateLimit:
    return RateLimit(min_tx_bps=_rounded(limit.min_tx_bps), max_tx_bps=_rounded(limit.max_tx_bps))


def _rounded(bps: int | None) -> int | None:
    return None if bps is None else max(bps // _STEP_BPS * _STEP_BPS, _SMALLEST_BPS)
