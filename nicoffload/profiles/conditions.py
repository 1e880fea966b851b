"""What a driver means when one of a profile's conditions holds: the class of error, whatever errno it answers.

Said once, and read from both sides: `nicoffload.linux.errnos` gets from an errno to a condition and on to its class; an
emulator knows the condition, and is held to the same class.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from nicoffload.errors import (
    AccessDeniedError,
    ConflictError,
    DeviceBusyError,
    DeviceGoneError,
    InvalidRequestError,
    KernelError,
    NicOffloadError,
    NotFoundError,
    NotSupportedError,
    ResourceExhaustedError,
)

Kind = type[NicOffloadError]


@dataclass(frozen=True, slots=True)
class Condition:
    """A condition under which a driver refuses.

    Args:
        kind: What it is to the caller.
        text: What is so, in words.
        cure: What would help; empty where nothing does.
    """

    kind: Kind
    text: str
    cure: str = ""


_CAN_NOT: Mapping[str, tuple[str, str]] = {
    "not_enabled": ("the table is not enabled", "enable it"),
    "feature": ("the feature that the table needs is off", "turn it on"),
    "eswitch_mode": ("the eswitch is in another mode", "change the eswitch mode"),
    "mqprio": ("no traffic classes are set up", "set up mqprio in channel mode"),
    "table": ("there is no such table", ""),
    "flow_type": ("the rule is of no flow type of this table", ""),
    "field": ("a field that this flow type can't match", "leave the field out"),
    "value": ("a value that this field does not take", ""),
    "partial_mask": ("a mask that this field does not take", "match the field in full, or leave it out"),
    "vlan_mask": ("a mask that the VLAN tag does not take", "match the VLAN in full, or leave it out"),
    "required": ("a field that must be matched is left out", ""),
    "combination": ("fields that don't go together", ""),
    "empty_rule": ("the rule matches everything", "match at least one field"),
    "second_mask": (
        "the rules that are installed have other masks or another set of fields",
        "give all rules the same masked fields, or remove those that are there",
    ),
    "priority": ("a priority that is not taken", ""),
    "chain": ("a chain that is not taken", ""),
    "action": ("an action that the table has not, or not so combined", ""),
    "vf_target": ("a VF can't be the target", ""),
    "destination": ("a port that can't be the target", ""),
    "no_counters": ("there are no counters", ""),
    "sriov": ("VFs are not made here", ""),
    "no_msix": ("there is no MSI-X", ""),
    "safe_mode": (
        "the driver runs without its firmware package",
        "install the package, and load the driver anew",
    ),
    "xdp_loaded": ("an XDP program is loaded", "detach the XDP program"),
    "mode": ("there is no such eswitch mode", ""),
    "unknown_mode": ("there is no such eswitch mode", ""),
    "socket_direct": ("several PFs are one device", ""),
    "mac": ("the MAC address of a VF can't be set so", ""),
    "vlan": ("the VLAN of a VF can't be set so", ""),
    "qos": ("the priority of a VF's VLAN can't be set so", ""),
    "spoof_check": ("the spoof check of a VF can't be set so", ""),
    "trust": ("the trust of a VF can't be set so", ""),
    "trust_mfp": ("the port is split into functions, which can't be trusted", ""),
    "link_state": ("the link state of a VF can't be set so", ""),
    "in_mode": ("not in this eswitch mode", "change the eswitch mode"),
    "vlan_protocol": ("a VLAN protocol that is not taken", "use 802.1Q"),
    "rate": ("there is no such rate", ""),
    "rate_link": ("not while the link is down, or at its speed", ""),
    "attribute": ("an attribute that rates of this NIC have not", ""),
    "node_in_legacy": ("rate nodes need switchdev mode", "change the eswitch mode"),
}
_INVALID: Mapping[str, str] = {
    "queue_range": "there is no such queue",
    "slot_range": "there is no such location",
    "slot_any": "no location is given, and the driver picks none",
    "slot_given": "a location is given, and the driver picks it",
    "above_total": "more VFs than the PCI function has",
    "too_many": "more VFs than the driver or firmware gives",
    "mac_multicast": "a multicast address",
    "mac_invalid": "an address that no VF can have",
    "vlan_range": "a VLAN or priority out of range",
    "vlan_protocol_unknown": "no VLAN protocol",
    "rate_range": "a rate that is not taken",
    "rate_sum": "the guarantees of all VFs together exceed the link",
    "max_below_min": "a limit below the guarantee",
    "range": "a rate out of range",
    "not_multiple": "a rate between the steps of the NIC",
}
_MISSING: Mapping[str, str] = {
    "vf_range": "there is no such VF",
    "no_vfs": "there are no VFs",
    "no_vf_state": "the driver does not know the VF",
    "missing": "there is no such rule",
    "missing_read": "there is no such rule",
    "driver": "there is no such driver",
}
# What stands in the way does not go by itself.
_CONFLICTS: Mapping[str, tuple[str, str]] = {
    "excluded": ("another table holds rules, and not both can", "remove the rules of the other table"),
    "duplicate": ("the same match is installed", "remove the other rule"),
    "cookie": ("the rule's id is in use", ""),
    "one_target": ("rules with this value have another target", ""),
    "slot_occupied": ("the location is in use", "name another location"),
    "feature_in_use": ("the table holds rules", "remove its rules"),
    "vfs_present": ("VFs exist", "remove all VFs"),
    "not_zero_first": ("VFs exist", "remove all VFs"),
    "flows_present": ("rules are installed in the eswitch", "remove all rules"),
    "rate_nodes_present": ("devlink rate nodes exist", "delete the rate nodes"),
    "adq_active": ("ADQ channels are set up", "remove the channels"),
    "ipsec_or_traps": ("there is IPsec state or a trap is active", ""),
    "mac_zero_with_spoof_check": ("spoofed frames are checked for", "turn the spoof check off"),
    "node_has_children": ("the rate node has children", "move its children away"),
}
# What goes by itself, or when somebody else is done.
_BUSY: Mapping[str, tuple[str, str]] = {
    "busy": ("it is resetting or changing", "try again"),
    "assigned": ("a VF is assigned to a guest", "shut down the VM that has it"),
    "self_test": ("a self-test runs", "try again"),
    "concurrent": ("another change is under way", "try again"),
    "not_ready": ("the device is resetting", "try again"),
    "fw_reset": ("a firmware reset is under way", "try again"),
    "spoof_check_running": ("the VF has transmit queues running", "stop the VF's interface first"),
    "stats_in_reset": ("the VF is resetting", "try again"),
    "disabled": ("the VF is disabled", "reset the VF"),
}
_OTHERS: Mapping[str, Condition] = {
    "full": Condition(ResourceExhaustedError, "the table is full", "remove rules"),
    "hash": Condition(
        ResourceExhaustedError,
        "no free row within the search depth: a hash table can be full early",
        "remove rules",
    ),
    "limit": Condition(ResourceExhaustedError, "all filters of one kind are in use", "remove rules"),
    "resources": Condition(ResourceExhaustedError, "too few queues or vectors are left", "ask for fewer VFs"),
    "no_privilege": Condition(AccessDeniedError, "this PF does not manage the VFs"),
    "protected": Condition(AccessDeniedError, "a filter of the driver itself stands there"),
    "gone": Condition(DeviceGoneError, "the device is gone"),
    "list_buffer": Condition(KernelError, "the list grew while it was read", "try again"),
}
CONDITIONS: Mapping[str, Condition] = MappingProxyType(
    {name: Condition(NotSupportedError, *words) for name, words in _CAN_NOT.items()}
    | {name: Condition(InvalidRequestError, text) for name, text in _INVALID.items()}
    | {name: Condition(NotFoundError, text) for name, text in _MISSING.items()}
    | {name: Condition(ConflictError, *words) for name, words in _CONFLICTS.items()}
    | {name: Condition(DeviceBusyError, *words) for name, words in _BUSY.items()}
    | dict(_OTHERS)
)
"""Every condition of the profile schema, and the names of the settings that a VF may lack."""
