"""Which conditions a driver can answer an operation with, and by which errno: a profile's errno maps, by operation."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from nicoffload.linux.situation import Operation, Situation
from nicoffload.profiles.types import (
    DevlinkRate,
    Errors,
    Eswitch,
    FlowType,
    NicProfile,
    Rate,
    Setting,
    Sriov,
    Table,
)

_WORDS = frozenset({"replace", "allowed", "unknown"})  # answers to a duplicate that are no errno
_RULE = "action priority chain flow_type field value partial_mask vlan_mask required combination empty_rule"
_PLACE = "not_enabled excluded slot_given slot_range slot_any vf_range queue_range vf_target destination"
_ROOM = "second_mask one_target duplicate hash full limit busy protected"
_TABLE: dict[Operation, tuple[str, ...]] = {
    Operation.CREATE: (*_PLACE.split(), *_ROOM.split(), *_RULE.split()),
    Operation.DESTROY: ("missing", "busy", "protected"),
    Operation.READ: ("missing_read", "not_enabled", "busy"),
    Operation.LIST: ("not_enabled", "list_buffer", "busy"),
    Operation.COUNTERS: ("no_counters", "missing_read", "busy"),
    Operation.FEATURE_OFF: ("feature_in_use",),
}
_ADDRESS = ("mac_multicast", "mac_invalid", "mac_zero_with_spoof_check")
_TAG = ("vlan_range", "vlan_protocol", "vlan_protocol_unknown")
_SETTINGS: dict[str, tuple[str, ...]] = {
    "mac": _ADDRESS,
    "vlan": _TAG,
    "trust": ("trust_mfp",),
    "spoof_check": ("spoof_check_running",),
}
_LACKING = {"vlan_protocols": "vlan_protocol"}
_WRONG = {"mac": "mac_invalid", "vlan": "vlan_range", "qos": "vlan_range", "vlan_protocols": "vlan_protocol"}
_ANY_VF = ("no_vfs", "vf_range", "no_vf_state", "no_privilege")


@dataclass(frozen=True, slots=True)
class Answer:
    """A condition and the driver's answer.

    Args:
        condition: As in the profile.
        errno: Symbolic name; None where no source states it.
        source: Where the driver does that.
    """

    condition: str
    errno: str | None
    source: str


def answers(profile: NicProfile, operation: Operation, situation: Situation) -> Iterator[Answer]:
    """Yield what the driver can answer; a condition that it accepts without a word is left out."""
    if operation in _TABLE:
        table = situation.table
        assert table is not None, "an operation on rules has a table"
        yield from _table(table, _TABLE[operation], situation.flow_type)
    elif operation is Operation.VF_COUNT:
        yield from _sriov(profile)
    elif operation is Operation.MODE:
        yield from _of_map(profile.eswitch)
    elif operation is Operation.DEVLINK_RATE:
        yield from _of_map(profile.rates.devlink)
    else:
        yield from _vf(profile, operation, situation)


def _table(table: Table, conditions: Iterable[str], flow_type: str) -> Iterator[Answer]:
    extra: dict[str, list[str]] = {"not_enabled": [table.needs.errno] if table.needs.errno else []}
    if table.hash is not None:
        extra["hash"] = [table.hash.errno]
    extra["limit"] = [limit.errno for limit in table.limits]
    extra["one_target"] = [one.errno for one in table.one_target_per_value]
    if table.duplicate.answer not in _WORDS:
        extra["duplicate"] = [table.duplicate.answer]
    extra["action"] = [table.action_rules.errno] if table.action_rules.errno else []
    extra["empty_rule"] = [table.empty_rule] if table.empty_rule else []
    for kind in table.flow_types:
        if kind.name == flow_type or not flow_type:
            for condition, errno in _flow_type(kind):
                extra.setdefault(condition, []).append(errno)
    for condition in conditions:
        stated = [*extra.get(condition, ()), *_stated(table.errors, condition)]
        for errno in dict.fromkeys(stated):
            yield Answer(condition, errno, table.source)
        if not stated and condition not in table.errors:
            yield Answer(condition, None, table.source)


def _flow_type(kind: FlowType) -> Iterator[tuple[str, str]]:
    for errno in kind.field_errors.values():
        yield "field", errno
    for rule in kind.fields.values():
        if rule.mask_errno:
            yield "partial_mask", rule.mask_errno
        if rule.value_errno:
            yield "value", rule.value_errno
    for answer in (*(group.errno for group in kind.together), *(group.errno for group in kind.not_together)):
        if answer:
            yield "combination", answer


def _sriov(profile: NicProfile) -> Iterator[Answer]:
    sriov = profile.sriov
    if sriov is None:
        yield Answer("sriov", "ENOENT", "drivers/pci/iov.c sriov_numvfs_store")
        return
    if sriov.sysfs_write not in ("works", "no_effect"):
        yield Answer("sriov", sriov.sysfs_write, sriov.source)
    for condition in ("above_total", "not_zero_first"):
        if condition not in sriov.errors:
            yield Answer(condition, None, sriov.source)
    yield from _of_map(sriov)


def _vf(profile: NicProfile, operation: Operation, situation: Situation) -> Iterator[Answer]:
    facts = profile.vf
    if facts is None:
        yield Answer("no_vfs", None, "")
        return
    if facts.busy_while_resetting:
        yield Answer("busy", facts.busy_while_resetting, facts.source)
    wanted = list(_ANY_VF)
    if operation is Operation.VF_STATS:
        wanted.append("stats_in_reset")
    elif operation is Operation.VF_RATE:
        wanted += ["rate_range", "max_below_min"]
        kinds = [situation.setting] if situation.setting else ["min_tx", "max_tx"]
        for kind in kinds:
            yield from _rate(getattr(profile.rates, kind), facts.errors)
    else:
        wanted += _SETTINGS.get(situation.setting, ())
        yield from _setting(facts, situation)
    for condition in (*wanted, "disabled"):
        if condition in facts.errors:
            for errno in _stated(facts.errors, condition):
                yield Answer(condition, errno, facts.source)
        elif condition == "vf_range":
            yield Answer(condition, None, facts.source)


def _rate(rate: Rate, errors: Errors) -> Iterator[Answer]:
    if rate.supported != "yes":
        yield Answer("rate", rate.errno or "EOPNOTSUPP", rate.source)
    if rate.link_errno:
        yield Answer("rate_link", rate.link_errno, rate.source)
    ranged = rate.range_errno or next(iter(_stated(errors, "rate_range")), None)
    yield Answer("rate_range", ranged, rate.source)
    if rate.sum_within_link:
        yield Answer("rate_sum", ranged, rate.source)


def _setting(facts: object, situation: Situation) -> Iterator[Answer]:
    names = [situation.setting] if situation.setting != "vlan" else ["vlan", "qos", "vlan_protocols"]
    for name in names:
        setting: Setting | None = getattr(facts, name, None)
        if setting is None:
            continue
        if setting.supported != "yes":
            yield Answer(_LACKING.get(name, name), setting.errno or "EOPNOTSUPP", setting.source)
        if setting.not_in_mode:
            yield Answer("in_mode", setting.mode_errno or "EOPNOTSUPP", setting.source)
        if setting.value_errno:
            yield Answer(_WRONG.get(name, name), setting.value_errno, setting.source)


def _of_map(part: Sriov | Eswitch | DevlinkRate | None) -> Iterator[Answer]:
    if part is None:
        return
    for condition in part.errors:
        for errno in _stated(part.errors, condition):
            yield Answer(condition, errno, part.source)


def _stated(errors: Errors, condition: str) -> tuple[str, ...]:
    errno = errors.get(condition)
    return () if errno is None else (errno,)
