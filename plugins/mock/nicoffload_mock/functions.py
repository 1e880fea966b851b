"""Virtual functions of an emulated NIC, with their rates."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from nicoffload.driver import RateControl, VirtualFunctions
from nicoffload.errors import InvalidRequestError, NicOffloadError, NotSupportedError, Reason, VerificationError
from nicoffload.model import Disruption, RateLimit, RateReport, VfConfig, VfState, VlanTag
from nicoffload_mock import assumptions
from nicoffload_mock.answers import translate
from nicoffload_mock.emulator.answer import Refused
from nicoffload_mock.emulator.bucket import Setting
from nicoffload_mock.emulator.device import Device
from nicoffload_mock.emulator.vfs import Value, Vf

if TYPE_CHECKING:
    from nicoffload_mock.driver import MockDriver


def insist(device: Device, request: Callable[[], None]) -> None:
    """Make a request, and again while the VF is resetting, as a client of such a driver has to.

    Raises:
        Refused: Any other answer, or it was busy for too long.
    """
    until = device.now_ns + assumptions.WAIT_LIMIT_NS
    while True:
        try:
            request()
        except Refused as answer:
            if answer.condition != "busy" or device.now_ns >= until:
                raise
        else:
            return


class MockFunctions(VirtualFunctions):
    """The VFs.

    Args:
        driver: The open NIC.
    """

    def __init__(self, driver: MockDriver) -> None:
        self._driver = driver
        self._device: Device = driver.device

    def limit(self) -> int:
        """Return how many VFs there can be."""
        return self._device.vf_limit()

    def states(self) -> Sequence[VfState]:
        """Return all VFs, as the driver reports them."""
        device = self._device
        with device.session(), self._driver.asking("vf_read", "reading VFs", "vf"):
            count = len(device.vfs)
            for lie in device.faults.lies("vf_count"):
                count = min(count, lie.get("count", count))
            return [self._state(vf) for vf in device.vfs[:count]]

    def set_count(self, count: int) -> Disruption:
        """Make VFs through sysfs, and wait for them on the NIC's clock."""
        device, name = self._device, self._driver.info.name
        if not 0 <= count <= self.limit():
            raise InvalidRequestError(
                f"{count} VFs; this NIC has 0 to {self.limit()}", path="/count", device=name
            )
        with device.session():
            before = len(device.vfs)
            if count == before:
                return Disruption.NONE
            try:
                if before and count:
                    device.set_vf_count(0)
                device.set_vf_count(count)
            except Refused as answer:
                raise self._count_error(answer, name) from answer
            self._await_vfs()
            found = len(device.vfs)
            if found != count:
                raise VerificationError(
                    "the write succeeded and the number of VFs is another",
                    expected=str(count),
                    actual=str(found),
                    path="/count",
                    device=name,
                    hint=self._how_vfs_are_made(),
                )
        return Disruption.VF_RESET if before else Disruption.NONE

    def configure_many(self, configs: Sequence[VfConfig]) -> Sequence[NicOffloadError | None]:
        """Apply settings; a VF that refuses one gets back those that it had."""
        with self._device.session():
            return [self._configure(config) for config in configs]

    def reset(self, vf: int) -> None:
        """Start a function level reset; `states` tells when it is over."""
        with self._device.session(), self._driver.translating(f"VF {vf} was not reset", "vf.reset"):
            found = self._device.vfs[vf] if vf < len(self._device.vfs) else None
            if found is not None and not self._device.is_ready(found):
                self._device.advance(self._device.now_ns + assumptions.BUSY_WAIT_NS)
                raise Refused("EBUSY", "busy", f"VF {vf} is resetting")
            self._device.reset_vf(vf)

    def bind(self, vf: int, driver: str) -> None:
        """Bind a VF to a driver that the emulated host has."""
        with self._device.session(), self._driver.translating(f"VF {vf} was not bound to {driver!r}", "vf.bind"):
            self._device.bind_vf(vf, driver)

    def _configure(self, config: VfConfig) -> NicOffloadError | None:
        device = self._device
        wanted = (
            ("mac", config.mac),
            ("vlan", config.vlan),
            ("spoof_check", config.spoof_check),
            ("trust", config.trust),
            ("link_state", config.link_state),
        )
        done: list[tuple[str, Value]] = []
        for setting, value in wanted:
            if value is None:
                continue
            before = _present(device.vfs[config.vf], setting) if config.vf < len(device.vfs) else None
            try:
                insist(device, _Request(device, config.vf, setting, value))
            except Refused as answer:
                for name, old in reversed(done):
                    self._undo(config.vf, name, old)
                error = translate(
                    answer,
                    f"{setting} of VF {config.vf} was refused",
                    capability=f"vf.{setting}",
                    device=self._driver.info.name,
                )
                error.__cause__ = answer
                return error
            if before is not None:
                done.append((setting, before))
        return None

    def _undo(self, vf: int, setting: str, value: Value) -> None:
        try:
            insist(self._device, _Request(self._device, vf, setting, value))
        except Refused:
            # What refuses the old value now is reported by the read-back; the first answer is the one to tell.
            return

    def _await_vfs(self) -> None:
        """Wait, on the NIC's own clock, until new VFs are there, or as long as a plugin would."""
        device = self._device
        until = max((vf.ready_ns for vf in device.vfs), default=0)
        device.advance(min(until, device.now_ns + assumptions.WAIT_LIMIT_NS))

    def _count_error(self, answer: Refused, name: str) -> NicOffloadError:
        sriov = self._driver.profile.sriov
        if answer.condition != "sriov" or sriov is None:
            return translate(answer, "the number of VFs was not changed", capability="vf.create", device=name)
        reason = Reason(
            code=f"vf.{sriov.method}",
            path="/count",
            message=f"VFs are not made at run time here: {self._how_vfs_are_made()}",
            source=sriov.source,
            errno=answer.errno,
        )
        return NotSupportedError(
            "the number of VFs was not changed", capability="vf.create", reasons=[reason], device=name, path="/count"
        )

    def _how_vfs_are_made(self) -> str:
        sriov = self._driver.profile.sriov
        how = {
            "sysfs": "by a write to sriov_numvfs",
            "module_param": "by a parameter of the PF's driver when it loads",
            "vendor": "by the vendor's own driver",
        }
        return "" if sriov is None else sriov.note or how[sriov.method]

    def _state(self, vf: Vf) -> VfState:
        facts = self._driver.profile.vf
        assert facts is not None, "a NIC with VFs has settings of VFs"
        device = self._device
        lies = {
            key: value
            for lie in device.faults.lies("vfs")
            if lie.get("vf", vf.index) == vf.index
            for key, value in lie.items()
        }
        vlan = VlanTag(vid=vf.vid, pcp=vf.pcp, protocol=vf.protocol)
        return VfState(
            vf=vf.index,
            mac=lies.get("mac", vf.mac) if facts.mac.supported != "no" else None,
            vlan=vlan if facts.vlan.supported != "no" else None,
            spoof_check=lies.get("spoof_check", vf.spoof_check) if facts.spoof_check.supported != "no" else None,
            trust=lies.get("trust", vf.trust) if facts.trust.supported != "no" else None,
            link_state=vf.link_state if facts.link_state.supported != "no" else None,
            rate=read_back(self._driver, vf),
            driver=vf.driver,
            ready=device.is_ready(vf),
        )


class _Request:
    """One setting of one VF, to be sent until it is taken."""

    def __init__(self, device: Device, vf: int, setting: str, value: Value) -> None:
        self._device = device
        self._parts = (vf, setting, value)

    def __call__(self) -> None:
        self._device.set_vf(*self._parts)


def _present(vf: Vf, setting: str) -> Value:
    if setting == "vlan":
        return VlanTag(vid=vf.vid, pcp=vf.pcp, protocol=vf.protocol)
    value: Value = getattr(vf, setting)
    return value


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
    held = [driver.device.holds_rate(vf, kind) for kind in ("min_tx", "max_tx")]
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
            return [self._report(vf, None, "") for vf in self._device.vfs]

    def _set(self, index: int, limit: RateLimit) -> RateReport | NicOffloadError:
        device, rates = self._device, self._driver.profile.rates
        before = [(k, getattr(device.vfs[index], k)) for k in ("min_tx", "max_tx")] if index < len(device.vfs) else []
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
        return self._report(device.vfs[index], limit, "; ".join(notes))

    def _undo(self, index: int, kind: str, old: Setting) -> None:
        try:
            insist(self._device, _RateRequest(self._device, index, kind, old.asked))
        except Refused:
            # The read-back tells what is in force; the first answer is the one to tell.
            return

    def _report(self, vf: Vf, requested: RateLimit | None, note: str) -> RateReport:
        held = [self._device.holds_rate(vf, kind) for kind in ("min_tx", "max_tx")]
        low = vf.min_tx.applied or None if held[0] else None
        high = vf.max_tx.applied or None if held[1] else None
        notes = [note] if note else []
        if not all(held) and (vf.max_tx.asked or vf.min_tx.asked):
            notes.append("the rate takes effect only while the VF has a port VLAN")
        if requested is not None and not note and (requested.max_tx_bps != high or requested.min_tx_bps != low):
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
        self._device.set_rate(*self._parts)


def _in_steps(bps: int | None, step: int, name: str, notes: list[str]) -> int:
    """Return a rate in whole steps of the interface, at least one: 0 would mean no limit."""
    if bps is None:
        return 0
    rounded = max(bps // step, 1) * step
    if rounded != bps:
        notes.append(f"{name}: the interface takes steps of {step} bit/s")
    return rounded
