"""What every handle on the filters of a hook has: its socket, closed when done."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from nicoffload.kernel.netlink import Netlink
from nicoffload.kernel.seam import NETLINK_ROUTE, Kernel
from nicoffload.kernel.tc.values import Hook


class Hooked:
    """A handle on the filters of one hook. Of one thread; close it.

    Args:
        kernel: The kernel.
        hook: Where they hang.
        device: Named in errors.

    Raises:
        OSError: No netlink socket can be had.
    """

    def __init__(self, kernel: Kernel, hook: Hook, *, device: str = "") -> None:
        self.hook = hook
        self._device = device
        self._netlink = Netlink(kernel, NETLINK_ROUTE, device=device)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the socket; filters stay. Repeatable."""
        self._netlink.close()
