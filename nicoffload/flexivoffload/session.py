"""A whole replay in one call: capture, NIC and policy in, report out."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from nicoffload import Nic
from nicoffload.errors import PolicyError
from nicoffload.flexivoffload.capture import open_capture
from nicoffload.flexivoffload.flows import DEFAULT_CAP
from nicoffload.flexivoffload.manager import ManagerConfig
from nicoffload.flexivoffload.policy import Policy
from nicoffload.flexivoffload.replay import Replay
from nicoffload.flexivoffload.report import ReplayReport, make_report
from nicoffload.flexivoffload.vms import Vm


def replay_capture(
    capture: str | os.PathLike[str],
    nic: Nic,
    policy: Policy,
    vms: tuple[Vm, ...] | None = None,
    *,
    config: ManagerConfig | None = None,
    flow_cap: int = DEFAULT_CAP,
    progress: Callable[[float], None] | None = None,
) -> ReplayReport:
    """Replay a capture on an emulated NIC.

    Args:
        capture: A pcap or pcapng file, plain or gzipped.
        nic: The NIC; it must be emulated.
        policy: Which flows are to go where.
        vms: The VMs; None guesses them from where packets go.
        config: Periods of the manager; None for the usual ones.
        flow_cap: Most flows that are told apart.
        progress: Told how much of the file is done, 0 to 1.

    Returns:
        What became of each packet. Packets and bytes of both paths and of what was skipped add up to the file's.

    Raises:
        CaptureError: The file can't be read.
        InvalidRequestError: The NIC is not emulated, or a VM names a VF that it can't have.
        PolicyError: The policy names a VM that is not there.
    """
    if vms is not None:
        check_names(policy, vms)
    with open_capture(capture) as reader:
        replay = Replay(nic, policy, vms, config=config, flow_cap=flow_cap)
        for batch in reader:
            replay.feed(batch)
            if progress is not None:
                progress(reader.progress)
        replay.finish()
        return make_report(
            replay, capture=str(Path(capture)), skipped=reader.skipped, ended_early=reader.ended_early
        )


def check_names(policy: Policy, vms: tuple[Vm, ...]) -> None:
    """Check that the VMs that a policy names are there.

    Raises:
        PolicyError: One is not.
    """
    names = {vm.name for vm in vms}
    for rule in policy.rules:
        if rule.vm and rule.vm not in names:
            raise PolicyError(
                f"{policy.source}: /rules/{rule.index}: there is no VM {rule.vm!r}",
                path=f"/rules/{rule.index}",
                hint=f"the VMs are: {', '.join(sorted(names))}",
            )
