"""Transmit rates of the VFs of an emulated NIC."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from nicoffload.driver import RateControl
from nicoffload.errors import NicOffloadError
from nicoffload.model import RateLimit, RateReport
from nicoffload.testing.emulator.answer import Refused
from nicoffload.testing.emulator.bucket import Setting
from nicoffload.testing.emulator.device import Device
from nicoffload.testing.emulator.vfs import Vf
from nicoffload_mock.answers import insist, translate

if TYPE_CHECKING:
    from nicoffload_mock.driver import MockDriver


def read_back(driver: MockDriver, vf: Vf) -> RateLimit | None:
    """Return the rates that the NIC reports of a VF; None where it reports none."""
    rates = driver.profile.rates
    if rates.min_tx.supported == "no" and rates.max_tx.supported == "no":
        return None
    lies = {
        key: value
        for lie in driver.device.faults.lies("rates")
        if lie.get("vf", vf.index) == vf.index
        for key, value in lie.items()
    }
    held = [driver.device.sriov.holds_rate(vf, kind) for kind in ("min_tx", "max_tx")]
    low = lies.get("min_tx_bps", vf.min_tx.reported if held[0] else 0) or None
    high = lies.get("max_tx_bps", vf.max_tx.reported if held[1] else 0) or None
    # A NIC may report a guarantee above a limit; the value type holds no such thing.
    return RateLimit(min_tx_bps=min(low, high) if low and high else low, max_tx_bps=high)


class MockRates(RateControl):
    """The transmit rates of VFs.

    Args:
        driver: The open NIC.
    """

    def __init__(self, driver: MockDriver) -> None:
        self._driver = driver
        self._device: Device = driver.device

    def set_many(self, limits: Mapping[int, RateLimit]) -> Mapping[int, RateReport | NicOffloadError]:
        """Set rates VF by VF, in the steps of the interface."""
        with self._device.session():
            return {vf: self._set(vf, limit) for vf, limit in limits.items()}

    def read(self) -> Sequence[RateReport]:
        """Return the rates of all VFs."""
        with self._device.session(), self._driver.asking("rate_read", "reading rates", "rates"):
            return [self._report(vf, None, "") for vf in self._device.sriov.vfs]

    def _set(self, index: int, limit: RateLimit) -> RateReport | NicOffloadError:
        device, rates = self._device, self._driver.profile.rates
        before = (
            [(k, getattr(device.sriov.vfs[index], k)) for k in ("min_tx", "max_tx")]
            if index < len(device.sriov.vfs)
            else []
        )
        done: list[str] = []
        notes: list[str] = []
        steps = {
            "min_tx": _in_steps(limit.min_tx_bps, rates.min_tx.api_quantum_bps, "min", notes),
            "max_tx": _in_steps(limit.max_tx_bps, rates.max_tx.api_quantum_bps, "max", notes),
        }
        for kind in ("min_tx", "max_tx"):
            bps = steps[kind]
            try:
                insist(device, _RateRequest(device, index, kind, bps))
            except Refused as answer:
                for name, old in before:
                    if name in done:
                        self._undo(index, name, old)
                error = translate(
                    answer,
                    f"{kind} of VF {index} was refused",
                    capability=f"rates.{kind}",
                    device=self._driver.info.name,
                )
                error.__cause__ = answer
                return error
            done.append(kind)
        return self._report(device.sriov.vfs[index], limit, "; ".join(notes))

    def _undo(self, index: int, kind: str, old: Setting) -> None:
        try:
            insist(self._device, _RateRequest(self._device, index, kind, old.asked))
        except Refused:
            # The read-back tells what is in force; the first answer is the one to tell.
            return

    def _report(self, vf: Vf, requested: RateLimit | None, note: str) -> RateReport:
        held = [self._device.sriov.holds_rate(vf, kind) for kind in ("min_tx", "max_tx")]
        low = vf.min_tx.applied or None if held[0] else None
        high = vf.max_tx.applied or None if held[1] else None
        notes = [note] if note else []
        if not all(held) and (vf.max_tx.asked or vf.min_tx.asked):
            notes.append("the rate takes effect only while the VF has a port VLAN")
        if (
            requested is not None
            and not note
            and (requested.max_tx_bps != high or requested.min_tx_bps != low)
        ):
            notes.append("the NIC works in coarser steps")
        if vf.max_tx.reported != vf.max_tx.applied or vf.min_tx.reported != vf.min_tx.applied:
            notes.append("the NIC does not report what it does")
        return RateReport(
            vf=vf.index,
            requested=requested,
            applied=RateLimit(min_tx_bps=min(low, high) if low and high else low, max_tx_bps=high),
            read_back=read_back(self._driver, vf),
            note="; ".join(notes),
        )


class _RateRequest:
    """One rate of one VF, to be sent until it is taken."""

    def __init__(self, device: Device, vf: int, kind: str, bps: int) -> None:
        self._device = device
        self._parts = (vf, kind, bps)

    def __call__(self) -> None:
        self._device.sriov.set_rate(*self._parts)


def _in_steps(bps: int | None, step: int, name: str, notes: list[str]) -> int:
    """Return a rate in whole steps of the interface, at least one: 0 would mean no limit."""
    if bps is None:
        return 0
    rounded = max(bps // step, 1) * step
    if rounded != bps:
        notes.append(f"{name}: the interface takes steps of {step} bit/s")
    return rounded
