"""Words of Open vSwitch that have no counterpart here, or another name, each with what to do about it."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

_NO_TABLE = "a NIC rule has no OpenFlow table; leave it out"
_NO_CONNECTION = "a NIC rule sees single packets, not connections; leave it out"
_NO_TIMEOUT = "a rule stays until it is removed; leave it out"
_NO_REGISTER = "a NIC rule has no registers; leave it out"
_SWITCH = "pf hands the packet to the host's virtual switch"

FOREIGN_FIELDS: Mapping[str, str] = MappingProxyType(
    {
        "table": _NO_TABLE,
        "cookie": "a rule is named by id=UUID",
        "idle_timeout": _NO_TIMEOUT,
        "hard_timeout": _NO_TIMEOUT,
        "ct_state": _NO_CONNECTION,
        "ct_zone": _NO_CONNECTION,
        "ct_mark": _NO_CONNECTION,
        "ct_label": _NO_CONNECTION,
        "metadata": _NO_REGISTER,
        "reg0": _NO_REGISTER,
        "vlan_tci": "write dl_vlan=VID, dl_vlan_pcp=PCP",
    }
)
"""Match words, with the hint that each gets."""

FOREIGN_ACTIONS: Mapping[str, str] = MappingProxyType(
    {
        "output": "say where: vf:N, pf or uplink",
        "normal": _SWITCH,
        "local": _SWITCH,
        "controller": _SWITCH,
        "flood": "a rule has one target; mirror:PORT adds a copy",
        "all": "a rule has one target; mirror:PORT adds a copy",
        "group": "a rule has one target: vf:N, queue:N, pf or uplink",
        "set_queue": "it chooses an egress QoS queue, which a NIC rule can't; "
        "police:RATE:BURST limits a flow, `nicoffload rate` a VF",
        "enqueue": "it chooses an egress QoS queue, which a NIC rule can't; "
        "police:RATE:BURST limits a flow, `nicoffload rate` a VF",
        "goto_table": "a NIC rule has no OpenFlow table; name the target: vf:N, pf or uplink",
        "resubmit": "a NIC rule has no OpenFlow table; name the target: vf:N, pf or uplink",
        "ct": "a NIC rule sees single packets, not connections",
        "learn": "a NIC makes no rules by itself",
        "strip_vlan": "write pop_vlan",
        "mod_vlan_vid": "write mod_vlan:VID",
        "mod_nw_src": "write set_field:10.0.0.1->nw_src",
        "mod_nw_dst": "write set_field:10.0.0.1->nw_dst",
        "mod_dl_src": "write set_field:02:00:00:00:00:01->dl_src",
        "mod_dl_dst": "write set_field:02:00:00:00:00:01->dl_dst",
    }
)
"""Actions, likewise, in lower case."""
