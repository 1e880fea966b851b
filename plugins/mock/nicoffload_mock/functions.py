"""Virtual functions of an emulated NIC, with their rates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from nicoffload.driver import VirtualFunctions
from nicoffload.errors import (
    InvalidRequestError,
    NicOffloadError,
    NotSupportedError,
    Reason,
    VerificationError,
)
from nicoffload.model import Disruption, VfConfig, VfState, VlanTag
from nicoffload.testing.emulator import assumptions
from nicoffload.testing.emulator.answer import Refused
from nicoffload.testing.emulator.device import Device
from nicoffload.testing.emulator.vfs import Value, Vf
from nicoffload_mock.answers import insist, translate
from nicoffload_mock.rates import read_back

if TYPE_CHECKING:
    from nicoffload_mock.driver import MockDriver


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
        return self._device.sriov.limit

    def states(self) -> Sequence[VfState]:
        """Return all VFs, as the driver reports them."""
        device = self._device
        with device.session(), self._driver.asking("vf_read", "reading VFs", "vf"):
            count = len(device.sriov.vfs)
            for lie in device.faults.lies("vf_count"):
                count = min(count, lie.get("count", count))
            return [self._state(vf) for vf in device.sriov.vfs[:count]]

    def set_count(self, count: int) -> Disruption:
        """Make VFs through sysfs, and wait for them on the NIC's clock."""
        device, name = self._device, self._driver.info.name
        if not 0 <= count <= self.limit():
            raise InvalidRequestError(
                f"{count} VFs; this NIC has 0 to {self.limit()}", path="/count", device=name
            )
        with device.session():
            before = len(device.sriov.vfs)
            if count == before:
                return Disruption.NONE
            try:
                if before and count:
                    device.sriov.set_count(0)
                device.sriov.set_count(count)
            except Refused as answer:
                raise self._count_error(answer, name) from answer
            self._await_vfs()
            found = len(device.sriov.vfs)
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
            self._device.sriov.reset(vf)

    def bind(self, vf: int, driver: str) -> None:
        """Bind a VF to a driver that the emulated host has."""
        with (
            self._device.session(),
            self._driver.translating(f"VF {vf} was not bound to {driver!r}", "vf.bind"),
        ):
            self._device.sriov.bind(vf, driver)

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
            before = (
                _present(device.sriov.vfs[config.vf], setting) if config.vf < len(device.sriov.vfs) else None
            )
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
        until = max((vf.ready_ns for vf in device.sriov.vfs), default=0)
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
            "the number of VFs was not changed",
            capability="vf.create",
            reasons=[reason],
            device=name,
            path="/count",
        )

    def _how_vfs_are_made(self) -> str:
        sriov = self._driver.profile.sriov
        how = {
            "sysfs": "by a write to sriov_numvfs",
            "module_param": "by a parameter of the PF's driver when it loads",
            "vendor": "by the vendor's own driver",
            "links": "as network devices",
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
            spoof_check=lies.get("spoof_check", vf.spoof_check)
            if facts.spoof_check.supported != "no"
            else None,
            trust=lies.get("trust", vf.trust) if facts.trust.supported != "no" else None,
            link_state=vf.link_state if facts.link_state.supported != "no" else None,
            rate=read_back(self._driver, vf),
            driver=vf.driver,
            ready=device.sriov.is_ready(vf),
        )


class _Request:
    """One setting of one VF, to be sent until it is taken."""

    def __init__(self, device: Device, vf: int, setting: str, value: Value) -> None:
        self._device = device
        self._parts = (vf, setting, value)

    def __call__(self) -> None:
        self._device.sriov.set(*self._parts)


def _present(vf: Vf, setting: str) -> Value:
    if setting == "vlan":
        return VlanTag(vid=vf.vid, pcp=vf.pcp, protocol=vf.protocol)
    value: Value = getattr(vf, setting)
    return value
