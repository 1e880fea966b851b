"""Tries behaviours on a NIC, one after the other, and leaves it as it was."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version

from nicoffload.errors import ConflictError
from nicoffload.profiles.types import NicProfile
from nicoffload.testing.conformance.behaviour import Behaviour
from nicoffload.testing.conformance.bench import Bench
from nicoffload.testing.conformance.catalogue import CATALOGUE
from nicoffload.testing.conformance.expected import ExpectedFailure, judged
from nicoffload.testing.conformance.outcome import Broken, CaseResult, NotApplicable, NotShown, Verdict
from nicoffload.testing.conformance.report import Report
from nicoffload.testing.conformance.under_test import Ground, NicUnderTest

Progress = Callable[[int, int, str], None]
"""Called after each behaviour: how many are done, of how many, and its number."""


def run(
    under_test: NicUnderTest,
    behaviours: Sequence[Behaviour] = CATALOGUE,
    *,
    expected: Sequence[ExpectedFailure] = (),
    disruptive: bool = False,
    progress: Progress | None = None,
    wall_clock_s: Callable[[], float] = time.time,
) -> Report:
    """Try behaviours on a NIC.

    Args:
        under_test: The NIC.
        behaviours: Which.
        expected: Failures that the plugin expects.
        disruptive: Whether a NIC that is in use may be disturbed.
        progress: Is told of each behaviour that was tried.
        wall_clock_s: Seconds since the epoch.

    Raises:
        ConflictError: The NIC is in use, and `disruptive` is not given.
        NicOffloadError: It can't be opened.
    """
    started_s = wall_clock_s()
    driver = under_test.open_driver()
    try:
        info, profile, ground = driver.info, driver.profile, under_test.ground_of(driver)
        if not under_test.disposable and not disruptive:
            refuse_in_use(under_test, in_use(under_test))
    finally:
        driver.close()
    results: list[CaseResult] = []
    residue: list[str] = []
    for done, behaviour in enumerate(behaviours, 1):
        found, left = try_behaviour(under_test, behaviour, profile)
        results += found
        residue += left
        if progress is not None:
            progress(done, len(behaviours), behaviour.number)
    cases, unused = judged(results, expected, profile.family)
    return Report(
        nic=under_test.name,
        family=profile.family,
        title=profile.title,
        plugin=info.plugin,
        driver=info.driver,
        ground=ground,
        kernel="" if ground is Ground.EMULATOR else os.uname().release,
        version=version("nicoffload"),
        time_s=started_s,
        cases=cases,
        residue=tuple(residue),
        unused=unused,
    )


def try_behaviour(
    under_test: NicUnderTest, behaviour: Behaviour, profile: NicProfile
) -> tuple[list[CaseResult], list[str]]:
    """Try one behaviour on each of its parts.

    Returns:
        One result a part, and what could not be put back.
    """
    parts = behaviour.parts(profile)
    if not parts:
        reason = f"the profile of {profile.family} declares nothing that it is about"
        return [
            CaseResult(behaviour=behaviour.number, part="", verdict=Verdict.NOT_APPLICABLE, reason=reason)
        ], []
    results, residue = [], []
    for part in parts:
        result, left = _try_part(under_test, behaviour, part)
        results.append(result)
        residue += [f"{result.name}: {text}" for text in left]
    return results, residue


def _try_part(under_test: NicUnderTest, behaviour: Behaviour, part: str) -> tuple[CaseResult, Sequence[str]]:
    started = time.monotonic()
    verdict, reason, left = Verdict.PASSED, "", []
    try:
        bench = Bench(under_test, part)
    except Exception as fault:  # noqa: BLE001 - whatever a plugin raises is a result
        verdict, reason = Verdict.FAILED, f"the NIC can't be opened: {_text(fault)}"
    else:
        try:
            behaviour.check(bench)
        except Broken as fault:
            verdict, reason = Verdict.FAILED, str(fault)
        except NotShown as fault:
            verdict, reason = Verdict.NOT_SHOWN, str(fault)
        except NotApplicable as fault:
            verdict, reason = Verdict.NOT_APPLICABLE, str(fault)
        except Exception as fault:  # noqa: BLE001 - likewise
            verdict, reason = Verdict.FAILED, f"it raised {_text(fault)}"
        finally:
            left = _closed(bench)
    return (
        CaseResult(
            behaviour=behaviour.number,
            part=part,
            verdict=verdict,
            reason=reason,
            duration_s=time.monotonic() - started,
        ),
        left,
    )


def _closed(bench: Bench) -> list[str]:
    try:
        return list(bench.close())
    except Exception as fault:  # noqa: BLE001 - likewise
        return [f"putting the NIC back raised {_text(fault)}"]


def _text(fault: BaseException) -> str:
    return f"{type(fault).__name__}: {fault}"


def in_use(under_test: NicUnderTest) -> Sequence[str]:
    """Return what says that somebody uses a NIC, in words; empty where nothing does. Changes nothing."""
    driver = under_test.open_driver()
    try:
        found = []
        if driver.virtual_functions is not None and (states := driver.virtual_functions.states()):
            found.append(f"{len(states)} VFs exist")
        if driver.flow_filters is not None and (rules := driver.flow_filters.dump()):
            found.append(f"{len(rules)} rules are installed")
        return found
    finally:
        driver.close()


def refuse_in_use(under_test: NicUnderTest, why: Sequence[str]) -> None:
    """Raise unless nothing says that a NIC is in use.

    Raises:
        ConflictError: It is in use.
    """
    if why:
        raise ConflictError(
            f"the NIC is in use: {', '.join(why)}",
            existing=why[0],
            device=under_test.name,
            hint="the kit makes and removes rules and VFs; give --disruptive to let it, or free the NIC first",
        )
