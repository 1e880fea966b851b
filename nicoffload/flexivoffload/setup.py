"""Gets a NIC ready for a replay: virtual functions for the VMs, their limits, no spoof check on shared addresses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from nicoffload import Nic
from nicoffload.errors import DeviceGoneError, InvalidRequestError, NicOffloadError
from nicoffload.flexivoffload.manager import Unusable
from nicoffload.flexivoffload.vms import Vm
from nicoffload.model import RateLimit, VfConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """What a NIC offers a replay.

    Args:
        vf_count: Virtual functions that exist.
        unusable: VMs that can't use theirs.
        notes: What the user should know.
    """

    vf_count: int
    unusable: Unusable
    notes: tuple[str, ...]


def prepare(nic: Nic, vms: Sequence[Vm], *, shares_addresses: bool = True) -> Prepared:
    """Give each VM its virtual function, as far as the NIC lets us.

    Args:
        nic: The NIC.
        vms: The VMs.
        shares_addresses: Whether a VM has one address on two interfaces, its VF and a paravirtual one, so that its VF
            sends from an address that is not the VF's own.

    Raises:
        InvalidRequestError: A VM names a VF beyond those that this NIC can have.
    """
    notes: list[str] = []
    try:
        count = _make_vfs(nic, vms, notes)
    except InvalidRequestError:
        raise
    except NicOffloadError as error:
        why = str(error)
        notes.append(f"no virtual functions: {why}")
        return Prepared(
            vf_count=0, unusable=Unusable(both=dict.fromkeys(range(len(vms)), why)), notes=tuple(notes)
        )
    missing = {
        index: f"VF {vm.vf} does not exist; there are {count}"
        for index, vm in enumerate(vms)
        if vm.vf >= count
    }
    sending = _limit(nic, [(i, vm) for i, vm in enumerate(vms) if i not in missing], notes)
    if shares_addresses:
        _allow_shared_addresses(
            nic, range(count) if not vms else [vm.vf for vm in vms if vm.vf < count], notes
        )
    return Prepared(vf_count=count, unusable=Unusable(both=missing, sending=sending), notes=tuple(notes))


def _make_vfs(nic: Nic, vms: Sequence[Vm], notes: list[str]) -> int:
    count = len(nic.vfs())
    needed = max((vm.vf + 1 for vm in vms), default=0)
    if needed <= count:
        return count
    most = nic.vf_limit()
    for vm in vms:
        if vm.vf >= most:
            raise InvalidRequestError(
                f"VM {vm.name!r} is to have VF {vm.vf}, and this NIC has VFs 0 to {most - 1}"
                if most
                else f"VM {vm.name!r} is to have VF {vm.vf}, and this NIC has none",
                device=nic.name,
                path="/vms",
                hint="give it another VF, or leave the VM out: its packets then stay on the virtual switch",
            )
    try:
        nic.set_vf_count(needed)
    except DeviceGoneError:
        raise
    except NicOffloadError as error:
        notes.append(f"{needed} VFs are needed and {count} exist: {error}")
    return len(nic.vfs())


def _limit(nic: Nic, vms: Sequence[tuple[int, Vm]], notes: list[str]) -> dict[int, str]:
    """Set the VMs' limits; answers for those whom nothing would hold to theirs."""
    loose: dict[int, str] = {}
    for index, vm in vms:
        if vm.max_tx_bps is None:
            continue
        try:
            nic.set_rates({vm.vf: RateLimit(max_tx_bps=vm.max_tx_bps)})
        except NicOffloadError as error:
            loose[index] = f"nothing would hold VM {vm.name!r} to its limit on VF {vm.vf}: {error}"
            notes.append(loose[index])
    return loose


def _allow_shared_addresses(nic: Nic, vfs: Sequence[int], notes: list[str]) -> None:
    try:
        checked = {state.vf for state in nic.vfs() if state.spoof_check and state.vf in vfs}
        if checked:
            nic.configure_vfs([VfConfig(vf=vf, spoof_check=False) for vf in sorted(checked)])
    except NicOffloadError as error:
        notes.append(f"the spoof check stays on, so the NIC may drop what VMs send by their VF: {error}")
