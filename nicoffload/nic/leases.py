"""Who may use which VF: an owner, an end, and a fencing epoch by which a late clean-up is known."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial

from nicoffload.driver.contract import VirtualFunctions
from nicoffload.errors import (
    ConflictError,
    InvalidRequestError,
    NicOffloadError,
    NotFoundError,
    NotSupportedError,
    ResourceExhaustedError,
)
from nicoffload.nic.journal import Journal, LeaseRow
from nicoffload.nic.retry import Retry
from nicoffload.nic.values import Lease, LeaseRelease

MAX_TTL_S = 10 * 365 * 86400.0


class LeaseDesk:
    """Gives VFs out and takes them back.

    Args:
        journal: Where the leases are.
        vfs: The VFs.
        device: The NIC, for errors.
        retry: How often to reset a busy VF.
        wall_clock_s: Seconds since the epoch.
    """

    def __init__(
        self,
        journal: Journal,
        vfs: VirtualFunctions,
        device: str,
        retry: Retry,
        wall_clock_s: Callable[[], float],
    ) -> None:
        self._journal = journal
        self._vfs = vfs
        self._device = device
        self._retry = retry
        self._wall_clock_s = wall_clock_s

    def lease(self, owner: str, ttl_s: float, vf: int | None) -> Lease:
        """Find a free VF and claim it; the writer's lock is held, so that a reset can't hit another's VF."""
        self._check(owner, ttl_s)
        exist = [state.vf for state in self._vfs.states()]
        if vf is not None and vf not in exist:
            raise NotFoundError(
                f"there is no VF {vf}; {len(exist)} exist", path="/vf", device=self._device, hint=_MORE_VFS
            )
        candidates = exist if vf is None else [vf]
        stuck: list[NicOffloadError] = []
        while True:
            claim = partial(self._claim, candidates=tuple(candidates), owner=owner, ttl_s=ttl_s)
            try:
                lease = self._journal.update_leases(claim)
            except NicOffloadError as none_left:
                if stuck:
                    raise stuck[0] from none_left
                raise
            if not self._journal.leases()[lease.vf].dirty:
                return lease
            try:
                self._reset(lease)
            except NicOffloadError as error:
                # One that a VM still has open, say, is nobody's reason to get none.
                stuck.append(error)
                candidates = [one for one in candidates if one != lease.vf]
            else:
                return lease

    def renew(self, lease: Lease, ttl_s: float) -> Lease:
        """Give a lease more time; one that ended is good as long as nobody else took the VF."""
        self._check(lease.owner, ttl_s)
        expires = self._wall_clock_s() + ttl_s

        def change(rows: dict[int, LeaseRow]) -> str:
            row = rows.get(lease.vf)
            if row is None or not _holds(row, lease):
                return _who(row)
            row.expires_at_s = expires
            return ""

        holder = self._journal.update_leases(change)
        if holder:
            raise ConflictError(
                f"the lease of VF {lease.vf} (epoch {lease.epoch}) is over: {holder}",
                existing=holder,
                device=self._device,
                hint="lease a VF anew",
            )
        return Lease(vf=lease.vf, owner=lease.owner, epoch=lease.epoch, expires_at_s=expires)

    def release(self, lease: Lease) -> LeaseRelease:
        """Reset the VF and give it back; a lease that is over gives nothing back and touches nothing."""

        def mark(rows: dict[int, LeaseRow]) -> str:
            row = rows.get(lease.vf)
            if row is None or not _holds(row, lease):
                return _who(row)
            row.dirty = True
            return ""

        def free(rows: dict[int, LeaseRow]) -> None:
            row = rows[lease.vf]
            row.owner, row.dirty = "", False

        holder = self._journal.update_leases(mark)
        if holder:
            return LeaseRelease(
                released=False,
                detail=f"the lease of VF {lease.vf} (epoch {lease.epoch}) was over before; {holder}",
            )
        why_not = self._clean(lease.vf)
        self._journal.update_leases(free)
        return LeaseRelease(released=True, detail=why_not and f"VF {lease.vf} was not reset: {why_not}")

    def leases(self) -> Sequence[Lease]:
        """Return the leases that are not over, by VF."""
        now_s = self._wall_clock_s()
        return tuple(
            Lease(vf=vf, owner=row.owner, epoch=row.epoch, expires_at_s=row.expires_at_s)
            for vf, row in sorted(self._journal.leases().items())
            if row.owner and row.expires_at_s > now_s
        )

    def refuse_while_held(self, what: str) -> None:
        """Raise `ConflictError` naming the owners, unless no VF is leased.

        Args:
            what: What is about to be done, and what that does to VFs.
        """
        held = self.leases()
        if held:
            owners = ", ".join(f"VF {lease.vf} by {lease.owner}" for lease in held)
            raise ConflictError(
                f"{what}, and some are leased: {owners}",
                existing=held[0].owner,
                device=self._device,
                hint="release them first, or force it",
            )

    def end_all(self) -> Mapping[int, LeaseRow]:
        """End all leases before their VFs are taken away, and return those that were ended.

        Their epochs stay, so that a late release does no harm. Until `made_anew`, a VF is reset before somebody gets
        it: the process may die before the VFs are made anew.
        """
        if not any(row.owner or row.dirty for row in self._journal.leases().values()):
            return {}

        def change(rows: dict[int, LeaseRow]) -> dict[int, LeaseRow]:
            ended = {vf: replace(row) for vf, row in rows.items() if row.owner or row.dirty}
            for vf in ended:
                rows[vf].owner, rows[vf].dirty = "", True
            return ended

        return self._journal.update_leases(change)

    def made_anew(self) -> None:
        """Note that all VFs are new: none has anything of an old owner."""
        if not any(row.dirty for row in self._journal.leases().values()):
            return

        def change(rows: dict[int, LeaseRow]) -> None:
            for row in rows.values():
                row.dirty = False

        self._journal.update_leases(change)

    def go_on(self, ended: Mapping[int, LeaseRow]) -> None:
        """Let leases go on that `end_all` ended: their VFs were not touched."""
        if ended:
            self._journal.update_leases(lambda rows: rows.update(ended))

    def _claim(self, rows: dict[int, LeaseRow], candidates: Sequence[int], owner: str, ttl_s: float) -> Lease:
        now_s = self._wall_clock_s()

        def needs_reset(vf: int) -> bool:
            return vf in rows and (rows[vf].dirty or bool(rows[vf].owner))

        for vf in sorted(candidates, key=lambda vf: (needs_reset(vf), vf)):
            row = rows.get(vf)
            if row is not None and row.owner and row.expires_at_s > now_s:
                continue
            # The clock keeps epochs from being given twice even when the record of the last one was lost.
            epoch = max(row.epoch + 1 if row else 1, int(now_s))
            evicted = row is not None and (row.dirty or bool(row.owner))
            rows[vf] = LeaseRow(owner=owner, epoch=epoch, expires_at_s=now_s + ttl_s, dirty=evicted)
            return Lease(vf=vf, owner=owner, epoch=epoch, expires_at_s=now_s + ttl_s)
        holders = ", ".join(f"VF {vf} by {rows[vf].owner}" for vf in candidates)
        if len(candidates) == 1:
            raise ConflictError(
                f"leased: {holders}", existing=rows[candidates[0]].owner, path="/vf", device=self._device
            )
        raise ResourceExhaustedError(
            f"no VF is free ({holders})" if holders else "there are no VFs",
            limit=len(candidates),
            in_use=len(candidates),
            device=self._device,
            hint=_MORE_VFS,
        )

    def _reset(self, lease: Lease) -> None:
        """Rid a VF of its last owner's doings; a VF that can't be reset is given to nobody."""

        def clean(rows: dict[int, LeaseRow]) -> None:
            rows[lease.vf].dirty = False

        def give_up(rows: dict[int, LeaseRow]) -> None:
            rows[lease.vf].owner = ""

        try:
            self._clean(lease.vf)
        except BaseException:
            self._journal.update_leases(give_up)
            raise
        self._journal.update_leases(clean)

    def _clean(self, vf: int) -> str:
        """Reset a VF that exists; return why it was not, where there is no function that could keep anything.

        Raises:
            NicOffloadError: It has one, and that was not reset.
        """
        state = next((state for state in self._vfs.states() if state.vf == vf), None)
        if state is None:
            return ""
        try:
            self._retry.call(lambda: self._vfs.reset(vf))
        except NotSupportedError as error:
            if state.pci_address:
                error.hint = (
                    error.hint or "make the VFs anew: `nicoffload vf create` with 0, then with their number"
                )
                raise
            return error.message
        return ""

    def _check(self, owner: str, ttl_s: float) -> None:
        if not owner or not isinstance(owner, str):
            raise InvalidRequestError("a lease has an owner", path="/owner", device=self._device)
        if not isinstance(ttl_s, int | float) or not 0 < ttl_s <= MAX_TTL_S:
            raise InvalidRequestError(
                f"{ttl_s!r} is no time from above 0 to {MAX_TTL_S:g} s", path="/ttl_s", device=self._device
            )


_MORE_VFS = "release a VF or make more: `nicoffload vf create`"


def _holds(row: LeaseRow, lease: Lease) -> bool:
    return row.owner == lease.owner and row.epoch == lease.epoch


def _who(row: LeaseRow | None) -> str:
    if row is None or not row.owner:
        return "the VF is free"
    return f"{row.owner} holds the VF (epoch {row.epoch})"
