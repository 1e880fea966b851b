"""Changes of settings: how many VFs there are, how each is set, how fast each may send, which tables are on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from nicoffload.driver.contract import Driver, FlowFilters, RateControl, VirtualFunctions
from nicoffload.errors import NicOffloadError, PluginContractError, VerificationError
from nicoffload.model import RateLimit, RateReport, VfConfig, VfState, VlanTag
from nicoffload.nic.journal import StepIntent
from nicoffload.nic.rate_check import check_rates, in_steps
from nicoffload.nic.records import decode_config, decode_count, decode_rate, encode_setting
from nicoffload.nic.retry import Retry, first_error
from nicoffload.nic.transaction import Change, Undone
from nicoffload.profiles.types import Rates

SETTINGS = ("mac", "vlan", "spoof_check", "trust", "link_state")
VF_COUNT, VF_CONFIG, RATE = "vf_count", "vf_config", "rate"
KEEP_CONFIG, KEEP_RATE = "keep_config", "keep_rate"
"""Settings of VFs that are lost when their number changes, and come back when that is undone."""


class SettingsChange(Change):
    """A change that is undone setting by setting.

    Args:
        driver: The NIC.
        retry: How often to ask it while it is busy.
    """

    def __init__(self, driver: Driver, retry: Retry) -> None:
        self._driver = driver
        self._retry = retry
        self._steps: tuple[StepIntent, ...] = ()

    def step_intents(self) -> Sequence[StepIntent]:
        """Return what it does to settings."""
        return self._steps

    def undo(self) -> Undone:
        """Set what was set back, as far as it is as this change left it."""
        residue: list[str] = []
        stuck: list[str] = []
        for step in reversed(self._steps):
            problem = undo_step(self._driver, step, self._retry)
            if problem:
                residue.append(problem)
                stuck.append(step.target)
        return Undone(stuck_steps=tuple(stuck), residue=tuple(residue))


class VfCountChange(SettingsChange):
    """Makes so many VFs exist.

    Args:
        driver: The NIC; it has VFs.
        retry: How often to ask it while it is busy.
        vfs: Its VFs.
        count: How many there are to be.
    """

    def __init__(self, driver: Driver, retry: Retry, vfs: VirtualFunctions, count: int) -> None:
        super().__init__(driver, retry)
        self.title = f"make {count} VFs"
        self._vfs = vfs
        self._count = count
        states = vfs.states()
        reports = driver.rates.read() if driver.rates else ()
        # Undone from the last to the first: the VFs must be there before they are set.
        self._steps = (
            *(_kept(KEEP_RATE, f"vf:{report.vf}/rate", rate_of(report)) for report in reports),
            *(_kept(KEEP_CONFIG, f"vf:{state.vf}", _all_of(state)) for state in states),
            StepIntent(
                kind=VF_COUNT, target="vfs", before=encode_setting(len(states)), after=encode_setting(count)
            ),
        )

    def apply(self) -> None:
        """Make them, and count them."""
        self._retry.call(lambda: self._vfs.set_count(self._count))
        found = len(self._vfs.states())
        if found != self._count:
            raise VerificationError(
                "the call that makes VFs succeeded, and their number is another",
                expected=str(self._count),
                actual=str(found),
                device=self._driver.info.name,
            )


class VfConfigChange(SettingsChange):
    """Sets VFs.

    Args:
        driver: The NIC; it has VFs.
        retry: How often to ask it while it is busy.
        vfs: Its VFs.
        configs: One entry a VF; their VFs exist.
        states: The VFs as they are, by index; a VF that is made by an earlier change of the same transaction is
            not there, and needs no undoing.
    """

    def __init__(
        self,
        driver: Driver,
        retry: Retry,
        vfs: VirtualFunctions,
        configs: Sequence[VfConfig],
        states: Mapping[int, VfState],
    ) -> None:
        super().__init__(driver, retry)
        self.title = f"set {', '.join(f'VF {config.vf}' for config in configs)}"
        self._vfs = vfs
        self._configs = configs
        self._steps = tuple(
            StepIntent(
                kind=VF_CONFIG,
                target=f"vf:{config.vf}",
                before=encode_setting(as_it_was(config, states[config.vf])),
                after=encode_setting(config),
            )
            for config in configs
            if config.vf in states
        )

    def apply(self) -> None:
        """Set them and read them back."""
        error = first_error(self._retry.bulk(self._vfs.configure_many, self._configs, "configure_many"))
        if error is not None:
            raise error
        states = {state.vf: state for state in self._vfs.states()}
        for config in self._configs:
            for name, want, got in differences(config, states[config.vf]):
                raise VerificationError(
                    f"the call that sets VF {config.vf} succeeded, and {name} reads back as {got}, not {want}",
                    expected=str(want),
                    actual=str(got),
                    path=f"/{name}",
                    device=self._driver.info.name,
                )


class RateChange(SettingsChange):
    """Sets transmit rates.

    Args:
        driver: The NIC; it has rates.
        retry: How often to ask it while it is busy.
        rates: Its rates.
        limits: VF index to its rates.
    """

    def __init__(
        self, driver: Driver, retry: Retry, rates: RateControl, limits: Mapping[int, RateLimit]
    ) -> None:
        super().__init__(driver, retry)
        check_rates(limits, driver.profile.rates, driver.info.name)
        self.title = f"set the rates of {', '.join(f'VF {vf}' for vf in sorted(limits))}"
        self.reports: tuple[RateReport, ...] = ()
        self._rates = rates
        self._limits = limits
        before = {report.vf: report for report in rates.read()}
        self._steps = tuple(
            StepIntent(
                kind=RATE,
                target=f"vf:{vf}/rate",
                before=encode_setting(rate_of(before[vf])),
                after=encode_setting(limit),
            )
            for vf, limit in sorted(limits.items())
            if vf in before
        )

    def apply(self) -> None:
        """Set them and read them back."""
        reports = set_rates(self._rates, self._limits, self._retry)
        read = {report.vf: report for report in self._rates.read()}
        for vf, report in reports.items():
            fresh = read.get(vf, report)
            problem = rate_difference(report, fresh, self._driver.profile.rates)
            if problem:
                raise VerificationError(
                    f"the call that sets the rates of VF {vf} succeeded, and {problem}",
                    expected=f"requested {report.requested}, of which {report.applied} can be",
                    actual=str(fresh.read_back),
                    device=self._driver.info.name,
                )
        self.reports = tuple(reports[vf] for vf in sorted(reports))


class EnableTable(Change):
    """Turns on what a table needs. It is left on when the transaction fails: a driver has no call to turn it off.

    Args:
        filters: The tables.
        name: Which.
        retry: How often to ask a busy NIC.
        device: The NIC, for errors.
        then: Is called when the table is on.
    """

    def __init__(
        self, filters: FlowFilters, name: str, retry: Retry, device: str, then: Callable[[], None]
    ) -> None:
        self.title = f"enable table {name}"
        self._filters = filters
        self._name = name
        self._retry = retry
        self._device = device
        self._then = then

    def apply(self) -> None:
        """Turn it on, and look whether it takes rules."""
        self._retry.call(lambda: self._filters.enable_table(self._name))
        blocked = next(state.blocked for state in self._filters.tables() if state.table.name == self._name)
        if blocked:
            raise VerificationError(
                f"the call that enables table {self._name} succeeded, and it is still blocked: {blocked[0]}",
                expected="not blocked",
                actual=str(blocked[0]),
                device=self._device,
            )
        self._then()

    def undo(self) -> Undone:
        """Leave it on: an empty table that is on takes nothing from anybody."""
        return Undone(kept=(f"table {self._name} stays enabled",))


def as_it_was(config: VfConfig, state: VfState) -> VfConfig:
    """Return the config that sets back what `config` is about to set, as far as the NIC reports it."""
    before = {name: getattr(state, name) for name in SETTINGS if getattr(config, name) is not None}
    return VfConfig(vf=config.vf, **before)


def _all_of(state: VfState) -> VfConfig:
    return VfConfig(vf=state.vf, **{name: getattr(state, name) for name in SETTINGS})


def _kept(kind: str, target: str, value: VfConfig | RateLimit) -> StepIntent:
    return StepIntent(kind=kind, target=target, before=encode_setting(value), after=encode_setting(None))


def differences(config: VfConfig, state: VfState) -> Sequence[tuple[str, object, object]]:
    """Return the settings of a config that are not in force: name, wanted, found. What is not reported can't differ."""
    found = []
    for name in SETTINGS:
        want, got = getattr(config, name), getattr(state, name)
        if want is not None and got is not None and _plain_vlan(want) != _plain_vlan(got):
            found.append((name, want, got))
    return found


def _plain_vlan(value: object) -> object:
    """Return a value, with all ways to say "no VLAN" made one."""
    return None if isinstance(value, VlanTag) and not value.vid and not value.pcp else value


def rate_of(report: RateReport) -> RateLimit:
    """Return the rates that a VF has; one of which nothing is known was never given any."""
    return report.read_back or report.applied or report.requested or RateLimit()


def set_rates(rates: RateControl, limits: Mapping[int, RateLimit], retry: Retry) -> Mapping[int, RateReport]:
    """Set rates and return what became of them.

    Raises:
        NicOffloadError: The first that was refused.
        PluginContractError: The driver did not answer for every VF.
    """

    def call(vfs: Sequence[int]) -> Sequence[RateReport | NicOffloadError]:
        answers = rates.set_many({vf: limits[vf] for vf in vfs})
        if set(answers) != set(vfs):
            raise PluginContractError(
                f"the driver's set_many answered for {sorted(answers)}, not {list(vfs)}"
            )
        return [answers[vf] for vf in vfs]

    answers = retry.bulk(call, sorted(limits), "set_many")
    error = first_error(answers)
    if error is not None:
        raise error
    return {answer.vf: answer for answer in answers if isinstance(answer, RateReport)}


def rate_difference(report: RateReport, read: RateReport, facts: Rates) -> str:
    """Return how what is read back differs from what it should be, by the profile; empty where it does not."""
    if read.read_back is None:
        return ""
    for name, kind in (("min_tx_bps", facts.min_tx), ("max_tx_bps", facts.max_tx)):
        source = {"applied": report.applied, "requested": report.requested}.get(kind.read_back)
        if kind.supported == "no" or source is None:
            continue
        want, got = getattr(source, name), getattr(read.read_back, name)
        if want is not None and kind.read_back == "requested":
            want = in_steps(want, kind)
        if want != got:
            return f"{name} reads back as {got}, not {want}"
    return ""


def steps_done(driver: Driver, steps: Sequence[StepIntent]) -> bool:
    """Tell whether all settings of a change are in force."""
    return all(_is_done(driver, step) for step in steps)


def _is_done(driver: Driver, step: StepIntent) -> bool:
    if step.kind == VF_COUNT and driver.virtual_functions:
        return len(driver.virtual_functions.states()) == decode_count(step.after)
    if step.kind == VF_CONFIG and driver.virtual_functions:
        config = decode_config(step.after)
        state = _state(driver.virtual_functions, config.vf)
        return state is not None and not differences(config, state)
    if step.kind in (KEEP_CONFIG, KEEP_RATE):
        return True
    if step.kind == RATE and driver.rates:
        return _rate_now(driver.rates, _vf_of(step)) == decode_rate(step.after)
    return False


def undo_step(driver: Driver, step: StepIntent, retry: Retry) -> str:
    """Set one setting back, unless it is neither as before nor as the change left it: then it is another's.

    Returns:
        What is left behind, in words; empty when all is as before.
    """
    try:
        if step.kind == VF_COUNT and driver.virtual_functions:
            return _undo_count(driver.virtual_functions, step, retry)
        if step.kind == VF_CONFIG and driver.virtual_functions:
            return _undo_config(driver, driver.virtual_functions, step, retry)
        if step.kind == KEEP_CONFIG and driver.virtual_functions:
            return _set_back(driver.virtual_functions, decode_config(step.before), frozenset(SETTINGS), retry)
        if step.kind in (RATE, KEEP_RATE) and driver.rates:
            return _undo_rate(driver.rates, step, retry)
    except NicOffloadError as cause:
        return f"{step.target}: {cause}"
    return f"{step.target}: the NIC has no such setting any more"


def _undo_count(vfs: VirtualFunctions, step: StepIntent, retry: Retry) -> str:
    before = decode_count(step.before)
    if len(vfs.states()) != before:
        retry.call(lambda: vfs.set_count(before))
    found = len(vfs.states())
    return "" if found == before else f"there are {found} VFs, and there were {before}"


def _undo_config(driver: Driver, vfs: VirtualFunctions, step: StepIntent, retry: Retry) -> str:
    before, after = decode_config(step.before), decode_config(step.after)
    state = _state(vfs, before.vf)
    if state is None:
        return ""  # the VF went with a change of their number, and its settings with it
    still_mine = frozenset(SETTINGS) - {name for name, _, _ in differences(after, state)}
    problem = _set_back(vfs, before, still_mine, retry)
    unknown = [
        name
        for name in SETTINGS
        if getattr(after, name) is not None and getattr(before, name) is None and not _is_absent(driver, name)
    ]
    if unknown and not problem:
        return f"VF {before.vf}: the NIC does not report {', '.join(unknown)}, so it may be as asked for"
    return problem


def _is_absent(driver: Driver, setting: str) -> bool:
    """Tell whether a NIC has no such setting, by its profile: it was refused then, and nothing is to be undone."""
    facts = driver.profile.vf
    return facts is not None and getattr(facts, setting).supported == "no"


def _set_back(vfs: VirtualFunctions, before: VfConfig, names: frozenset[str], retry: Retry) -> str:
    """Set back those of some settings that differ, and return what is left behind."""
    state = _state(vfs, before.vf)
    if state is None:
        return ""
    changed: dict[str, Any] = {name: want for name, want, _ in differences(before, state) if name in names}
    if not changed:
        return ""
    config = VfConfig(vf=before.vf, **changed)
    error = first_error(retry.bulk(vfs.configure_many, [config], "configure_many"))
    state = _state(vfs, before.vf)
    left = differences(config, state) if state is not None else ()
    if error is not None or left:
        return f"VF {before.vf}: {error or ', '.join(name for name, _, _ in left) + ' could not be set back'}"
    return ""


def _undo_rate(rates: RateControl, step: StepIntent, retry: Retry) -> str:
    vf = _vf_of(step)
    before = decode_rate(step.before) or RateLimit()
    if _rate_now(rates, vf) == before:
        return ""
    set_rates(rates, {vf: before}, retry)
    found = _rate_now(rates, vf)
    return "" if found in (None, before) else f"VF {vf}: its rates are {found}, and were {before}"


def _vf_of(step: StepIntent) -> int:
    return int(step.target.removeprefix("vf:").removesuffix("/rate"))


def _rate_now(rates: RateControl, vf: int) -> RateLimit | None:
    return next((report.read_back for report in rates.read() if report.vf == vf), None)


def _state(vfs: VirtualFunctions, vf: int) -> VfState | None:
    return next((state for state in vfs.states() if state.vf == vf), None)
