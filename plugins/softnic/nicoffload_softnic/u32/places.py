"""Where filters of a NIC without eBPF are, and in which order they are asked."""

from __future__ import annotations

from nicoffload.kernel.tc import Hook
from nicoffload_softnic import layout

ALL = 3
"""ETH_P_ALL: of packets with a VLAN tag, too."""
SINK, SINK_END = layout.SHAPER_IN, layout.SHAPER_OUT
"""The pair that drops what is sent into it: u32 alone can't drop."""
_FIRST_QUEUE = 1000
_FIRST_BLOCK = 100

GUARD_PREF, SHAPER_PREF, FIRST_RULE_PREF, LAST_RULE_PREF, REST_PREF = 1, 2, 3, 65_534, 65_535


def pref_of(priority: int) -> int:
    """Return where rules of a priority are asked: a higher one earlier. The highest few are asked together."""
    return max(LAST_RULE_PREF - priority, FIRST_RULE_PREF)


def block_of(number: int) -> int:
    """Return the block of filters that a VF's device and the end of its queue share."""
    return _FIRST_BLOCK + number


def hook_of(number: int) -> Hook:
    """Return where the rules are for what enters at a port."""
    if number < layout.FIRST_VF:
        return Hook.ingress(layout.ifindex_of(number))
    return Hook.block(block_of(number))


def queue_of(number: int) -> int:
    """Return the number of the device through which a VF with a limit sends; the next one is its other end."""
    return _FIRST_QUEUE + 2 * number


def stand_in_of(number: int) -> int:
    """Return the device to which rules lead while a VF's own is made anew: that of its queue, where packets end."""
    return queue_of(number) + 1


def port_behind(ifindex: int) -> int:
    """Return the port to which a redirection leads, by its device."""
    if ifindex >= _FIRST_QUEUE:
        return (ifindex - _FIRST_QUEUE) // 2
    return layout.port_of(ifindex)
