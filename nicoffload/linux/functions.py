"""The virtual functions of a live NIC: made, set, read, reset and bound."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from nicoffload.driver.contract import InstalledRule, VirtualFunctions
from nicoffload.errors import (
    ConflictError,
    DeviceBusyError,
    InvalidRequestError,
    NicOffloadError,
    NotFoundError,
    NotSupportedError,
    Reason,
    VerificationError,
)
from nicoffload.kernel.devlink import Devlink, PortFlavour, function_command
from nicoffload.kernel.vf import VfLink, VfRefusal, VfReport, VfRequest, set_commands
from nicoffload.linux.coming import coming_port
from nicoffload.linux.explaining import explain_vf
from nicoffload.linux.makers import VfMaker
from nicoffload.linux.nic import POLL_S, LinuxNic
from nicoffload.linux.situation import Operation
from nicoffload.model import Disruption, LinkState, RateLimit, ToQueue, VfConfig, VfState
from nicoffload.profiles.types import Setting, VfFacts

SETTINGS = ("mac", "vlan", "spoof_check", "trust", "link_state")
BUSY_TIMEOUT_S = 2.0
"""How long a VF that is resetting is asked again."""


class LinuxFunctions(VirtualFunctions):
    """The VFs of a live NIC.

    Args:
        nic: The NIC.
        maker: What makes its VFs.
        rules: Reads the rules that stand in its tables: VFs can take the queues that they name.
        on_new_vfs: Called when VFs were made or removed: what was known of the old ones holds no more.
    """

    def __init__(
        self,
        nic: LinuxNic,
        maker: VfMaker,
        *,
        rules: Callable[[], Sequence[InstalledRule]] | None = None,
        on_new_vfs: Callable[[], None] | None = None,
    ) -> None:
        self._nic = nic
        self._maker = maker
        self._rules = rules
        self._on_new_vfs = on_new_vfs

    def limit(self) -> int:
        """Return how many VFs there can be."""
        with self._nic.asking("reading the limit of VFs", "vf.create"):
            return self._maker.limit()

    def states(self) -> Sequence[VfState]:
        """Return the VFs; a setting that the driver does not have is None, also where Linux says something."""
        with self._nic.asking("reading the VFs", "vf"):
            addresses = self._maker.addresses()
            if not addresses:
                return ()
            reports = self._reports()
            macs = self._port_macs() if self._facts().mac.via == "devlink" else {}
            return [
                self._state(vf, address, reports.get(vf, _UNTOLD), macs.get(vf))
                for vf, address in enumerate(addresses)
            ]

    def set_count(self, count: int) -> Disruption:
        """Make VFs, and wait for them."""
        with self._nic.asking("the number of VFs was not changed", "vf.create"):
            limit = self._maker.limit()
            if not 0 <= count <= limit:
                raise InvalidRequestError(
                    f"{count} VFs; this NIC has 0 to {limit}", path="/count", device=self._nic.device
                )
            before = len(self._maker.addresses())
            if count == before:
                self._maker.wait()  # an earlier call may have given up waiting for them
                return Disruption.NONE
            if count:
                self._refuse_if_queues_go(count)
            try:
                self._maker.make(count)
            except NicOffloadError as error:
                raise self.not_made(error, count, before) from error
            finally:
                if self._on_new_vfs is not None:
                    self._on_new_vfs()
        return Disruption.VF_RESET if before else Disruption.NONE

    def configure_many(self, configs: Sequence[VfConfig]) -> Sequence[NicOffloadError | None]:
        """Apply settings, all in one send; a VF of which one is refused gets back those that it had."""
        with self._nic.asking("setting VFs", "vf"):
            there = len(self._maker.addresses())
            reports = self._before(there)
            answers: list[NicOffloadError | None] = [self._obstacle(config, there) for config in configs]
            places = [place for place, answer in enumerate(answers) if answer is None]
            if not places:
                return answers
            with VfLink(self._nic.kernel, self._nic.pf().ifindex, device=self._nic.device) as link:
                refused = self._apply(link, [configs[place] for place in places])
                for place in places:
                    mine = [one for one in refused if one.vf == configs[place].vf]
                    if mine:
                        answers[place] = self._take_back(link, configs[place], mine, reports)
        return answers

    def reset(self, vf: int) -> None:
        """Reset a VF by itself (FLR)."""
        with self._nic.asking(f"VF {vf} was not reset", "vf.reset"):
            self._maker.reset(vf)

    def bind(self, vf: int, driver: str) -> None:
        """Bind a VF to a driver, or unbind it."""
        with self._nic.asking(f"VF {vf} was not bound to {driver!r}", "vf.bind"):
            self._maker.bind(vf, driver)

    # ---------------------------------------------------------------------------------------------------- commands

    def count_commands(self, count: int) -> Sequence[str]:
        """Return the shell commands that make as many VFs."""
        return self._maker.commands(count)

    def config_commands(self, config: VfConfig) -> Sequence[str]:
        """Return the `ip` and `devlink` commands that make the same settings."""
        rtnetlink, mac = self._by_way(config)
        words = set_commands(self._nic.pf().ifname, VfRequest(config=rtnetlink))
        if mac is not None:
            anew = self._nic.ahead.vf_count is not None
            port = coming_port(config.vf) if anew else self._port_of(config.vf)
            words.insert(0, function_command(self._nic.place.handle, port, hw_addr=mac))
        return words

    # ------------------------------------------------------------------------------------------ for plugins to refine

    def not_made(self, error: NicOffloadError, count: int, before: int) -> NicOffloadError:
        """Return what a driver's refusal to make VFs means."""
        if error.errno is None or isinstance(error, NotSupportedError | VerificationError):
            return error  # it was not the driver, or its profile was asked already
        gone = not before or self._nic.count_vfs() == 0  # it was not the way to 0 that was refused
        return explain_vf(
            self._nic, error, Operation.VF_COUNT, "vf.create", path="/count", count=count if gone else 0
        )

    def refused(self, error: NicOffloadError, config: VfConfig, setting: str) -> NicOffloadError:
        """Return what a driver's refusal of a setting means."""
        return explain_vf(
            self._nic,
            error,
            Operation.VF_SET,
            f"vf.{setting}",
            path=f"/{setting}",
            vf=config.vf,
            setting=setting,
            value=getattr(config, setting),
        )

    # ------------------------------------------------------------------------------------------------------- queues

    def _refuse_if_queues_go(self, count: int) -> None:
        """Refuse to make VFs whose queues rules name: the driver takes them from the PF, and leaves the rules."""
        sriov = self._nic.profile.sriov
        left = sriov.pf_queues(count) if sriov is not None else None
        if left is None or self._rules is None:
            return
        lost = sorted(
            action.queue
            for installed in self._rules()
            for action in installed.rule.actions
            if isinstance(action, ToQueue) and action.queue >= left
        )
        if lost:
            queues = ", ".join(map(str, dict.fromkeys(lost)))
            raise ConflictError(
                f"{len(lost)} rules deliver to queue {queues} of the PF, which has {left} with {count} VFs",
                existing=f"rules to queue {queues}",
                path="/count",
                device=self._nic.device,
                hint="remove those rules, or let them deliver to a queue that stays",
            )

    # ------------------------------------------------------------------------------------------------------ reading

    def _facts(self) -> VfFacts:
        facts = self._nic.profile.vf
        assert facts is not None, "a NIC with VFs has settings of VFs"
        return facts

    def _reports(self) -> dict[int, VfReport]:
        with VfLink(self._nic.kernel, self._nic.pf().ifindex, device=self._nic.device) as link:
            return {report.vf: report for report in link.read()}

    def _state(self, vf: int, address: str, report: VfReport, port_mac: int | None) -> VfState:
        facts = self._facts()
        return VfState(
            vf=vf,
            mac=port_mac if facts.mac.via == "devlink" else _reported(facts.mac, report.mac),
            vlan=_reported(facts.vlan, report.vlan),
            spoof_check=_reported(facts.spoof_check, report.spoof_check),
            trust=_reported(facts.trust, report.trust),
            link_state=_reported(facts.link_state, report.link_state),
            rate=self._rate(report),
            pci_address=address,
            driver=self._maker.driver(vf),
            ready=self._ready(is_told=report is not _UNTOLD),
        )

    def _ready(self, *, is_told: bool) -> bool | None:
        """Return whether a VF is out of its reset: Linux has no word for it, and leaves out what can't be asked."""
        return False if self._facts().busy_while_resetting and not is_told else None

    def _rate(self, report: VfReport) -> RateLimit | None:
        rates = self._nic.profile.rates
        if rates.min_tx.supported == "no" and rates.max_tx.supported == "no":
            return None
        if report.max_tx_bps is None:
            return None
        return rate_limit(report.min_tx_bps, report.max_tx_bps)

    def _port_macs(self) -> dict[int, int | None]:
        return {
            port.vf: port.function.hw_addr if port.function is not None else None
            for port in self._nic.devlink_ports()
            if port.flavour is PortFlavour.PCI_VF and port.vf is not None and not port.external
        }

    def _port_of(self, vf: int) -> int:
        for port in self._nic.devlink_ports():
            if port.flavour is PortFlavour.PCI_VF and port.vf == vf and not port.external:
                return port.index
        raise NotFoundError(
            f"devlink has no port of VF {vf}",
            device=self._nic.device,
            path="/mac",
            hint="the eswitch has to be in switchdev mode",
        )

    # ------------------------------------------------------------------------------------------------------ setting

    def _by_way(self, config: VfConfig) -> tuple[VfConfig, int | None]:
        """Return what goes through rtnetlink, and the address that goes through devlink; None for none."""
        if self._facts().mac.via != "devlink" or config.mac is None:
            return config, None
        rest: dict[str, Any] = {name: getattr(config, name) for name in SETTINGS if name != "mac"}
        return VfConfig(vf=config.vf, **rest), config.mac

    def _obstacle(self, config: VfConfig, there: int) -> NicOffloadError | None:
        """Return why a setting can't be, where the profile knows of a driver that would say yes and do nothing."""
        if config.vf >= there:
            return NotFoundError(
                f"there is no VF {config.vf}; there are {there}", device=self._nic.device, path="/vf"
            )
        for name in SETTINGS:
            value = getattr(config, name)
            setting: Setting = getattr(self._facts(), name)
            if value is None:
                continue
            plain = value.value if isinstance(value, LinkState) else value
            if plain in setting.no_effect:
                reason = Reason(
                    code="vf.no_effect",
                    path=f"/{name}",
                    message=f"the driver takes {plain} with success and does not do it",
                    accepted=", ".join(map(str, setting.values or ())),
                    source=setting.source,
                )
                return NotSupportedError(
                    f"{name} of VF {config.vf} can't be {plain}",
                    capability=f"vf.{name}",
                    reasons=[reason],
                    path=f"/{name}",
                    device=self._nic.device,
                )
        return None

    def _apply(self, link: VfLink, configs: Sequence[VfConfig]) -> list[VfRefusal]:
        """Make settings, those again that the driver refuses because a VF is resetting, and return what it refused."""
        requests = []
        refused: list[VfRefusal] = []
        for config in configs:
            rtnetlink, mac = self._by_way(config)
            requests.append(VfRequest(config=rtnetlink))
            if mac is not None and (error := self._set_port_mac(config.vf, mac)) is not None:
                refused.append(error)
        by_vf = {config.vf: config for config in configs}
        deadline_s = self._nic.context.monotonic_s() + BUSY_TIMEOUT_S
        while True:
            answers = link.apply(requests)
            busy = [
                one
                for one in answers
                if isinstance(self.refused(one.error, by_vf[one.vf], one.setting.value), DeviceBusyError)
            ]
            refused += [one for one in answers if one not in busy]
            if not busy:
                return refused
            if self._nic.context.monotonic_s() >= deadline_s:
                return [*refused, *busy]
            self._nic.context.sleep_s(POLL_S)
            requests = [
                VfRequest(
                    config=VfConfig(
                        vf=one.vf, **{one.setting.value: getattr(by_vf[one.vf], one.setting.value)}
                    )
                )
                for one in busy
            ]

    def _set_port_mac(self, vf: int, mac: int) -> VfRefusal | None:
        from nicoffload.kernel.vf import VfSetting  # noqa: PLC0415

        try:
            with Devlink(self._nic.kernel) as devlink:
                devlink.set_function(self._nic.place.handle, self._port_of(vf), hw_addr=mac)
        except NicOffloadError as error:
            return VfRefusal(vf=vf, setting=VfSetting.MAC, error=error)
        return None

    def _before(self, there: int) -> dict[int, VfReport]:
        """Return how the VFs are, with the addresses that rtnetlink does not know where devlink sets them."""
        reports = self._reports()
        if self._facts().mac.via != "devlink":
            return reports
        macs = self._port_macs()
        return {
            vf: dataclasses.replace(reports.get(vf, VfReport(vf=vf)), mac=macs.get(vf)) for vf in range(there)
        }

    def _take_back(
        self,
        link: VfLink,
        config: VfConfig,
        refused: Sequence[VfRefusal],
        reports: Mapping[int, VfReport],
    ) -> NicOffloadError:
        """Undo what was made of a config of which a part was refused, and return why it was."""
        names = {one.setting.value for one in refused}
        before = reports.get(config.vf)
        made = [name for name in SETTINGS if getattr(config, name) is not None and name not in names]
        values: dict[str, Any] = {name: getattr(before, name, None) for name in made}
        left = [one.setting.value for one in self._apply(link, [VfConfig(vf=config.vf, **values)])]
        left += [name for name, value in values.items() if value is None]
        first = refused[0]
        error = self.refused(first.error, config, first.setting.value)
        if error is not first.error and error.__cause__ is None:
            error.__cause__ = first.error
        if left:
            error.add_note(
                f"VF {config.vf}: {', '.join(left)} may be as asked for; the old value could not be set"
            )
        return error


_UNTOLD = VfReport(vf=0)
"""What is known of a VF that the driver could not describe."""


def _reported(setting: Setting, value: Any) -> Any:
    """Return what is reported of a setting; None where the driver has none: Linux has defaults of its own then."""
    return None if setting.supported == "no" else value


def rate_limit(low: int | None, high: int | None) -> RateLimit:
    """Return rates as read, of which 0 says none; a guarantee above the limit is told as the limit."""
    low, high = low or None, high or None
    return RateLimit(min_tx_bps=min(low, high) if low and high else low, max_tx_bps=high)
