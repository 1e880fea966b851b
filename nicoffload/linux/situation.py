"""What is known of a request and of the NIC that refused it, and which conditions of a profile hold by that."""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from nicoffload.linux.standing import Standing, fits
from nicoffload.model import ACTION_NAMES, FlowRule, Mirror, ToQueue, ToVf, VlanTag
from nicoffload.profiles.types import NicProfile, Rate, Table


class Operation(enum.Enum):
    """What a driver was asked to do."""

    CREATE = "create"
    """Install a rule."""
    DESTROY = "destroy"
    """Remove a rule."""
    READ = "read"
    """Read one rule."""
    LIST = "list"
    """List the rules."""
    COUNTERS = "counters"
    """Read the counters of rules."""
    FEATURE_OFF = "feature_off"
    """Turn off what a table needs."""
    VF_COUNT = "vf_count"
    """Make VFs."""
    VF_SET = "vf_set"
    """Set something on a VF."""
    VF_RATE = "vf_rate"
    """Set a VF's rate through rtnetlink."""
    VF_STATS = "vf_stats"
    """Read a VF's counters."""
    MODE = "mode"
    """Change the eswitch mode."""
    DEVLINK_RATE = "devlink_rate"
    """Set a rate through devlink."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """The request, and the NIC as far as it is known; None is not known. The more is known, the surer the meaning.

    Args:
        path: JSON pointer to the part of the request.
        table: The table asked.
        rule: The rule asked for.
        flow_type: As the request encodes it.
        slot: Location in the request; None for none.
        enabled: Whether what the table needs is so.
        standing: The rules in the table, of anybody.
        rival_rules: How many rules tables hold that exclude this one.
        rows: Capacity of the table.
        in_use: Rows in use.
        queues: Receive queues of the PF.
        vf_queues: Receive queues of each VF.
        vf: The VF asked about.
        vf_count: How many VFs exist.
        resetting: Whether the VF, or the device, is in a reset.
        held: Whether a guest holds a VF.
        setting: Name of the setting of the VF, ``min_tx`` or ``max_tx`` for rates.
        value: What it is to be.
        spoof_check: Whether the VF's frames are checked.
        mode: Present eswitch mode.
        count: How many VFs were asked for.
        total_vfs: How many the PCI function says that it can have.
        link_bps: Speed of the link; 0 while it is down.
        others_bps: Guarantees of the other VFs together.
        rate_nodes: Whether devlink rate nodes exist.
        flows: Whether rules are installed in the eswitch.
    """

    path: str = ""
    table: Table | None = None
    rule: FlowRule | None = None
    flow_type: str = ""
    slot: int | None = None
    enabled: bool | None = None
    standing: Standing | None = None
    rival_rules: int | None = None
    rows: int | None = None
    in_use: int | None = None
    queues: int | None = None
    vf_queues: int | None = None
    vf: int | None = None
    vf_count: int | None = None
    resetting: bool | None = None
    held: bool | None = None
    setting: str = ""
    value: object = None
    spoof_check: bool | None = None
    mode: str = ""
    count: int | None = None
    total_vfs: int | None = None
    link_bps: int | None = None
    others_bps: int | None = None
    rate_nodes: bool | None = None
    flows: bool | None = None


def holds(condition: str, profile: NicProfile, now: Situation) -> bool | None:
    """Return whether a condition holds; None where that can't be told from here."""
    judge = _JUDGES.get(condition)
    return None if judge is None else judge(profile, now)


def _not_enabled(_: NicProfile, now: Situation) -> bool | None:
    return None if now.enabled is None else not now.enabled


def _slot_range(_: NicProfile, now: Situation) -> bool | None:
    if now.slot is None:
        return False
    if now.table is not None and now.slot < now.table.first_slot:
        return True
    return None if now.rows is None else now.slot >= now.rows


def _slot_any(_: NicProfile, now: Situation) -> bool | None:
    return None if now.table is None else now.table.picker == "caller" and now.slot is None


def _slot_given(_: NicProfile, now: Situation) -> bool | None:
    return None if now.table is None else now.table.picker == "driver" and now.slot is not None


def _full(_: NicProfile, now: Situation) -> bool | None:
    if now.table is None or now.rows is None or now.in_use is None:
        return None
    if now.standing is not None and now.slot is not None and now.slot in now.standing.slots:
        return False  # the rule there makes room
    return now.in_use + now.table.rows_per_rule > now.rows


def _limit(_: NicProfile, now: Situation) -> bool | None:
    if now.standing is None or now.table is None or now.rule is None:
        return None
    asked = {name for name, _ in now.rule.match.shape}
    return any(
        one.field in asked and now.standing.comparing(one.field, but=now.slot) >= one.rows
        for one in now.table.limits
    )


def _vf_range(_: NicProfile, now: Situation) -> bool | None:
    if now.vf_count is None:
        return None
    if now.vf is not None:
        return now.vf >= now.vf_count
    if now.rule is None:
        return None
    named = [action.vf for action in now.rule.actions if isinstance(action, ToVf)]
    named += [action.port - 2 for action in now.rule.actions if isinstance(action, Mirror)]
    return any(vf >= now.vf_count for vf in named)


def _queue_range(_: NicProfile, now: Situation) -> bool | None:
    if now.rule is None or now.table is None:
        return None
    unsure = False
    for action in now.rule.actions:
        if isinstance(action, ToQueue):
            queue, there = action.queue, now.queues
        elif isinstance(action, ToVf) and action.queue:
            queue, there = action.queue, now.vf_queues if now.table.vf_queue else 1
        else:
            continue
        if there is None:
            unsure = True
        elif queue >= there:
            return True
    return None if unsure else False


def _second_mask(_: NicProfile, now: Situation) -> bool | None:
    if now.standing is None or now.rule is None:
        return None
    return now.standing.has_other_masks(now.rule.match, but=now.slot)


def _duplicate(_: NicProfile, now: Situation) -> bool | None:
    if now.standing is None or now.rule is None or now.table is None:
        return None
    if now.standing.copies(now.rule.match, but=now.slot) >= now.table.duplicate.allowed_copies:
        return True
    return None if now.table.picker == "none" else False  # the cookie may be in use, too


def _one_target(_: NicProfile, now: Situation) -> bool | None:
    if now.standing is None or now.rule is None or now.table is None:
        return None
    rule = now.rule
    return any(
        now.standing.has_other_target(one.field, rule, but=now.slot) for one in now.table.one_target_per_value
    )


def _excluded(_: NicProfile, now: Situation) -> bool | None:
    if now.table is not None and not now.table.excludes:
        return False
    return None if now.rival_rules is None else now.rival_rules > 0


def _action(_: NicProfile, now: Situation) -> bool | None:
    if now.rule is None or now.table is None:
        return None
    if any(ACTION_NAMES[type(action)] not in now.table.actions for action in now.rule.actions):
        return True
    return None  # how many, in which order, and with which values is the compiler's business


def _vf_target(_: NicProfile, now: Situation) -> bool | None:
    if now.rule is None or now.table is None:
        return None
    if not any(isinstance(action, ToVf) for action in now.rule.actions):
        return False
    return True if "vf" not in now.table.actions else None


def _flow_type(_: NicProfile, now: Situation) -> bool | None:
    if now.table is None or not now.flow_type:
        return None
    kind = next((kind for kind in now.table.flow_types if kind.name == now.flow_type), None)
    return True if kind is None or (now.rule is not None and not fits(kind, now.rule.match)) else None


def _busy(_: NicProfile, now: Situation) -> bool | None:
    return now.resetting


def _no_vfs(_: NicProfile, now: Situation) -> bool | None:
    return None if now.vf_count is None else now.vf_count == 0


def _address(wrong: Callable[[int], bool]) -> Callable[[NicProfile, Situation], bool | None]:
    def judge(_: NicProfile, now: Situation) -> bool | None:
        return now.setting == "mac" and isinstance(now.value, int) and wrong(now.value)

    return judge


def _mac_zero(_: NicProfile, now: Situation) -> bool | None:
    if now.setting != "mac" or now.value != 0:
        return False
    return now.spoof_check


def _mac_invalid(profile: NicProfile, now: Situation) -> bool | None:
    if now.setting != "mac" or not isinstance(now.value, int):
        return False
    if now.value >> 40 & 1:
        return True
    zero = profile.vf.mac.zero if profile.vf is not None else ""
    return None if now.value == 0 and zero != "clears" else False


def _vlan_range(profile: NicProfile, now: Situation) -> bool | None:
    if not isinstance(now.value, VlanTag) or profile.vf is None:
        return False
    vlan, qos = profile.vf.vlan, profile.vf.qos
    pcp = now.value.pcp
    wrong_pcp = pcp > (7 if qos.max is None else qos.max) or (
        qos.values is not None and pcp not in qos.values
    )
    return now.value.vid > (4095 if vlan.max is None else vlan.max) or wrong_pcp


def _vlan_protocol(profile: NicProfile, now: Situation) -> bool | None:
    if not isinstance(now.value, VlanTag) or profile.vf is None:
        return False
    taken = profile.vf.vlan_protocols.values
    if taken is not None:
        return now.value.protocol not in taken
    return None if now.value.protocol != "802.1Q" else False


def _is_setting(name: str) -> Callable[[NicProfile, Situation], bool | None]:
    def judge(profile: NicProfile, now: Situation) -> bool | None:
        if now.setting != name and not (name == "qos" and now.setting == "vlan"):
            return False
        facts = getattr(profile.vf, name, None)
        if facts is None or facts.supported == "no":
            # A VLAN without a priority asks nothing of a NIC that has no priorities.
            return None if name == "qos" else True
        return None

    return judge


def _in_mode(profile: NicProfile, now: Situation) -> bool | None:
    setting = getattr(profile.vf, now.setting, None)
    if setting is None or not setting.not_in_mode:
        return False
    return None if not now.mode else setting.not_in_mode == now.mode


def _rate(profile: NicProfile, now: Situation) -> bool | None:
    rate = _kind(profile, now)
    if rate is None or now.value == 0:
        return None
    return True if rate.supported == "no" else None


def _rate_link(profile: NicProfile, now: Situation) -> bool | None:
    rate = _kind(profile, now)
    if rate is None or now.link_bps is None:
        return None
    if now.value == 0:
        return None  # some drivers refuse even that while the link is down
    return now.link_bps not in rate.link_speeds_bps if rate.link_speeds_bps else now.link_bps == 0


def _rate_range(profile: NicProfile, now: Situation) -> bool | None:
    rate = _kind(profile, now)
    if rate is None or not isinstance(now.value, int):
        return None
    if (
        rate.smallest_bps is not None
        and rate.below_smallest == "refuse"
        and 0 < now.value < rate.smallest_bps
    ):
        return True
    if rate.rounding == "refuse" and now.value % rate.quantum_bps:
        return True
    largest = now.link_bps if rate.largest_bps == "link" else rate.largest_bps
    if isinstance(largest, int):
        return now.value > largest
    return None if rate.largest_bps == "link" else False


def _rate_sum(_: NicProfile, now: Situation) -> bool | None:
    if not isinstance(now.value, int) or now.others_bps is None or now.link_bps is None:
        return None
    return now.value + now.others_bps > now.link_bps


def _kind(profile: NicProfile, now: Situation) -> Rate | None:
    return getattr(profile.rates, now.setting) if now.setting in ("min_tx", "max_tx") else None


def _too_many(profile: NicProfile, now: Situation) -> bool | None:
    most = profile.sriov.max_vfs if profile.sriov is not None else 0
    if now.count is None:
        return None
    if most is not None and now.count > most:
        return True
    if now.total_vfs is not None and now.count > now.total_vfs:
        return True
    return None if now.count else False


def _above_total(_: NicProfile, now: Situation) -> bool | None:
    if now.count is None or now.total_vfs is None:
        return None
    return now.count > now.total_vfs


def _not_zero_first(_: NicProfile, now: Situation) -> bool | None:
    if now.count is None or now.vf_count is None:
        return None
    return bool(now.count and now.vf_count and now.count != now.vf_count)


def _assigned(_: NicProfile, now: Situation) -> bool | None:
    # Drivers look at it when VFs go, not when they come.
    return False if now.count else now.held


def _vfs_present(_: NicProfile, now: Situation) -> bool | None:
    return None if now.vf_count is None else now.vf_count > 0


def _makes_vfs(_: NicProfile, now: Situation) -> bool | None:
    return None if now.count is None or now.count else False


_JUDGES: Mapping[str, Callable[[NicProfile, Situation], bool | None]] = MappingProxyType(
    {
        "not_enabled": _not_enabled,
        "slot_range": _slot_range,
        "slot_any": _slot_any,
        "slot_given": _slot_given,
        "full": _full,
        "limit": _limit,
        "vf_range": _vf_range,
        "queue_range": _queue_range,
        "second_mask": _second_mask,
        "duplicate": _duplicate,
        "one_target": _one_target,
        "excluded": _excluded,
        "action": _action,
        "vf_target": _vf_target,
        "flow_type": _flow_type,
        "busy": _busy,
        "stats_in_reset": _busy,
        "not_ready": _busy,
        "no_vfs": _no_vfs,
        "mac_multicast": _address(lambda value: bool(value >> 40 & 1)),
        "mac_invalid": _mac_invalid,
        "mac_zero_with_spoof_check": _mac_zero,
        "vlan_range": _vlan_range,
        "vlan_protocol": _vlan_protocol,
        "vlan_protocol_unknown": lambda _profile, _now: (
            False
        ),  # the model knows no other than the two there are
        "mac": _is_setting("mac"),
        "vlan": _is_setting("vlan"),
        "qos": _is_setting("qos"),
        "spoof_check": _is_setting("spoof_check"),
        "trust": _is_setting("trust"),
        "link_state": _is_setting("link_state"),
        "in_mode": _in_mode,
        "rate": _rate,
        "rate_link": _rate_link,
        "rate_range": _rate_range,
        "rate_sum": _rate_sum,
        "max_below_min": lambda _profile, _now: False,  # `RateLimit` holds no such pair
        "too_many": _too_many,
        "above_total": _above_total,
        "not_zero_first": _not_zero_first,
        "assigned": _assigned,
        "xdp_loaded": _makes_vfs,
        "no_msix": _makes_vfs,
        "resources": _makes_vfs,
        "vfs_present": _vfs_present,
        "flows_present": lambda _profile, now: now.flows,
        "rate_nodes_present": lambda _profile, now: now.rate_nodes,
    }
)
