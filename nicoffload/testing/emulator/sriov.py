"""The virtual functions of a device: made, configured, reset, limited."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from nicoffload.testing.emulator import assumptions
from nicoffload.testing.emulator import vfs as vf_rules
from nicoffload.testing.emulator.actions import Targets
from nicoffload.testing.emulator.answer import Refused
from nicoffload.testing.emulator.bucket import Setting, TokenBucket, apply_rate
from nicoffload.testing.emulator.config import vf_limit
from nicoffload.testing.emulator.vfs import Vf

if TYPE_CHECKING:
    from nicoffload.testing.emulator.device import Device

FIRST_VF_PORT = 2


class Sriov:
    """All VFs of a device, and the requests on them.

    Args:
        device: Whose VFs they are.
        document: Its profile.
    """

    def __init__(self, device: Device, document: Mapping[str, Any]) -> None:
        self.vfs: list[Vf] = []
        self.autoprobe = True
        """Whether new VFs get their driver on the host."""
        self._device = device
        self._document = document
        self._targets: Targets | None = None
        self._buckets: dict[int, TokenBucket] = {}

    @property
    def limit(self) -> int:
        """How many there can be."""
        return vf_limit(self._document)

    def set_count(self, count: int) -> None:
        """Write sriov_numvfs.

        Raises:
            Refused: The kernel's or the driver's answer.
        """
        device, doc = self._device, self._document["sriov"]
        device.check("vf_count")
        if doc is None:
            raise Refused("ENOENT", "sriov", "no SR-IOV")
        errors = doc["errors"]
        if count > self.limit:
            answer = errors.get("above_total") or errors.get("too_many") or "ERANGE"
            raise Refused(answer, "too_many", f"at most {self.limit} VFs")
        if count == len(self.vfs):
            return
        write = doc.get("sysfs_write", "works" if doc["method"] in {"sysfs", "links"} else "ENOENT")
        if write not in ("works", "no_effect"):
            raise Refused(write, "sriov", "VFs are not made here")
        if write == "no_effect" or device.does_nothing("vf_count"):
            return
        if count and self.vfs:
            raise Refused(errors.get("not_zero_first") or "EBUSY", "vfs_present", "write 0 first")
        self.make(count - min(count, device.faults.missing_vfs()), self._reset_end_ns())
        device.changed()

    def make(self, count: int, ready_ns: int) -> None:
        """Have so many VFs, all new."""
        driver = (self._document.get("vf_driver") or "") if self.autoprobe else ""
        self.adopt([vf_rules.new_vf(self._document["vf"], at, driver, ready_ns) for at in range(count)])
        self._device.ports.resize(FIRST_VF_PORT)
        self._device.ports.resize(FIRST_VF_PORT + count)

    def adopt(self, vfs: list[Vf]) -> None:
        """Have these VFs."""
        self.vfs = vfs
        self._buckets.clear()
        self._targets = None

    def set(self, index: int, name: str, value: vf_rules.Value) -> None:
        """Change one setting of a VF.

        Raises:
            Refused: The driver's answer.
        """
        self._device.check("vf_set")
        vf = self._get(index)
        if self._device.does_nothing("vf_set"):
            return
        if vf_rules.change(self._document["vf"], vf, name, value, self._device.mode):
            self._reset(vf)
        self._device.changed([vf])

    def reset(self, index: int) -> None:
        """Start a function level reset.

        Raises:
            Refused: The driver's answer; condition ``busy`` while the VF is resetting.
        """
        self._device.check("vf_reset")
        vf = self._get(index)
        if not self.is_ready(vf):
            raise self._busy(vf, "EBUSY")
        if self._device.does_nothing("vf_reset"):
            return
        self._reset(vf)
        self._device.changed([vf])

    def reset_unasked(self, index: int) -> None:
        """Reset a VF behind the driver's back, as its guest can."""
        if index < len(self.vfs):
            self._reset(self.vfs[index])
            self._device.changed([self.vfs[index]])

    def lose_rates(self, events: Iterable[str]) -> None:
        """Forget the rates that the driver loses by one of these events."""
        for kind in ("min_tx", "max_tx"):
            if set(events) & set(self._document["rates"][kind].get("lost_on", ())):
                for vf in self.vfs:
                    setattr(vf, kind, Setting())
                self._buckets.clear()

    def reset_all(self) -> None:
        """Reset every VF, as a reset of the device does."""
        for vf in self.vfs:
            self._reset(vf)

    def bind(self, index: int, driver: str) -> None:
        """Bind a VF to a driver, or unbind it.

        Raises:
            Refused: No such VF, or no such driver.
        """
        self._device.check("vf_bind")
        if index >= len(self.vfs):
            raise Refused("ENOENT", "vf_range", f"there is no VF {index}", "/vf")
        if driver not in ("", "vfio-pci", self._document.get("vf_driver")):
            raise Refused("ENOENT", "driver", f"no driver {driver!r}", "/driver")
        if self._device.does_nothing("vf_bind"):
            return
        self.vfs[index].driver = driver
        self._targets = None
        self._device.changed([self.vfs[index]])

    def set_rate(self, index: int, kind: str, bps: int) -> None:
        """Set a VF's ``min_tx`` or ``max_tx``; 0 clears it.

        Raises:
            Refused: The driver's answer.
        """
        self._device.check("rate_set")
        vf = self._get(index)
        doc, link_bps = self._document["rates"][kind], self._device.speed_bps
        setting = apply_rate(doc, bps, link_bps, up=self._device.link_bps > 0)
        if doc.get("sum_within_link"):
            others = sum(getattr(other, kind).applied for other in self.vfs if other is not vf)
            if others + setting.applied > link_bps:
                answer = doc.get("range_errno", "EINVAL")
                raise Refused(answer, "rate_sum", "all together exceed the link", f"/{kind}")
        if self._device.does_nothing("rate_set"):
            return
        setattr(vf, kind, setting)
        self._buckets.pop(index, None)
        self._device.changed([vf])

    def set_devlink_rate(self, index: int, kind: str, bps: int) -> None:
        """Set a VF's ``min_tx`` or ``max_tx`` by its rate object in devlink; 0 clears it.

        Raises:
            Refused: The driver's answer.
        """
        self._device.check("rate_set")
        vf = self._get(index)
        setting = self.check_devlink_rate(bps)
        if self._device.does_nothing("rate_set"):
            return
        setattr(vf, kind, setting)
        self._buckets.pop(index, None)
        self._device.changed([vf])

    def check_devlink_rate(self, bps: int) -> Setting:
        """Return what the driver makes of a rate that comes through devlink.

        Raises:
            Refused: Its answer; condition ``not_multiple`` or ``range``.
        """
        doc = self._document["rates"]["devlink"]
        errors = doc["errors"]
        quantum = doc["quantum_bps"]
        if doc["rounding"] == "refuse" and bps % quantum:
            answer = errors.get("not_multiple") or errors.get("range") or "EINVAL"
            raise Refused(answer, "not_multiple", f"not a multiple of {quantum} bit/s")
        limits = {
            "supported": "yes",
            "quantum_bps": quantum,
            "rounding": doc["rounding"],
            "smallest_bps": doc.get("min_bps"),
            "largest_bps": doc.get("max_bps"),
        }
        try:
            return apply_rate(limits, bps, self._device.config.link_bps)
        except Refused as cause:
            raise Refused(errors.get("range") or "EINVAL", "range", cause.text) from cause

    def targets(self) -> Targets:
        """Return what actions of rules can name."""
        if self._targets is None:
            queues = (self._document["sriov"] or {}).get("queues_per_vf") or assumptions.QUEUES_PER_VF
            host = self._document.get("vf_driver")
            unbound = frozenset(vf.index for vf in self.vfs if not vf.driver or vf.driver != host)
            self._targets = Targets(len(self.vfs), unbound, queues, self._device.pf_queues)
        return self._targets

    def is_ready(self, vf: Vf) -> bool:
        """Return whether a VF is out of its reset."""
        return vf.ready_ns <= self._device.now_ns

    def holds_rate(self, vf: Vf, kind: str) -> bool:
        """Return whether a rate that was taken is enforced and reported."""
        return vf.has_vlan or not self._document["rates"][kind].get("needs_port_vlan")

    def bucket(self, index: int) -> TokenBucket | None:
        """Return the token bucket of a VF's transmit limit; None where it has none."""
        if index >= len(self.vfs):
            return None
        vf = self.vfs[index]
        if not vf.max_tx.applied or not self.holds_rate(vf, "max_tx"):
            return None
        found = self._buckets.get(index)
        if found is None:
            burst, now_ns = assumptions.BURST_BYTES, self._device.now_ns
            found = self._buckets[index] = TokenBucket(vf.max_tx.applied, burst, now_ns)
        return found

    def _get(self, index: int) -> Vf:
        doc = self._document["vf"] or {}
        if index >= len(self.vfs):
            answer = doc.get("errors", {}).get("vf_range") or "EINVAL"
            raise Refused(answer, "vf_range", f"there is no VF {index}", "/vf")
        vf = self.vfs[index]
        busy = doc.get("busy_while_resetting")
        if busy and not self.is_ready(vf):
            raise self._busy(vf, busy)
        return vf

    def _busy(self, vf: Vf, errno: str) -> Refused:
        """Return the answer of a VF in reset; whoever gets it waits before they ask again, so the clock goes on."""
        self._device.advance(self._device.now_ns + assumptions.BUSY_WAIT_NS)
        return Refused(errno, "busy", f"VF {vf.index} is resetting")

    def _reset(self, vf: Vf) -> None:
        vf.ready_ns = self._reset_end_ns()
        for kind in ("min_tx", "max_tx"):
            if "vf_reset" in self._document["rates"][kind].get("lost_on", ()):
                setattr(vf, kind, Setting())
                self._buckets.pop(vf.index, None)

    def _reset_end_ns(self) -> int:
        return self._device.now_ns + assumptions.RESET_NS + self._device.faults.slow_ns()
