"""A real kernel whose every answer is kept."""

from __future__ import annotations

from nicoffload.kernel.linux import LinuxChannel, LinuxKernel
from nicoffload.kernel.seam import NetlinkChannel


class TappedChannel(LinuxChannel):
    """A netlink socket that notes what it receives.

    Args:
        family: Netlink family.
        heard: Where to.
    """

    def __init__(self, family: int, heard: list[bytes]) -> None:
        super().__init__(family)
        self._heard = heard

    def receive(self, timeout_s: float | None = None) -> bytes:
        datagram = super().receive(timeout_s)
        self._heard.append(datagram)
        return datagram


class TappedKernel(LinuxKernel):
    """The kernel that this process runs on; `heard` has what it answered, over netlink and by ioctl."""

    def __init__(self) -> None:
        super().__init__()
        self.heard: list[bytes] = []

    def open_netlink(self, family: int) -> NetlinkChannel:
        return TappedChannel(family, self.heard)

    def ethtool(self, ifname: str, buffer: bytes) -> bytes:
        answer = super().ethtool(ifname, buffer)
        self.heard.append(answer)
        return answer

    def take(self) -> list[bytes]:
        """Return what was heard, and forget it."""
        taken = list(self.heard)
        self.heard.clear()
        return taken
