"""A rule that goes to the emulated NIC by the bytes of tc is answered as one that is handed to it outright.

So what the kernel layer writes, and what the fake kernel reads with a decoder of its own, mean the same.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from nicoffload.errors import NicOffloadError, NotSupportedError, errno_name
from nicoffload.kernel import Netlink
from nicoffload.kernel.seam import NETLINK_ROUTE
from nicoffload.kernel.tc import (
    FilterRef,
    Hook,
    Placing,
    QueueStyle,
    Targets,
    TcFilter,
    TcFilters,
    lower_actions,
    qdisc,
)
from nicoffload.model import Count, FlowRule, Masked, ToQueue
from nicoffload.registry import load_registry
from nicoffload.testing import FakeKernel
from nicoffload.testing.emulator.answer import Refused
from nicoffload.testing.emulator.config import Config
from nicoffload.testing.emulator.device import Device
from nicoffload.testing.emulator.faults import Faults
from tests.agreement.near_valid import rules

PROFILES = load_registry().profiles
FAMILIES = ("mlx5", "ice", "sfc_ef100", "igb_i350", "igb_i210", "i40e")
VFS = 4
CONFIG = Config(prepared=True, vfs=VFS)
_QUEUES = {"igb": QueueStyle.HW_TC, "i40e": QueueStyle.HW_TC, "ice": QueueStyle.SKBEDIT}


@dataclass
class Sides:
    """One NIC twice: by itself, and beneath a fake kernel."""

    device: Device
    table: str
    kernel: FakeKernel
    pf: int
    representors: dict[int, int]
    targets: Targets

    @classmethod
    def of(cls, family: str, mode: str) -> Sides:
        profile = PROFILES.get(family)
        vfs = 0 if profile.sriov is None else VFS
        config = replace(CONFIG, mode=mode, vfs=vfs)
        kernel = FakeKernel()
        nic = kernel.plug(profile, config=config)
        device = Device(profile.document, config, Faults())
        table = next(
            one["name"]
            for one in profile.document["tables"]
            if one["mechanism"] == "flower"
            and one.get("needs", {}).get("eswitch_mode", device.mode) == device.mode
        )
        representors = {vf: netdev.ifindex for vf, netdev in nic.representors.items()}
        ports = {2 + vf: ifindex for vf, ifindex in representors.items()}
        if representors:
            ports[0] = nic.pf.ifindex
        for netdev in (nic.pf, *nic.representors.values()):
            with Netlink(kernel, NETLINK_ROUTE) as netlink:
                qdisc.ensure(netlink, netdev.ifindex)
            netdev.features["hw-tc-offload"].active = True
        targets = Targets(ifindexes=ports, queues=_QUEUES.get(profile.driver, QueueStyle.NONE))
        return cls(device, table, kernel, nic.pf.ifindex, representors, targets)

    def outright(self, rule: FlowRule) -> str:
        try:
            self.device.create(self.table, rule, "", None)
        except Refused as answer:
            return answer.errno
        return "taken"

    def by_bytes(self, rule: FlowRule, pref: int) -> str | None:
        """Return the answer to the filter that says the same; None where tc has no words for it."""
        port = rule.match.in_port
        ifindex = self.pf
        if isinstance(port, Masked):
            if port.value - 2 not in self.representors:
                return None
            ifindex = self.representors[port.value - 2]
        if self.targets.queues is QueueStyle.HW_TC and [type(one) for one in rule.actions] != [ToQueue]:
            return None  # igb and i40e look at the class of a filter, and at no action
        match = rule.match.replace(in_port=None)
        try:
            lowered = lower_actions(rule.actions, match, self.targets)
            item = TcFilter(
                match=match,
                actions=lowered.actions,
                pref=pref,
                handle=1,
                placing=Placing.HARDWARE,
                hw_tc=lowered.hw_tc,
            )
        except NicOffloadError:
            return None  # no such target, or a traffic class beyond the 16 that there can be
        with TcFilters(self.kernel, Hook.ingress(ifindex)) as filters:
            (outcome,) = filters.add_many([item])
        if isinstance(outcome, FilterRef):
            return "taken"
        if isinstance(outcome, NotSupportedError) and not outcome.kernel_message and outcome.errno is None:
            return None
        return errno_name(outcome.errno)


def plain(rule: FlowRule) -> FlowRule:
    """Return a rule without what tc says by leaving it out: that it counts, and that it is about the uplink."""
    port = rule.match.in_port
    match = rule.match.replace(in_port=None) if isinstance(port, Masked) and not port.value else rule.match
    return replace(
        rule,
        match=match,
        actions=tuple(one for one in rule.actions if not isinstance(one, Count)),
        priority=None,
    )


def modes(family: str) -> list[str]:
    eswitch = PROFILES.get(family).eswitch
    return list(eswitch.modes) if eswitch else [""]


@pytest.mark.parametrize(("family", "mode"), [(one, mode) for one in FAMILIES for mode in modes(one)])
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_bytes_are_answered_as_rules_are(family, mode, data):
    sides = Sides.of(family, mode)
    drawn = data.draw(rules(PROFILES.get(family).document))
    for pref, rule in enumerate(map(plain, drawn), 1):
        by_bytes = sides.by_bytes(rule, pref)
        if by_bytes is None:
            event("not by tc")
            continue
        outright = sides.outright(rule)
        event("taken" if outright == "taken" else "refused")
        assert by_bytes == outright, rule
