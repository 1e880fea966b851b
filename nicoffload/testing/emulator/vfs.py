"""Virtual functions of the emulated NIC: settings, resets, and how the driver refuses them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from nicoffload.model import LinkState, VlanTag
from nicoffload.testing.emulator.answer import Refused, refuse
from nicoffload.testing.emulator.bucket import Setting


@dataclass(slots=True)
class Vf:
    """One VF.

    Args:
        index: From 0.
        mac: Administered address; 0 for none.
        vid: Port VLAN; 0 with pcp 0 for none.
        pcp: Its priority.
        protocol: Its kind of tag.
        spoof_check: Whether foreign source addresses are dropped.
        trust: Whether it may do more than others.
        link_state: What it sees of the link.
        driver: Driver that is bound to it on this host.
        ready_ns: When its reset ends.
        min_tx: Its guarantee.
        max_tx: Its limit.
    """

    index: int
    mac: int = 0
    vid: int = 0
    pcp: int = 0
    protocol: str = "802.1Q"
    spoof_check: bool = False
    trust: bool = False
    link_state: LinkState = LinkState.AUTO
    driver: str = ""
    ready_ns: int = 0
    min_tx: Setting = field(default_factory=Setting)
    max_tx: Setting = field(default_factory=Setting)

    @property
    def has_vlan(self) -> bool:
        """Whether it has a port VLAN."""
        return bool(self.vid or self.pcp)


Value = int | bool | VlanTag | LinkState


def new_vf(doc: Mapping[str, Any], index: int, driver: str, ready_ns: int) -> Vf:
    """Return a VF as it comes out of creation."""
    vf = Vf(index=index, driver=driver, ready_ns=ready_ns)
    vf.spoof_check = doc["spoof_check"].get("default") is True
    vf.trust = doc["trust"].get("default") is True
    stated = doc["link_state"].get("default")
    vf.link_state = LinkState(stated) if isinstance(stated, str) else LinkState.AUTO
    return vf


def change(doc: Mapping[str, Any], vf: Vf, name: str, value: Value, mode: str) -> bool:
    """Change one setting as the driver does; return whether the VF resets.

    Args:
        doc: The profile's settings of a VF.
        vf: Is changed.
        name: ``mac``, ``vlan``, ``spoof_check``, ``trust`` or ``link_state``.
        value: The new value.
        mode: Eswitch mode.

    Raises:
        Refused: The driver takes no such setting, or not this value.
    """
    setting = doc[name]
    if name == "spoof_check" and vf.driver and "spoof_check_running" in doc["errors"]:
        refuse(
            doc["errors"], "spoof_check_running", "the VF has transmit queues running", path="/spoof_check"
        )
    plain = _plain(value)
    if setting.get("not_in_mode") == mode and plain in setting.get("no_effect_in_mode", ()):
        return False
    _check_support(setting, name, mode)
    if isinstance(value, VlanTag):
        _check_vlan(doc, value)
        vf.vid, vf.pcp, vf.protocol = value.vid, value.pcp, value.protocol
        return bool(setting.get("resets_vf"))
    if plain in setting.get("no_effect", ()):
        return False
    values = setting.get("values")
    if values is not None and plain not in values:
        raise Refused(setting.get("value_errno", "EINVAL"), name, f"{plain} is not taken", f"/{name}")
    if name == "mac" and value == 0 and vf.spoof_check and "mac_zero_with_spoof_check" in doc["errors"]:
        refuse(
            doc["errors"], "mac_zero_with_spoof_check", "not while spoofed frames are checked", path="/mac"
        )
    setattr(vf, name, value)
    return bool(setting.get("resets_vf"))


def _plain(value: Value) -> int | bool | str:
    if isinstance(value, LinkState):
        return str(value.value)
    return value.vid if isinstance(value, VlanTag) else value


def _check_support(setting: Mapping[str, Any], name: str, mode: str) -> None:
    if setting["supported"] == "no":
        raise Refused(setting.get("errno", "EOPNOTSUPP"), name, f"{name} is not supported", f"/{name}")
    if setting.get("not_in_mode") == mode:
        raise Refused(setting.get("mode_errno", "EOPNOTSUPP"), name, f"{name} not in mode {mode}", f"/{name}")


def _check_vlan(doc: Mapping[str, Any], tag: VlanTag) -> None:
    errors = doc["errors"]
    if tag.vid > doc["vlan"].get("max", 4095):
        errno = doc["vlan"].get("value_errno")
        refuse(errors, "vlan_range", f"VLAN {tag.vid} is not taken", path="/vlan/vid", errno=errno)
    protocols = doc["vlan_protocols"].get("values", ["802.1Q"])
    if tag.protocol not in protocols:
        stated = doc["vlan_protocols"].get("value_errno") or doc["vlan_protocols"].get("errno")
        refuse(
            errors,
            "vlan_protocol",
            tag.protocol,
            default="EPROTONOSUPPORT",
            path="/vlan/protocol",
            errno=stated,
        )
    qos = doc["qos"]
    wrong = (
        (tag.pcp and qos["supported"] == "no")
        or tag.pcp > qos.get("max", 7)
        or ("values" in qos and tag.pcp not in qos["values"])
    )
    if wrong:
        errno = qos.get("value_errno") or qos.get("errno")
        refuse(errors, "vlan_range", f"priority {tag.pcp} is not taken", path="/vlan/pcp", errno=errno)
