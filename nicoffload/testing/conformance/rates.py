"""Rates: what was asked for, what is done and what is reported are three things, and each is told."""

from __future__ import annotations

import math
from typing import Any

from nicoffload.errors import InvalidRequestError, NicOffloadError, NotFoundError, NotSupportedError
from nicoffload.model import RateLimit, RateReport, Support, VfConfig, VlanTag
from nicoffload.profiles.types import NicProfile, Rate
from nicoffload.testing.conformance.behaviour import behaviour, missing_rates, rates, with_rates
from nicoffload.testing.conformance.bench import Bench
from nicoffload.testing.conformance.outcome import Broken

REPEATS = 5
_USUAL_BPS = 100_000_000
_MOST_BPS = 1_600_000_000_000
_REFUSALS = (NotSupportedError, InvalidRequestError)


def _facts(bench: Bench, kind: str = "") -> Rate:
    found: Rate = getattr(bench.profile.rates, kind or bench.part)
    return found


def _step(facts: Rate) -> int:
    return math.lcm(facts.quantum_bps, facts.api_quantum_bps)


def good_bps(facts: Rate, number: int = 1) -> int:
    """Return a rate that the NIC does exactly, by its profile: another one for each number."""
    step = _step(facts)
    low = max(_USUAL_BPS, facts.smallest_bps or 0)
    return (-(-low // step) + number - 1) * step


def expected_applied(bps: int, facts: Rate) -> int | None:
    """Return what the NIC makes of a rate, by its profile; None where it refuses it."""
    asked = max(bps // facts.api_quantum_bps, 1) * facts.api_quantum_bps
    if facts.smallest_bps is not None and asked < facts.smallest_bps:
        if facts.below_smallest == "refuse":
            return None
        asked = facts.smallest_bps
    quantum = facts.quantum_bps
    if asked % quantum == 0:
        return asked
    if facts.rounding == "down":
        return max(asked // quantum, 1) * quantum
    return None if facts.rounding == "refuse" else max((asked + quantum // 2) // quantum, 1) * quantum


def _by_devlink(bench: Bench, bps: int) -> tuple[int, ...]:
    """Return what becomes of a rate where it goes through devlink, which some drivers want in one of their modes."""
    facts = bench.profile.rates.devlink
    if facts is None or not facts.leaf:
        return ()
    whole = bps // facts.quantum_bps * facts.quantum_bps
    return (whole, whole + facts.quantum_bps) if facts.rounding == "nearest" else (whole,)


def _ready(bench: Bench, count: int = 1) -> None:
    """Make VFs, with the port VLAN that some NICs want before a rate takes effect."""
    bench.need_vfs(count)
    bench.settled()
    if any(_facts(bench, kind).needs_port_vlan for kind in ("min_tx", "max_tx")):
        for vf in range(count):
            answers = bench.retry.bulk(
                bench.vfs.configure_many, [VfConfig(vf=vf, vlan=VlanTag(vid=100 + vf))], "configure_many"
            )
            if answers != [None]:
                bench.not_shown(f"the rate needs a port VLAN, which is refused: {answers[0]}")
        bench.settled()


def _limit(kind: str, bps: int | None) -> RateLimit:
    fields: dict[str, Any] = {f"{kind}_bps": bps}
    return RateLimit(**fields)


def _set(bench: Bench, vf: int, limit: RateLimit) -> RateReport | NicOffloadError:
    def call(vfs: Any) -> list[RateReport | NicOffloadError]:
        answers = bench.rates.set_many(dict.fromkeys(vfs, limit))
        bench.same(sorted(answers), sorted(vfs), "VFs that set_many answers for")
        return [answers[each] for each in vfs]

    (answer,) = bench.retry.bulk(call, [vf], "set_many")
    return answer


def _must_set(bench: Bench, vf: int, limit: RateLimit) -> RateReport:
    answer = _set(bench, vf, limit)
    if isinstance(answer, RateReport):
        return answer
    speeds = {speed for kind in ("min_tx", "max_tx") for speed in _facts(bench, kind).link_speeds_bps}
    if speeds:
        bench.not_shown(f"rates work at a link of {sorted(speeds)} bit/s only, and this one says: {answer}")
    if any(_facts(bench, kind).supported == "capability" for kind in ("min_tx", "max_tx")):
        bench.refusal(answer, NotSupportedError, f"{limit}")
        bench.not_shown(f"this part or firmware has no such rate: {answer}")
    raise Broken(f"{limit} is one that the NIC does exactly, and it is refused: {answer!r}")


def _bps(limit: RateLimit | None, kind: str) -> int | None:
    found: int | None = getattr(limit, f"{kind}_bps") if limit is not None else None
    return found


def _check_report(bench: Bench, report: RateReport, asked: int, kind: str) -> None:
    """Compare a report with what the profile says of the rate."""
    facts = _facts(bench, kind)
    applied = _bps(report.applied, kind) if report.applied is not None else None
    if applied is None or applied not in _by_devlink(bench, asked):
        applied = expected_applied(asked, facts)
    bench.same(_bps(report.requested, kind), asked, f"{kind} that was asked for, as reported")
    if report.applied is not None:
        bench.same(_bps(report.applied, kind), applied, f"{kind} that the NIC enforces, as reported")
    in_steps = max(asked // facts.api_quantum_bps, 1) * facts.api_quantum_bps
    wanted = {"applied": applied, "requested": in_steps}.get(facts.read_back)
    if report.read_back is not None:
        bench.same(_bps(report.read_back, kind), wanted, f"{kind} that is read back ({facts.read_back})")
    differ = applied != asked or (report.read_back is not None and _bps(report.read_back, kind) != applied)
    bench.expect(
        report.note or not differ, f"{kind}: {asked} became {applied}, and the report does not say why"
    )


@behaviour("RT-01", "A rate that the NIC can do exactly is done, and reported as it is", each=rates)
def exact(bench: Bench) -> None:
    """Rates in whole steps of NIC and interface: requested, applied and read back are as the profile says."""
    _ready(bench)
    for number in (1, 3, 2):
        asked = good_bps(_facts(bench), number)
        report = _must_set(bench, 0, _limit(bench.part, asked))
        bench.same(report.vf, 0, "the VF of the report")
        _check_report(bench, report, asked, bench.part)
        _check_read(bench, asked)


def _check_read(bench: Bench, asked: int) -> None:
    """Look whether `read()` and the VF's state tell the same as the profile says."""
    report = next(each for each in bench.rates.read() if each.vf == 0)
    facts = _facts(bench)
    wanted = {
        "applied": expected_applied(asked, facts),
        "requested": max(asked // facts.api_quantum_bps, 1) * facts.api_quantum_bps,
    }.get(facts.read_back)
    if report.read_back is not None:
        bench.same(_bps(report.read_back, bench.part), wanted, f"{bench.part} in read()")
    state = bench.vfs.states()[0]
    if state.rate is not None and report.read_back is not None:
        bench.same(state.rate, report.read_back, "the rate in the VF's state, beside that of read()")


def coarse(profile: NicProfile) -> tuple[str, ...]:
    """Tried on each rate of which some values fall between the steps of NIC or interface."""
    return tuple(kind for kind in rates(profile) if _step(getattr(profile.rates, kind)) > 1)


@behaviour(
    "RT-02",
    "A rate between two steps is rounded as the profile says, and the report says so, or it is refused",
    each=coarse,
)
def rounded(bench: Bench) -> None:
    """A rate that is off the steps: the report gives what was asked for, what is done, and in words why they differ. A
    NIC that refuses it keeps the rate before.
    """
    _ready(bench)
    facts = _facts(bench)
    before = good_bps(facts, 1)
    _must_set(bench, 0, _limit(bench.part, before))
    for asked in {
        good_bps(facts, 2) + facts.quantum_bps // 2 + 1,
        good_bps(facts, 2) + max(facts.api_quantum_bps, 1),
    }:
        answer = _set(bench, 0, _limit(bench.part, asked))
        if expected_applied(asked, facts) is None:
            bench.refusal(answer, _REFUSALS, f"{bench.part} of {asked} bit/s, between two steps,")
            _check_read(bench, before)
            continue
        bench.expect(isinstance(answer, RateReport), f"{bench.part} of {asked} bit/s was refused: {answer!r}")
        assert isinstance(answer, RateReport)
        _check_report(bench, answer, asked, bench.part)
        before = asked


def with_smallest(profile: NicProfile) -> tuple[str, ...]:
    """Tried on each rate that has a smallest value above one step."""
    return tuple(kind for kind in rates(profile) if (getattr(profile.rates, kind).smallest_bps or 0) > 1)


@behaviour("RT-03", "A rate below the smallest is raised or refused as the profile says", each=with_smallest)
def smallest(bench: Bench) -> None:
    """Just below the smallest rate: raised to it, with a report that says so, or refused, and the rate before stays."""
    _ready(bench)
    facts = _facts(bench)
    asked = max((facts.smallest_bps or 1) - facts.api_quantum_bps, 1)
    before = good_bps(facts, 1)
    _must_set(bench, 0, _limit(bench.part, before))
    answer = _set(bench, 0, _limit(bench.part, asked))
    if expected_applied(asked, facts) is None:
        bench.refusal(answer, _REFUSALS, f"{bench.part} of {asked} bit/s, below the smallest,")
        _check_read(bench, before)
        return
    bench.expect(isinstance(answer, RateReport), f"{bench.part} of {asked} bit/s was refused: {answer!r}")
    assert isinstance(answer, RateReport)
    _check_report(bench, answer, asked, bench.part)


@behaviour("RT-04", "A rate that is too high is refused, and the rate before stays", each=rates)
def too_high(bench: Bench) -> None:
    """More than the largest rate of the profile; where the link is the limit, more than any link there is."""
    _ready(bench)
    facts = _facts(bench)
    if facts.largest_bps is None:
        bench.not_applicable("no source states a largest rate")
    asked = _MOST_BPS if not isinstance(facts.largest_bps, int) else facts.largest_bps + _step(facts)
    before = good_bps(facts, 1)
    _must_set(bench, 0, _limit(bench.part, before))
    answer = _set(bench, 0, _limit(bench.part, min(asked, _MOST_BPS)))
    bench.refusal(answer, _REFUSALS, f"{bench.part} of {asked} bit/s")
    _check_read(bench, before)


@behaviour("RT-05", "A kind of rate that the NIC does not have is refused by name", each=missing_rates)
def missing_kind(bench: Bench) -> None:
    """Where the profile says no, asking is `NotSupportedError` naming ``rates.<kind>``; a NIC without any rate has no
    rate control, and `capabilities` says so.
    """
    if bench.driver.rates is None:
        bench.expect(
            bench.claim(f"rates.{bench.part}") in (None, Support.NO),
            "there are no rates, and they are claimed",
        )
        return
    _ready(bench)
    for _ in range(REPEATS):
        answer = _set(bench, 0, _limit(bench.part, _USUAL_BPS))
        error = bench.refusal(answer, NotSupportedError, f"{bench.part}, which the NIC does not have,")
        assert isinstance(error, NotSupportedError)
        bench.same(error.capability, f"rates.{bench.part}", "the capability that is missing")


@behaviour("RT-06", "A rate is taken off again", each=rates)
def cleared(bench: Bench) -> None:
    """A rate is set and set to none, several times; `read()` then reports none."""
    _ready(bench)
    for _ in range(REPEATS):
        _must_set(bench, 0, _limit(bench.part, good_bps(_facts(bench))))
        report = _must_set(bench, 0, RateLimit())
        bench.expect(
            _bps(report.applied, bench.part) is None, f"{bench.part} after it was taken off: {report.applied}"
        )
        found = next(each for each in bench.rates.read() if each.vf == 0)
        bench.expect(
            _bps(found.read_back, bench.part) is None,
            f"{bench.part} reads back as {_bps(found.read_back, bench.part)} after it was taken off",
        )


@behaviour("RT-07", "Both rates of a VF are set together, or neither is", each=with_rates)
def both_or_neither(bench: Bench) -> None:
    """A guarantee and a limit in one call. One that is refused because of its limit leaves the guarantee as it was."""
    facts = {kind: _facts(bench, kind) for kind in ("min_tx", "max_tx")}
    if any(each.supported == "no" for each in facts.values()):
        bench.not_applicable("the NIC has one kind of rate only")
    _ready(bench)
    low = good_bps(facts["min_tx"], 1)
    high = good_bps(facts["max_tx"], 2 + low // _step(facts["max_tx"]))  # twice as much, at least
    report = _must_set(bench, 0, RateLimit(min_tx_bps=low, max_tx_bps=high))
    for kind, asked in (("min_tx", low), ("max_tx", high)):
        _check_report(bench, report, asked, kind)
    before = next(each.read_back for each in bench.rates.read() if each.vf == 0)
    other = good_bps(facts["min_tx"], 2)
    largest = facts["max_tx"].largest_bps
    if largest is None:
        return  # no source states a limit that the NIC refuses
    beyond = _MOST_BPS if not isinstance(largest, int) else min(largest + _step(facts["max_tx"]), _MOST_BPS)
    answer = _set(bench, 0, RateLimit(min_tx_bps=other, max_tx_bps=beyond))
    bench.refusal(answer, _REFUSALS, f"a guarantee with a limit of {beyond} bit/s")
    after = next(each.read_back for each in bench.rates.read() if each.vf == 0)
    bench.same(after, before, "rates after both were refused for the limit")


@behaviour("RT-08", "Rates are each VF's own", each=rates)
def own(bench: Bench) -> None:
    """Two VFs get two rates in one call, and a third VF none; each reads back its own."""
    _ready(bench, 2)
    facts = _facts(bench)
    others = [each.read_back for each in bench.rates.read() if each.vf > 1]
    asked = {0: good_bps(facts, 1), 1: good_bps(facts, 2)}
    for vf, bps in asked.items():
        _must_set(bench, vf, _limit(bench.part, bps))
    answers = bench.rates.set_many({vf: _limit(bench.part, bps) for vf, bps in asked.items()})
    for vf, bps in asked.items():
        answer = answers[vf]
        bench.expect(isinstance(answer, RateReport), f"the rate of VF {vf} was refused: {answer!r}")
        assert isinstance(answer, RateReport)
        bench.same(answer.vf, vf, "the VF of a report")
        _check_report(bench, answer, bps, bench.part)
    bench.same(
        [each.read_back for each in bench.rates.read() if each.vf > 1], others, "rates of the other VFs"
    )


@behaviour(
    "RT-09",
    "A rate of a VF that does not exist is refused, and the others of its call are set",
    each=with_rates,
)
def no_such_vf(bench: Bench) -> None:
    """One call sets VF 0 and the VF behind the last one."""
    kind = rates(bench.profile)[0]
    _ready(bench)
    asked = good_bps(_facts(bench, kind))
    _must_set(bench, 0, _limit(kind, asked))
    missing = len(bench.vfs.states())
    answers = bench.rates.set_many({missing: _limit(kind, asked), 0: _limit(kind, asked)})
    bench.same(sorted(answers), [0, missing], "VFs that set_many answers for")
    bench.refusal(
        answers[missing], (NotFoundError, InvalidRequestError), f"a rate of VF {missing} of {missing}"
    )
    bench.expect(isinstance(answers[0], RateReport), f"the other rate was refused: {answers[0]!r}")


@behaviour("RT-10", "Rates are read of every VF, and reading changes nothing", each=with_rates)
def read_all(bench: Bench) -> None:
    """`read()` has one report a VF, by index, asked for nothing in it, and says the same each time."""
    count = len(bench.need_vfs(2))
    first = list(bench.rates.read())
    bench.same([each.vf for each in first], list(range(count)), "VFs that read() reports")
    for _ in range(REPEATS):
        bench.same(
            [(each.vf, each.applied, each.read_back) for each in bench.rates.read()],
            [(each.vf, each.applied, each.read_back) for each in first],
            "the rates, read again",
        )
    bench.same(dict(bench.rates.set_many({})), {}, "setting no rates")


@behaviour("RT-11", "A rate that is set again is the same rate", each=rates)
def repeated(bench: Bench) -> None:
    """The same rate is set several times: each report is the same, and so is what is read."""
    _ready(bench)
    asked = good_bps(_facts(bench))
    reports = [_must_set(bench, 0, _limit(bench.part, asked)) for _ in range(REPEATS)]
    bench.expect(all(report == reports[0] for report in reports), f"reports differ: {reports}")
    _check_read(bench, asked)


def lost_on_reset(profile: NicProfile) -> tuple[str, ...]:
    """Tried on each rate that a reset of its VF does not take off, by the profile."""
    return tuple(kind for kind in rates(profile) if "vf_reset" not in getattr(profile.rates, kind).lost_on)


@behaviour(
    "RT-12",
    "A rate outlives a reset of its VF where the profile does not say that it is lost",
    each=lost_on_reset,
)
def outlives_reset(bench: Bench) -> None:
    """A rate is set, the VF is reset, and the rate reads back as before."""
    _ready(bench)
    asked = good_bps(_facts(bench))
    _must_set(bench, 0, _limit(bench.part, asked))
    try:
        bench.retry.call(lambda: bench.vfs.reset(0))
    except NotSupportedError as error:
        bench.not_shown(f"this NIC's VFs can't be reset from here: {error}")
    bench.settled()
    _check_read(bench, asked)
