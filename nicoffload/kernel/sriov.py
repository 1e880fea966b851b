"""SR-IOV in sysfs: how many VFs there are, and which."""

from __future__ import annotations

import errno
from dataclasses import dataclass

from nicoffload.errors import InvalidRequestError, NicOffloadError, VerificationError
from nicoffload.kernel.pci import PciFunction
from nicoffload.kernel.seam import Kernel

_CAPABILITY = "sriov"


@dataclass(frozen=True, slots=True, kw_only=True)
class SriovState:
    """What a physical function has of SR-IOV.

    Args:
        total: Most VFs that its driver makes.
        autoprobe: Whether drivers of this host are bound to new VFs.
        vfs: PCI addresses of the VFs there are, by their index.
    """

    total: int
    autoprobe: bool
    vfs: tuple[str, ...]


class Sriov:
    """SR-IOV of one physical function.

    Args:
        kernel: The kernel.
        address: PCI address of the physical function.

    Raises:
        InvalidRequestError: The address is none.
    """

    def __init__(self, kernel: Kernel, address: str) -> None:
        self._function = PciFunction(kernel, address)

    def state(self) -> SriovState:
        """Return what there is.

        Raises:
            NicOffloadError: `NotSupportedError`: the function has no SR-IOV; `DeviceGoneError`: it is gone.
        """
        return SriovState(
            total=self._function.read_number("sriov_totalvfs", capability=_CAPABILITY),
            autoprobe=self._function.read("sriov_drivers_autoprobe", capability=_CAPABILITY) == "1",
            vfs=tuple(self._function.virtual_functions()),
        )

    def set_autoprobe(self, *, on: bool) -> None:
        """Choose whether drivers of this host are bound to new VFs; those there are stay as they are.

        Raises:
            NicOffloadError: See `state`.
        """
        self._function.write("sriov_drivers_autoprobe", "1" if on else "0", capability=_CAPABILITY)
        read = self._function.read("sriov_drivers_autoprobe", capability=_CAPABILITY)
        self._verify("sriov_drivers_autoprobe", "1" if on else "0", read)

    def set_vfs(self, count: int) -> tuple[str, ...]:
        """Make as many VFs, and return their PCI addresses by index.

        Linux changes no number but from 0 and to 0, so all VFs go before others come, with all that was set on them.
        Where there are as many already, nothing happens.

        Args:
            count: 0 to `SriovState.total`.

        Raises:
            NicOffloadError: `InvalidRequestError`: too many; `DeviceBusyError`: somebody holds a VF, and nothing was
                changed; `VerificationError`: the driver said yes and did another thing; or as the driver refused.
        """
        device = self._function.address
        now = self.state()
        if isinstance(count, bool) or not 0 <= count <= now.total:
            raise InvalidRequestError(
                f"{count} VFs; the driver makes 0 to {now.total}",
                path="/vfs",
                device=device,
                errno=errno.ERANGE if count > now.total else errno.EINVAL,
            )
        # Not from sriov_numvfs: to read that waits for whoever writes it, who may wait for a VM to end.
        if count == len(now.vfs):
            return now.vfs
        if now.vfs:
            self._function.refuse_if_held("removing the VFs")
            self._write(0)
        if count:
            try:
                self._write(count)
            except NicOffloadError as refused:
                if now.vfs:
                    refused.hint = f"the {len(now.vfs)} VFs there were are gone; ask for that many again"
                raise
        found = tuple(self._function.virtual_functions())
        self._verify("the number of VFs", str(count), str(len(found)))
        return found

    def _write(self, count: int) -> None:
        self._function.write("sriov_numvfs", str(count), capability=_CAPABILITY)
        self._verify("sriov_numvfs", str(count), self._function.read("sriov_numvfs", capability=_CAPABILITY))

    def _verify(self, what: str, expected: str, actual: str) -> None:
        if expected != actual:
            raise VerificationError(
                f"{what} is {actual} after {expected} was written",
                expected=expected,
                actual=actual,
                device=self._function.address,
                hint="some drivers take the number of VFs as a parameter of their module only",
            )
