"""Puts a NIC that is not the kit's own back into the state in which it was found."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from nicoffload.driver import Driver, RuleRef
from nicoffload.errors import NicOffloadError, NotFoundError
from nicoffload.model import RateLimit, VfConfig, VfState
from nicoffload.nic.retry import Retry

_SETTINGS = ("mac", "vlan", "spoof_check", "trust", "link_state")


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A NIC as it was found.

    Args:
        vfs: Its VFs.
        rates: VF index to its rates.
        rules: How many rules each table held.
    """

    vfs: tuple[VfState, ...]
    rates: tuple[tuple[int, RateLimit], ...]
    rules: tuple[tuple[str, int], ...]

    @property
    def configs(self) -> tuple[VfConfig, ...]:
        """The settings that bring the VFs back to this state."""
        return tuple(
            VfConfig(vf=state.vf, **{name: getattr(state, name) for name in _SETTINGS}) for state in self.vfs
        )

    @property
    def limits(self) -> Mapping[int, RateLimit]:
        """VF index to its rates."""
        return dict(self.rates)


def look(driver: Driver) -> Found:
    """Return what a NIC is like. Changes nothing."""
    vfs = driver.virtual_functions.states() if driver.virtual_functions is not None else ()
    rates = []
    if driver.rates is not None:
        for report in driver.rates.read():
            kept = report.read_back if report.read_back is not None else report.applied
            if kept is not None:
                rates.append((report.vf, kept))
    counted: dict[str, int] = {}
    if driver.flow_filters is not None:
        for each in driver.flow_filters.dump():
            counted[each.ref.table] = counted.get(each.ref.table, 0) + 1
    return Found(vfs=tuple(vfs), rates=tuple(rates), rules=tuple(sorted(counted.items())))


def put_back(
    driver: Driver, found: Found, made: Sequence[RuleRef], retry: Retry, sleep_s: Callable[[float], None]
) -> list[str]:
    """Undo what a behaviour did, as far as the driver lets us.

    Args:
        driver: The NIC.
        found: How it was.
        made: The rules that the behaviour installed, those that are gone included.
        retry: How often to ask a busy NIC.
        sleep_s: Waits that many seconds.

    Returns:
        What could not be put back, in words.
    """
    residue = [*_remove(driver, made), *_vfs(driver, found, retry, sleep_s), *_rates(driver, found)]
    try:
        after = look(driver)
    except NicOffloadError as error:
        return [*residue, f"the NIC can't be read: {error}"]
    if after.rules != found.rules:
        residue.append(f"rules by table: {dict(found.rules)} before, {dict(after.rules)} after")
    if len(after.vfs) != len(found.vfs):
        residue.append(f"{len(found.vfs)} VFs before, {len(after.vfs)} after")
    return residue


def _remove(driver: Driver, made: Sequence[RuleRef]) -> list[str]:
    filters = driver.flow_filters
    if filters is None or not made:
        return []
    try:
        answers = filters.destroy_many(list(dict.fromkeys(made)))
    except NicOffloadError as error:
        return [f"rules could not be removed: {error}"]
    return [
        f"a rule could not be removed: {answer}"
        for answer in answers
        if answer is not None and not isinstance(answer, NotFoundError)
    ]


def _vfs(driver: Driver, found: Found, retry: Retry, sleep_s: Callable[[float], None]) -> list[str]:
    vfs = driver.virtual_functions
    if vfs is None:
        return []
    residue = []
    try:
        if len(vfs.states()) != len(found.vfs):
            retry.call(lambda: vfs.set_count(len(found.vfs)))
        sleep_s(0.0)
        now = {state.vf: state for state in vfs.states()}
        configs = [
            config
            for state in found.vfs
            if state.vf in now and (config := _difference(state, now[state.vf])) is not None
        ]
        answers = retry.bulk(vfs.configure_many, configs, "configure_many") if configs else []
        residue += [f"settings of a VF: {answer}" for answer in answers if answer is not None]
        for state in found.vfs:
            if state.vf in now and state.driver != now[state.vf].driver:
                vfs.bind(state.vf, state.driver)
    except NicOffloadError as error:
        residue.append(f"VFs: {error}")
    return residue


def _difference(before: VfState, now: VfState) -> VfConfig | None:
    """Return the settings that are not as they were; an address that was none is left to the VF."""
    changed = {
        name: getattr(before, name)
        for name in _SETTINGS
        if getattr(before, name) is not None and getattr(before, name) != getattr(now, name)
    }
    return VfConfig(vf=before.vf, **changed) if changed else None


def _rates(driver: Driver, found: Found) -> list[str]:
    if driver.rates is None or not found.rates:
        return []
    try:
        now = {report.vf: report.read_back or report.applied for report in driver.rates.read()}
        changed = {vf: limit for vf, limit in found.rates if vf in now and now[vf] != limit}
        answers = driver.rates.set_many(changed) if changed else {}
    except NicOffloadError as error:
        return [f"rates: {error}"]
    return [
        f"rates of VF {vf}: {answer}" for vf, answer in answers.items() if isinstance(answer, NicOffloadError)
    ]
