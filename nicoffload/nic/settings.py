"""Changes of settings: how many VFs there are, how each is set, how fast each may send, which tables are on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from nicoffload.driver.contract import Driver, FlowFilters, RateControl, TableState, VirtualFunctions
from nicoffload.errors import NicOffloadError, PluginContractError, VerificationError
from nicoffload.model import RateLimit, RateReport, VfConfig, VfState, VlanTag
from nicoffload.nic.journal import LeaseRow, StepIntent
from nicoffload.nic.leases import LeaseDesk
from nicoffload.nic.rate_check import check_rates, in_steps
from nicoffload.nic.records import decode_config, decode_count, decode_mode, decode_rate, encode_setting
from nicoffload.nic.retry import Retry, first_error
from nicoffload.nic.transaction import Change, Undone
from nicoffload.profiles.types import Rates

SETTINGS = ("mac", "vlan", "spoof_check", "trust", "link_state")
VF_COUNT, VF_CONFIG, RATE, MODE = "vf_count", "vf_config", "rate", "mode"
KEEP_CONFIG, KEEP_RATE, KEEP_TABLE = "keep_config", "keep_rate", "keep_table"
"""What is lost when the number of VFs changes, and comes back when that is undone: settings, and tables that are on."""
_TABLE = "table:"


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
        desk: The leases; they end.
        later: How many there are to be when the transaction is over, where `VfsAgain` makes them; None for `count`.
    """

    def __init__(
        self,
        driver: Driver,
        retry: Retry,
        vfs: VirtualFunctions,
        count: int,
        desk: LeaseDesk,
        *,
        later: int | None = None,
    ) -> None:
        super().__init__(driver, retry)
        self.title = f"make {count} VFs"
        self._vfs = vfs
        self._count = count
        self._desk = desk
        self._ended: Mapping[int, LeaseRow] = {}
        states = vfs.states()
        self._before = len(states)
        reports = driver.rates.read() if driver.rates else ()
        tables = driver.flow_filters.tables() if driver.flow_filters else ()
        # Undone from the last to the first: the VFs must be there before they are set.
        self._steps = (
            *(
                _kept(KEEP_TABLE, f"{_TABLE}{state.table.name}", None)
                for state in tables
                if state.on_each_vf and not state.blocked
            ),
            *(_kept(KEEP_RATE, f"vf:{report.vf}/rate", rate_of(report)) for report in reports),
            *(_kept(KEEP_CONFIG, f"vf:{state.vf}", _all_of(state)) for state in states),
            StepIntent(
                kind=VF_COUNT,
                target="vfs",
                before=encode_setting(len(states)),
                after=encode_setting(count if later is None else later),
            ),
        )

    def apply(self) -> None:
        """Make them, and count them."""
        self._ended = self._desk.end_all()
        _make(self._driver, self._vfs, self._count, self._retry)
        self._desk.made_anew()

    def undo(self) -> Undone:
        """Make as many as there were, as they were; leases go on only where no VF was taken away."""
        untouched = len(self._vfs.states()) == self._before
        undone = super().undo()
        if untouched:
            self._desk.go_on(self._ended)
        else:
            self._desk.made_anew()
        return undone


class VfsAgain(Change):
    """Makes the VFs that a `VfCountChange` of the same transaction took away. That one holds what undoing takes.

    Args:
        driver: The NIC; it has VFs.
        retry: How often to ask it while it is busy.
        vfs: Its VFs.
        count: How many there are to be.
    """

    def __init__(self, driver: Driver, retry: Retry, vfs: VirtualFunctions, count: int) -> None:
        self.title = f"make {count} VFs"
        self._driver = driver
        self._retry = retry
        self._vfs = vfs
        self._count = count

    def apply(self) -> None:
        """Make them, and count them."""
        _make(self._driver, self._vfs, self._count, self._retry)

    def undo(self) -> Undone:
        """Leave it to the change that took them away."""
        return Undone()


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


class EnableTable(SettingsChange):
    """Turns on what a table needs. The mode of the switch is set back when the transaction fails; a feature stays on.

    Args:
        driver: The NIC; it has flow filters.
        retry: How often to ask it while it is busy.
        filters: Its tables.
        state: The table as it is before.
        then: Is called when the table is on.
    """

    def __init__(
        self, driver: Driver, retry: Retry, filters: FlowFilters, state: TableState, then: Callable[[], None]
    ) -> None:
        super().__init__(driver, retry)
        self._name = state.table.name
        self.title = f"enable table {self._name}"
        self._filters = filters
        self._then = then
        now = filters.mode() if state.mode else ""
        if now:
            before, after = encode_setting(now), encode_setting(state.mode)
            self._steps = (StepIntent(kind=MODE, target="mode", before=before, after=after),)
        feature = state.table.needs.feature
        self._kept = f"{feature} may stay on" if self._steps and feature else ""
        if not self._steps:
            self._kept = f"table {self._name} stays enabled"

    def apply(self) -> None:
        """Turn it on, and look whether it takes rules."""
        self._retry.call(lambda: self._filters.enable_table(self._name))
        blocked = next(state.blocked for state in self._filters.tables() if state.table.name == self._name)
        if blocked:
            raise VerificationError(
                f"the call that enables table {self._name} succeeded, and it is still blocked: {blocked[0]}",
                expected="not blocked",
                actual=str(blocked[0]),
                device=self._driver.info.name,
            )
        self._then()

    def undo(self) -> Undone:
        """Set the mode back. A feature stays on: a table that is on and empty takes nothing from anybody."""
        undone = super().undo()
        return replace(undone, kept=(self._kept,) if self._kept else ())


def _make(driver: Driver, vfs: VirtualFunctions, count: int, retry: Retry) -> None:
    retry.call(lambda: vfs.set_count(count))
    found = len(vfs.states())
    if found != count:
        raise VerificationError(
            "the call that makes VFs succeeded, and their number is another",
            expected=str(count),
            actual=str(found),
            device=driver.info.name,
        )


def as_it_was(config: VfConfig, state: VfState) -> VfConfig:
    """Return the config that sets back what `config` is about to set, as far as the NIC reports it."""
    before = {name: getattr(state, name) for name in SETTINGS if getattr(config, name) is not None}
    return VfConfig(vf=config.vf, **before)


def _all_of(state: VfState) -> VfConfig:
    return VfConfig(vf=state.vf, **{name: getattr(state, name) for name in SETTINGS})


def _kept(kind: str, target: str, value: VfConfig | RateLimit | None) -> StepIntent:
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
    if step.kind in (KEEP_CONFIG, KEEP_RATE, KEEP_TABLE):
        return True
    if step.kind == MODE and driver.flow_filters:
        return driver.flow_filters.mode() == decode_mode(step.after)
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
        if step.kind == MODE and driver.flow_filters:
            return _undo_mode(driver, driver.flow_filters, step, retry)
        if step.kind == KEEP_TABLE and driver.flow_filters:
            return _table_back(driver.flow_filters, step.target.removeprefix(_TABLE), retry)
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


def needs_no_vfs(driver: Driver) -> bool:
    """Tell whether a NIC's switch changes its mode only while there are no VFs, by its profile."""
    eswitch = driver.profile.eswitch
    return eswitch is not None and bool(eswitch.errors.get("vfs_present"))


def _undo_mode(driver: Driver, filters: FlowFilters, step: StepIntent, retry: Retry) -> str:
    """Set the mode back. VFs in the way go: the transaction made them, and undoing it makes those that there were."""
    before, after = decode_mode(step.before), decode_mode(step.after)
    if filters.mode() != after:
        return ""
    vfs = driver.virtual_functions
    if vfs is not None and needs_no_vfs(driver) and vfs.states():
        retry.call(lambda: vfs.set_count(0))
    retry.call(lambda: filters.set_mode(before))
    found = filters.mode()
    return "" if found == before else f"the switch is in {found} mode, and was in {before}"


def _table_back(filters: FlowFilters, name: str, retry: Retry) -> str:
    """Enable a table that was on: the VFs that were made since came with what it needs turned off."""
    state = next((state for state in filters.tables() if state.table.name == name), None)
    if state is None or not state.blocked or state.mode:
        return ""
    retry.call(lambda: filters.enable_table(name))
    return ""


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
    if vf not in {report.vf for report in rates.read()}:
        return ""  # as with its settings
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
