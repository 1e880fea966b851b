"""The failures that a plugin's author expects, in a file of the plugin: each with its reason, and none for ever."""

from __future__ import annotations

import tomllib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nicoffload.errors import InvalidRequestError
from nicoffload.testing.conformance.catalogue import CATALOGUE
from nicoffload.testing.conformance.outcome import CaseResult, Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpectedFailure:
    """One failure that is expected.

    Args:
        case: ``FL-05`` for all parts of a behaviour, or ``FL-05[fdir]`` for one.
        family: The NIC family that it is about; empty for all, of which each must have the part.
        reason: Why it fails, for people.
    """

    case: str
    family: str
    reason: str


def load_expected_failures(path: Path) -> tuple[ExpectedFailure, ...]:
    """Return the failures of a file.

    The file is TOML: ``[[failure]]`` with ``case``, ``reason`` and, where it is about one family only, ``family``.

    Raises:
        InvalidRequestError: The file can't be read, or an entry lacks its reason or names no behaviour.
    """
    try:
        document = tomllib.loads(path.read_text("utf-8"))
    except OSError as cause:
        raise InvalidRequestError(f"{path}: {cause.strerror}", path="expected_failures") from cause
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as cause:
        raise InvalidRequestError(f"{path} is no TOML: {cause}", path="expected_failures") from cause
    entries = document.pop("failure", [])
    if document or not isinstance(entries, list):
        raise InvalidRequestError(
            f"{path} has something else than [[failure]] entries", path="expected_failures"
        )
    return tuple(_entry(entry, f"/failure/{at}", path) for at, entry in enumerate(entries))


def _entry(entry: object, where: str, path: Path) -> ExpectedFailure:
    if not isinstance(entry, Mapping) or not set(entry) <= {"case", "reason", "family"}:
        raise InvalidRequestError(f"{path}: an entry has case, reason and family", path=where)
    case, reason, family = (str(entry.get(name, "")).strip() for name in ("case", "reason", "family"))
    if not reason:
        raise InvalidRequestError(f"{path}: {case or 'an entry'} has no reason", path=f"{where}/reason")
    if case.partition("[")[0] not in {each.number for each in CATALOGUE}:
        raise InvalidRequestError(
            f"{path}: {case!r} names no behaviour",
            path=f"{where}/case",
            hint="`nicoffload conformance --list` shows them",
        )
    return ExpectedFailure(case=case, family=family, reason=reason)


def judged(
    results: Sequence[CaseResult], expected: Sequence[ExpectedFailure], family: str
) -> tuple[tuple[CaseResult, ...], tuple[str, ...]]:
    """Return results with what was expected taken into account, and the entries that no result was found for.

    Args:
        results: As they came out.
        expected: What the plugin expects.
        family: Of the NIC.
    """
    mine = [each for each in expected if each.family in ("", family)]
    unused = [each for each in mine if not any(_about(each, result) for result in results)]
    failed = {result.behaviour for result in results if result.verdict is Verdict.FAILED}
    return (
        tuple(_judge(result, mine, failed) for result in results),
        tuple(f"{each.case}: {each.reason}" for each in unused),
    )


def _about(entry: ExpectedFailure, result: CaseResult) -> bool:
    return entry.case in (result.name, result.behaviour)


def _judge(result: CaseResult, expected: Sequence[ExpectedFailure], failed: Collection[str]) -> CaseResult:
    """Return a result as it is to be seen; an entry for a whole behaviour is stale where no part of it fails."""
    entry = next((each for each in expected if _about(each, result)), None)
    if entry is None:
        return result
    if result.verdict is Verdict.FAILED:
        verdict, reason = Verdict.EXPECTED_FAILURE, f"{entry.reason} ({result.reason})"
    elif result.verdict is Verdict.PASSED and (entry.case == result.name or entry.case not in failed):
        verdict, reason = (
            Verdict.STALE,
            f"expected to fail ({entry.reason}), and it does not: remove the entry",
        )
    else:
        return result
    return CaseResult(
        behaviour=result.behaviour,
        part=result.part,
        verdict=verdict,
        reason=reason,
        duration_s=result.duration_s,
    )
