"""What a live NIC's driver would know when it is refused, taken from an emulated one."""

from __future__ import annotations

from nicoffload.linux.errnos import Situation
from nicoffload.linux.standing import Standing


def of_rule(driver, placement):
    """Return the situation of a rule that is about to be installed."""
    device, profile = driver.device, driver.profile
    table = profile.table(placement.table)
    state = next(each for each in driver.flow_filters.tables() if each.table is table)
    siblings = {each.name for each in profile.tables if each.bank == table.bank}
    rivals = set(table.excludes) | {each.name for each in profile.tables if table.name in each.excludes}
    standing = driver.flow_filters.dump()
    queues = driver.flow_filters.queues()
    return Situation(
        table=table,
        rule=placement.rule,
        flow_type=placement.flow_type,
        slot=placement.slot,
        enabled=not state.blocked,
        standing=Standing(table, [each for each in standing if each.ref.table in siblings]),
        rival_rules=sum(each.ref.table in rivals for each in standing),
        rows=state.rows,
        in_use=state.in_use,
        queues=queues.pf,
        vf_queues=queues.vf,
        vf_count=len(device.sriov.vfs),
        resetting=False,
    )


def of_vf(driver, vf, setting, value):
    """Return the situation of a VF that is about to be changed."""
    device = driver.device
    vfs = device.sriov.vfs
    there = vfs[vf] if vf < len(vfs) else None
    return Situation(
        vf=vf,
        vf_count=len(vfs),
        setting=setting,
        value=value,
        mode=device.mode,
        spoof_check=there.spoof_check if there else None,
        resetting=bool(there and not device.sriov.is_ready(there)),
        link_bps=device.config.link_bps,
        others_bps=sum(getattr(each, setting).applied for each in vfs if each is not there)
        if setting in ("min_tx", "max_tx")
        else None,
    )
