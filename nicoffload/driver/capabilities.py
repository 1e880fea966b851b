"""What a NIC can do, declared by its profile and refined by what was probed: the answers of any driver."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from nicoffload.driver.contract import TableState
from nicoffload.model import Capability, Evidence, Support
from nicoffload.profiles.types import NicProfile, Rate, Setting

_SETTINGS = ("mac", "vlan", "qos", "vlan_protocols", "spoof_check", "trust", "link_state")


@dataclass(frozen=True, slots=True, kw_only=True)
class Probed:
    """What was found on the NIC beyond its profile; None where nothing was.

    Args:
        tables: Its tables as they are.
        vf_limit: How many VFs there can be.
        vf_limit_evidence: How that is known.
        vf_limit_note: What to say of it.
        mode: Mode of the eswitch.
        capability: What stands for "only on parts that have it": yes for an emulator that assumes it.
        capability_note: What to say where that is so.
        rows_note: What to say of a table's rows, by its name.
        observed: Names of capabilities that were tried and read back.
    """

    tables: Sequence[TableState] = ()
    vf_limit: int | None = None
    vf_limit_evidence: Evidence = Evidence.PROBED
    vf_limit_note: str = ""
    mode: str | None = None
    capability: Support = Support.UNKNOWN
    capability_note: str = "only on parts or firmware that have it; it was not tried"
    rows_note: tuple[tuple[str, str], ...] = ()
    observed: frozenset[str] = frozenset()


def answers(profile: NicProfile, probed: Probed) -> Sequence[Capability]:
    """Return what a NIC can do, each answer with the evidence for it.

    Args:
        profile: What its family can do.
        probed: What was found on this one.
    """
    found = [
        *_tables(probed),
        *_functions(profile, probed),
        *_rates(profile, probed),
        *_statistics(profile),
    ]
    return [_observed(one) if one.name in probed.observed else one for one in found]


def _observed(answer: Capability) -> Capability:
    return Capability(
        name=answer.name,
        support=answer.support if answer.support is not Support.UNKNOWN else Support.YES,
        evidence=Evidence.OBSERVED,
        detail=answer.detail,
        source=answer.source,
    )


def _tables(probed: Probed) -> Iterator[Capability]:
    notes = dict(probed.rows_note)
    for state in probed.tables:
        table = state.table
        rows = "an unknown number of rows" if state.rows is None else f"{state.rows} rows"
        why = (
            f"; takes no rules: {'; '.join(reason.message for reason in state.blocked)}"
            if state.blocked
            else ""
        )
        targets = ", ".join(sorted(table.actions))
        yield Capability(
            name=f"flow_filters.{table.name}",
            support=Support.PARTIAL if state.blocked else Support.YES,
            evidence=Evidence.PROBED,
            detail=f"{rows}{notes.get(table.name, '')}, masks: {table.mask_model}, targets: {targets}{why}",
            source=table.source,
        )


def _functions(profile: NicProfile, probed: Probed) -> Iterator[Capability]:
    sriov, facts = profile.sriov, profile.vf
    if sriov is None or facts is None:
        yield Capability(name="vf", support=Support.NO, evidence=Evidence.DECLARED, detail="no SR-IOV")
        return
    limit = probed.vf_limit
    most = "an unknown number of" if limit is None else f"at most {limit}"
    works = sriov.method in {"sysfs", "links"} and limit != 0
    yield Capability(
        name="vf.create",
        support=Support.YES if works else Support.NO,
        evidence=Evidence.DECLARED if limit is None else probed.vf_limit_evidence,
        detail=f"{most} VFs{probed.vf_limit_note}; {sriov.note or sriov.method}",
        source=sriov.source,
    )
    for name in _SETTINGS:
        yield _setting(name, getattr(facts, name), probed)


def _setting(name: str, setting: Setting, probed: Probed) -> Capability:
    support, detail, evidence = _support(setting.supported, probed), setting.note, Evidence.DECLARED
    if setting.not_in_mode and setting.not_in_mode == probed.mode and support is not Support.NO:
        support, detail, evidence = Support.NO, f"not in {probed.mode} mode", Evidence.PROBED
    elif setting.no_effect:
        support = Support.PARTIAL
        detail = f"accepted and without effect: {', '.join(map(str, setting.no_effect))}"
    elif setting.supported == "capability":
        detail = f"{detail} {probed.capability_note}".strip()
    return Capability(
        name=f"vf.{name}", support=support, evidence=evidence, detail=detail, source=setting.source
    )


def _support(supported: str, probed: Probed) -> Support:
    return {"yes": Support.YES, "no": Support.NO}.get(supported, probed.capability)


def _rates(profile: NicProfile, probed: Probed) -> Iterator[Capability]:
    for name in ("min_tx", "max_tx"):
        rate: Rate = getattr(profile.rates, name)
        steps = f"steps of {rate.quantum_bps} bit/s, {rate.meaning}" if rate.supported != "no" else ""
        note = f", {probed.capability_note}" if rate.supported == "capability" else ""
        yield Capability(
            name=f"rates.{name}",
            support=_support(rate.supported, probed),
            evidence=Evidence.DECLARED,
            detail=f"{steps}{note}",
            source=rate.source,
        )


def _statistics(profile: NicProfile) -> Iterator[Capability]:
    statistics = profile.statistics
    tables = [table.counters for table in profile.tables if table.counters]
    for name, counters in (
        ("port", statistics.port),
        ("vf", statistics.vf),
        ("rule", tables[0] if tables else None),
    ):
        values = ", ".join(sorted(counters.values)) if counters else "no such counters"
        yield Capability(
            name=f"statistics.{name}",
            support=Support.YES if counters else Support.NO,
            evidence=Evidence.DECLARED,
            detail=values,
            source=counters.source if counters else "",
        )
