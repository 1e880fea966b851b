"""Transmit rates of VFs on a live NIC: through rtnetlink in whole Mbit/s, or through devlink in switchdev mode."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nicoffload.driver.contract import RateControl
from nicoffload.errors import DeviceBusyError, NicOffloadError, NotFoundError
from nicoffload.kernel.devlink import Devlink, PortFlavour, RateChange, RateLeaf, rate_command
from nicoffload.kernel.link import read_carrier_changes
from nicoffload.kernel.vf import VfLink, VfRequest, set_commands
from nicoffload.linux.coming import coming_port
from nicoffload.linux.errnos import Certainty, explain, meanings
from nicoffload.linux.explaining import vf_situation
from nicoffload.linux.functions import BUSY_TIMEOUT_S, rate_limit
from nicoffload.linux.nic import POLL_S, LinuxNic
from nicoffload.linux.situation import Operation, Situation
from nicoffload.model import RateLimit, RateReport, VfConfig
from nicoffload.profiles.types import Rate

_NONE = RateLimit()
_RTNETLINK_STEP_BPS = 1_000_000
_DEVLINK_STEP_BPS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stepped:
    """A rate as the interface can say it.

    Args:
        limit: The rates.
        note: What was rounded, in words.
    """

    limit: RateLimit
    note: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """What was asked for a VF.

    Args:
        limit: The rates.
        carrier_changes: How often the port's carrier had changed by then; None where Linux does not tell.
    """

    limit: RateLimit
    carrier_changes: int | None


class LinuxRates(RateControl):
    """The transmit rates of VFs.

    Args:
        nic: The NIC.
    """

    def __init__(self, nic: LinuxNic) -> None:
        self._nic = nic
        self._asked: dict[int, _Asked] = {}

    def set_many(self, limits: Mapping[int, RateLimit]) -> Mapping[int, RateReport | NicOffloadError]:
        """Set rates; a VF that is refused keeps what it had, also where the driver sets one before it refuses both."""
        with self._nic.asking("setting rates", "rates"):
            leaves = self._leaves()
            before = self._read(leaves)
            stepped = {vf: self._stepped(limit, devlink=bool(leaves)) for vf, limit in limits.items()}
            refused = self._send(leaves, {vf: one.limit for vf, one in stepped.items()})
            answers: dict[int, RateReport | NicOffloadError] = {}
            after = self._read(leaves)
            for vf, error in refused.items():
                self._put_back(leaves, vf, before.get(vf), after.get(vf))
                answers[vf] = error
            carrier_changes = self._carrier_changes()
            for vf, limit in limits.items():
                if vf not in refused:
                    self._asked[vf] = _Asked(limit=limit, carrier_changes=carrier_changes)
                    answers[vf] = self._report(vf, limit, stepped[vf], after.get(vf))
            return answers

    def read(self) -> Sequence[RateReport]:
        """Return the rates of all VFs, with what was asked for in this process."""
        with self._nic.asking("reading rates", "rates"):
            leaves = self._leaves()
            found = self._read(leaves)
            reports = []
            for vf, read in sorted(found.items()):
                asked = self._asked.get(vf)
                if asked is None:
                    reports.append(
                        RateReport(vf=vf, requested=None, applied=self._applied_of(read), read_back=read)
                    )
                else:
                    stepped = self._stepped(asked.limit, devlink=bool(leaves))
                    reports.append(self._report(vf, asked.limit, stepped, read))
            return reports

    def lost(self) -> Mapping[int, RateLimit]:
        """Return what was asked for in this process and reads back as none since the carrier went, by VF.

        A driver drops rates when the carrier comes back. One that is gone while the carrier stayed was taken away by
        somebody, who will have had a reason.
        """
        carrier_changes = self._carrier_changes()
        return {
            report.vf: report.requested
            for report in self.read()
            if report.requested is not None
            and _is_lost(report.requested, report.read_back)
            and (carrier_changes is None or self._asked[report.vf].carrier_changes != carrier_changes)
        }

    def forget(self) -> None:
        """Forget what was asked for: the VFs are new ones."""
        self._asked.clear()

    def _carrier_changes(self) -> int | None:
        return read_carrier_changes(self._nic.kernel, self._nic.pf().ifname)

    def commands(self, vf: int, limit: RateLimit) -> Sequence[str]:
        """Return the `ip` or `devlink` command that sets the same rates."""
        by_leaf = self._by_leaf(self._nic.mode_ahead())
        stepped = self._stepped(limit, devlink=by_leaf).limit
        if by_leaf:
            leaves = {} if self._nic.ahead.vf_count is not None else self._leaves()
            leaf = leaves.get(vf) or coming_port(vf)
            return [rate_command(self._nic.place.handle, leaf, _change(stepped))]
        return set_commands(self._nic.pf().ifname, VfRequest(config=VfConfig(vf=vf), rate=stepped))

    # ------------------------------------------------------------------------------------------ for plugins to refine

    def refused(self, error: NicOffloadError, vf: int, limit: RateLimit) -> NicOffloadError:
        """Return what a driver's refusal of rates means."""
        by_devlink = self._nic.profile.rates.devlink is not None and self._nic.eswitch_mode() == "switchdev"
        operation = Operation.DEVLINK_RATE if by_devlink else Operation.VF_RATE
        asked = {
            kind: bps for kind in ("min_tx", "max_tx") if (bps := getattr(limit, f"{kind}_bps")) is not None
        }
        others = self._guarantees_but(vf) if "min_tx" in asked else None
        if error.errno is None:
            return error
        nows = {
            kind: vf_situation(
                self._nic, path=f"/rates/{vf}/{kind}_bps", vf=vf, setting=kind, value=bps, others_bps=others
            )
            for kind, bps in (asked or {"max_tx": 0}).items()
        }
        # One request has both rates: the one of which the state explains the refusal was meant.
        sure = (kind for kind, now in nows.items() if self._is_sure(error.errno, operation, now))
        kind = next(sure, next(iter(nows)))
        return explain(
            error,
            self._nic.profile,
            operation,
            nows[kind],
            capability=f"rates.{kind}",
            device=self._nic.device,
        )

    def _is_sure(self, errno: int, operation: Operation, now: Situation) -> bool:
        found = meanings(self._nic.profile, operation, errno, now)
        return bool(found) and found[0].certainty is not Certainty.POSSIBLE

    def _guarantees_but(self, vf: int) -> int:
        return sum(
            (read.min_tx_bps or 0)
            for other, read in self._read(self._leaves()).items()
            if other != vf and read is not None
        )

    # --------------------------------------------------------------------------------------------------- two ways

    def _by_leaf(self, mode: str | None) -> bool:
        """Tell whether rates go through devlink in a mode of the switch."""
        facts = self._nic.profile.rates.devlink
        return facts is not None and bool(facts.leaf) and mode == "switchdev"

    def _leaves(self) -> dict[int, RateLeaf]:
        """Return VF to its rate object in devlink; empty where rates go through rtnetlink."""
        if not self._by_leaf(self._nic.eswitch_mode()):
            return {}
        ports = {
            port.index: port.vf
            for port in self._nic.devlink_ports()
            if port.flavour is PortFlavour.PCI_VF and port.vf is not None and not port.external
        }
        with Devlink(self._nic.kernel) as devlink:
            rates = devlink.rates(self._nic.place.handle)
        return {
            vf: rate.ref
            for rate in rates
            if isinstance(rate.ref, RateLeaf) and (vf := ports.get(rate.ref.port)) is not None
        }

    def _read(self, leaves: Mapping[int, RateLeaf]) -> dict[int, RateLimit | None]:
        if leaves:
            by_leaf = {leaf: vf for vf, leaf in leaves.items()}
            with Devlink(self._nic.kernel) as devlink:
                return {
                    by_leaf[rate.ref]: rate_limit(rate.tx_share_bps, rate.tx_max_bps)
                    for rate in devlink.rates(self._nic.place.handle)
                    if isinstance(rate.ref, RateLeaf) and rate.ref in by_leaf
                }
        with VfLink(self._nic.kernel, self._nic.pf().ifindex, device=self._nic.device) as link:
            return {
                report.vf: None
                if report.max_tx_bps is None
                else rate_limit(report.min_tx_bps, report.max_tx_bps)
                for report in link.read()
            }

    def _send(
        self, leaves: Mapping[int, RateLeaf], limits: Mapping[int, RateLimit]
    ) -> dict[int, NicOffloadError]:
        """Set rates, again where the driver is busy, and return those that it refused."""
        deadline_s = self._nic.context.monotonic_s() + BUSY_TIMEOUT_S
        refused: dict[int, NicOffloadError] = {}
        todo = dict(limits)
        while todo:
            answers = self._send_leaves(leaves, todo) if leaves else self._send_vfs(todo)
            errors = {vf: self.refused(error, vf, todo[vf]) for vf, error in answers.items()}
            late = self._nic.context.monotonic_s() >= deadline_s
            busy = {vf for vf, error in errors.items() if isinstance(error, DeviceBusyError) and not late}
            refused |= {vf: error for vf, error in errors.items() if vf not in busy}
            todo = {vf: todo[vf] for vf in busy}
            if todo:
                self._nic.context.sleep_s(POLL_S)
        return refused

    def _send_vfs(self, limits: Mapping[int, RateLimit]) -> dict[int, NicOffloadError]:
        requests = [VfRequest(config=VfConfig(vf=vf), rate=limit) for vf, limit in limits.items()]
        with VfLink(self._nic.kernel, self._nic.pf().ifindex, device=self._nic.device) as link:
            return {one.vf: one.error for one in link.apply(requests)}

    def _send_leaves(
        self, leaves: Mapping[int, RateLeaf], limits: Mapping[int, RateLimit]
    ) -> dict[int, NicOffloadError]:
        refused: dict[int, NicOffloadError] = {}
        with Devlink(self._nic.kernel) as devlink:
            for vf, limit in limits.items():
                if vf not in leaves:
                    refused[vf] = NotFoundError(
                        f"devlink has no rate of VF {vf}", device=self._nic.device, path=f"/rates/{vf}"
                    )
                    continue
                try:
                    devlink.set_rate(self._nic.place.handle, leaves[vf], _change(limit))
                except NicOffloadError as error:
                    refused[vf] = error
        return refused

    def _put_back(
        self,
        leaves: Mapping[int, RateLeaf],
        vf: int,
        before: RateLimit | None,
        after: RateLimit | None,
    ) -> None:
        """Set a VF's old rates again where a refused request changed them: min before max, without a way back."""
        if before is not None and after is not None and before != after:
            self._send(leaves, {vf: before})

    # ---------------------------------------------------------------------------------------------- what becomes of it

    def _stepped(self, limit: RateLimit, *, devlink: bool) -> _Stepped:
        """Return rates in whole steps of the interface, at least one: 0 would mean none."""
        notes: list[str] = []
        values: dict[str, Any] = {}
        for name in ("min_tx", "max_tx"):
            facts: Rate = getattr(self._nic.profile.rates, name)
            bps = getattr(limit, f"{name}_bps")
            step = self._step(facts, devlink=devlink)
            if bps is not None:
                rounded = max(bps // step, 1) * step
                if rounded != bps:
                    notes.append(f"{name.removesuffix('_tx')}: the interface takes steps of {step} bit/s")
                bps = rounded
            values[f"{name}_bps"] = bps
        return _Stepped(limit=RateLimit(**values), note="; ".join(notes))

    def _step(self, facts: Rate, *, devlink: bool) -> int:
        if not devlink:
            return max(facts.api_quantum_bps, _RTNETLINK_STEP_BPS)
        rates = self._nic.profile.rates.devlink
        assert rates is not None
        return rates.quantum_bps if rates.rounding == "refuse" else _DEVLINK_STEP_BPS

    def _applied(self, bps: int | None, facts: Rate) -> int | None:
        """Return what the NIC enforces of a rate, by the profile."""
        if bps is None or facts.supported == "no":
            return None
        if facts.smallest_bps is not None and bps < facts.smallest_bps and facts.below_smallest == "raise":
            return facts.smallest_bps
        step = facts.quantum_bps
        if facts.rounding == "down":
            return bps // step * step
        return (bps + step // 2) // step * step if facts.rounding == "nearest" else bps

    def _applied_of(self, limit: RateLimit | None) -> RateLimit | None:
        if limit is None:
            return None
        rates = self._nic.profile.rates
        return rate_limit(
            self._applied(limit.min_tx_bps, rates.min_tx), self._applied(limit.max_tx_bps, rates.max_tx)
        )

    def _report(self, vf: int, requested: RateLimit, stepped: _Stepped, read: RateLimit | None) -> RateReport:
        applied = self._applied_of(stepped.limit)
        rates = self._nic.profile.rates
        notes = [stepped.note] if stepped.note else []
        if applied != stepped.limit:
            notes.append("the NIC works in coarser steps")
        if read is not None and read != applied:
            lost = {*rates.min_tx.lost_on, *rates.max_tx.lost_on}
            if read == _NONE and lost:
                applied = read
                notes.append(f"the rate is gone: the driver loses it on {' and '.join(sorted(lost))}")
            elif rates.max_tx.needs_port_vlan and read.max_tx_bps is None:
                applied = read
                notes.append("the rate takes effect only while the VF has a port VLAN")
            else:
                notes.append("the NIC does not report what it does")
        return RateReport(vf=vf, requested=requested, applied=applied, read_back=read, note="; ".join(notes))


def _is_lost(asked: RateLimit, found: RateLimit | None) -> bool:
    return found is not None and any(
        getattr(asked, name) is not None and getattr(found, name) is None
        for name in ("min_tx_bps", "max_tx_bps")
    )


def _change(limit: RateLimit) -> RateChange:
    return RateChange(tx_share_bps=limit.min_tx_bps or 0, tx_max_bps=limit.max_tx_bps or 0)
