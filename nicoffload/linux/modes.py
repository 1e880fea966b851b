"""Changes the mode of a NIC's switch: what the driver wants out of the way first, and what it does then."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from nicoffload.errors import (
    ConflictError,
    DeviceGoneError,
    NicOffloadError,
    NotSupportedError,
    Reason,
    VerificationError,
)
from nicoffload.kernel.devlink import Devlink, EswitchMode, RateNode, eswitch_command
from nicoffload.linux.errnos import Operation, Situation, explain
from nicoffload.linux.nic import LinuxNic

APPEAR_TIMEOUT_S = 5.0
"""How long the NIC's network device may be away: mlx5 makes it anew (eswitch_offloads.c:3734)."""
_CAPABILITY = "eswitch"


def obstacles(nic: LinuxNic, *, flows: int) -> Iterator[Reason]:
    """Yield what stands against a change of mode, as the profile says of the driver. Changes nothing.

    Args:
        nic: The NIC.
        flows: How many rules are in the hardware.
    """
    eswitch = nic.profile.eswitch
    if eswitch is None:
        return
    standing = {
        "vfs_present": (nic.count_vfs(), "VFs exist", "no VFs: remove them first, and make them after"),
        "flows_present": (flows, "rules are installed", "no rules: remove them first"),
        "rate_nodes_present": (
            _rate_nodes(nic),
            "devlink rate nodes exist",
            "no rate nodes: delete them first",
        ),
    }
    for condition, (count, what, cure) in standing.items():
        errno = eswitch.errors.get(condition)
        if errno is not None and count:
            yield Reason(
                code=f"eswitch.{condition}",
                path="",
                message=f"{count} {what}, and the driver changes its mode only without",
                accepted=cure,
                source=eswitch.source,
                errno=errno,
            )


def change_mode(nic: LinuxNic, mode: str, *, flows: int) -> None:
    """Change the mode, and wait until the NIC's network device is there again. Repeatable.

    Equivalent to: ``devlink dev eswitch set DEV mode MODE``

    Args:
        nic: The NIC.
        mode: ``legacy`` or ``switchdev``.
        flows: How many rules are in the hardware.

    Raises:
        NicOffloadError: `ConflictError`: something stands against it, and nothing was changed; `VerificationError`: it
            succeeded, and the mode is another; or as the driver refused.
    """
    found = nic.eswitch_mode()
    if found == mode:
        return
    if found is None:
        raise _without_modes(nic, mode)
    against = list(obstacles(nic, flows=flows))
    if against:
        raise ConflictError(
            f"the eswitch can't change to {mode}: {'; '.join(map(str, against))}",
            existing=against[0].message,
            device=nic.device,
            hint=against[0].accepted,
        )
    try:
        with Devlink(nic.kernel) as devlink:
            devlink.set_eswitch(nic.place.handle, mode=EswitchMode(mode))
    except NicOffloadError as error:
        now = Situation(
            mode=found, vf_count=nic.count_vfs(), flows=flows > 0, rate_nodes=_rate_nodes(nic) > 0
        )
        explained = explain(
            error, nic.profile, Operation.MODE, now, capability=_CAPABILITY, device=nic.device
        )
        raise explained from (None if explained is error else error)
    nic.wait_until(lambda: _is_there(nic), APPEAR_TIMEOUT_S)
    actual = nic.eswitch_mode()
    if actual != mode:
        raise VerificationError(
            "the call succeeded and the mode is another",
            expected=mode,
            actual=str(actual),
            device=nic.device,
        )


def mode_command(nic: LinuxNic, mode: str) -> str:
    """Return the `devlink` command that changes the mode."""
    return eswitch_command(nic.place.handle, mode=EswitchMode(mode))


def _is_there(nic: LinuxNic) -> bool:
    try:
        nic.pf()
    except DeviceGoneError:
        return False
    return True


def _rate_nodes(nic: LinuxNic) -> int:
    with contextlib.suppress(NicOffloadError), Devlink(nic.kernel) as devlink:
        return sum(isinstance(rate.ref, RateNode) for rate in devlink.rates(nic.place.handle))
    return 0


def _without_modes(nic: LinuxNic, mode: str) -> NotSupportedError:
    eswitch = nic.profile.eswitch
    reason = Reason(
        code="eswitch.absent",
        path="",
        message="the driver tells no mode of an eswitch",
        source=eswitch.source if eswitch is not None else "",
    )
    return NotSupportedError(
        f"the eswitch can't be in {mode} mode", capability=_CAPABILITY, reasons=[reason], device=nic.device
    )
