"""VFs whose link follows the wire: as it is set, as the NIC is opened, and for as long as somebody keeps it up."""

from __future__ import annotations

from collections.abc import Sequence

from nicoffload.driver import Mended, Upkeep
from nicoffload.kernel.events import Events, LinkEvent, Lost, Topic
from nicoffload.model import LinkState
from nicoffload_softnic import layout
from nicoffload_softnic.path import DataPath, inside


def raise_links(path: DataPath) -> None:
    """Bring up the links that are down since the wire was, if it is not any more; take none down.

    A NIC that was just made has a wire that nobody set up yet: taking links down for that would need somebody to bring
    them up again, and nobody may be there.
    """
    if not path.has_wire():
        return
    for vf in range(path.vfs):
        if path.settings(vf).link_state is LinkState.AUTO and path.has_link(vf) is False:
            path.set_link(vf, up=True)


class WireUpkeep(Upkeep):
    """Lets VFs with the link state `auto` have the link that the wire has.

    Args:
        path: The NIC's data path.
    """

    def __init__(self, path: DataPath) -> None:
        self._path = path
        self._events: Events | None = None

    def wait(self, timeout_s: float) -> bool:
        """Wait for an event of the uplink. The first call begins to listen, and says yes: nobody did before."""
        if self._events is None:
            with inside(self._path.kernel, self._path.name) as within:
                self._events = Events(within, (Topic.LINK,))
            return True
        uplink = layout.ifindex_of(layout.UPLINK)
        return any(
            isinstance(event, Lost) or (isinstance(event, LinkEvent) and event.ifindex == uplink)
            for event in self._events.read(timeout_s)
        )

    def mend(self) -> Sequence[Mended]:
        """Set the links that are not as the wire's is. Repeatable; changes nothing where all are."""
        path = self._path
        path.check_alive()
        up = path.has_wire()
        late = [
            vf
            for vf in range(path.vfs)
            if path.settings(vf).link_state is LinkState.AUTO and path.has_link(vf) is (not up)
        ]
        for vf in late:
            path.set_link(vf, up=up)
        return [
            Mended(target=f"vf:{vf}/link", detail=f"the wire went {'up' if up else 'down'}") for vf in late
        ]

    def close(self) -> None:
        """Stop listening. Repeatable."""
        if self._events is not None:
            self._events.close()
            self._events = None
