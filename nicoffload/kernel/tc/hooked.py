"""What every handle on the filters of a hook has: its socket, closed when done."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Self

from nicoffload.errors import InvalidRequestError, NicOffloadError
from nicoffload.kernel.netlink import Netlink
from nicoffload.kernel.seam import NETLINK_ROUTE, Kernel
from nicoffload.kernel.tc.values import FilterRef, Hook


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


def check_one(ref: FilterRef, device: str) -> None:
    """Raise where a removal would take a whole pref, or the whole hook, with the filters of whomever.

    Raises:
        InvalidRequestError: Pref or handle is 0.
    """
    if not ref.pref or not ref.handle:
        raise InvalidRequestError(
            f"a filter of pref {ref.pref} and handle {ref.handle} is none: all of the pref would go",
            path="/handle" if ref.pref else "/pref",
            device=device,
            hint="read the filters, and name each by its handle",
        )


def removable(
    refs: Sequence[FilterRef], device: str
) -> tuple[list[NicOffloadError | None], dict[tuple[str, int], list[int]]]:
    """Return the answers so far, and the places of the others by kind and protocol; see `check_one`."""
    answers: list[NicOffloadError | None] = [None] * len(refs)
    shapes: dict[tuple[str, int], list[int]] = {}
    for place, ref in enumerate(refs):
        try:
            check_one(ref, device)
        except InvalidRequestError as error:
            answers[place] = error
        else:
            shapes.setdefault((ref.kind, ref.protocol), []).append(place)
    return answers, shapes
