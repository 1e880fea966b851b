"""What a NIC that nobody listed can do: the base profile, without what the live device has not. Changes nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from nicoffload.errors import NicOffloadError
from nicoffload.kernel.devlink import Devlink, Handle
from nicoffload.kernel.features import FeatureName, read_feature
from nicoffload.kernel.ntuple import NtupleTable, NtupleTableInfo
from nicoffload.kernel.seam import Kernel
from nicoffload.profiles.load import parse_profile
from nicoffload.profiles.types import NicProfile

FAMILY = "generic"


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """What was found on a NIC.

    Args:
        driver: Its kernel driver.
        title: For people.
        total_vfs: How many VFs it can have.
        modes: Whether its eswitch tells a mode.
        rates: Whether devlink has rates of it.
        tc: Whether tc offload is on, or can be turned on.
        ntuple: Its receive classifier; None where it has none that takes rules.
        alike: Families of other NICs that the same driver drives.
    """

    driver: str
    title: str
    total_vfs: int
    modes: bool
    rates: bool
    tc: bool
    ntuple: NtupleTableInfo | None
    alike: tuple[str, ...] = ()


def probe(kernel: Kernel, ifname: str, handle: Handle | None, *, driver: str, total_vfs: int) -> Findings:
    """Ask a NIC what can be asked without changing it.

    Args:
        kernel: Whose.
        ifname: Its network device.
        handle: Its name in devlink; None where it can have none.
        driver: Its kernel driver.
        total_vfs: How many VFs its function can have.
    """
    modes, rates = _ask_devlink(kernel, handle) if handle is not None else (False, False)
    return Findings(
        driver=driver,
        title=f"NIC of the Linux driver {driver or 'of no name'}, probed",
        total_vfs=total_vfs,
        modes=modes,
        rates=rates,
        tc=_can_be_on(kernel, ifname, FeatureName.HW_TC_OFFLOAD),
        ntuple=_ask_classifier(kernel, ifname),
    )


def profile_of(findings: Findings) -> NicProfile:
    """Return the profile of a NIC; what can't be asked is unknown in it.

    Raises:
        ProfileError: The base profile is broken.
    """
    document: dict[str, Any] = json.loads(files(__package__).joinpath("base.json").read_text("utf-8"))
    document["title"] = findings.title
    document["driver"] = findings.driver or "unknown"
    document["tables"] = [table for table in document["tables"] if _is_there(table, findings)]
    if findings.ntuple is not None:
        _fill_in(document["tables"][-1], findings.ntuple)
    document["quirks"] += [_not_described(table["name"], findings) for table in document["tables"]]
    if not findings.modes:
        document["eswitch"] = None
    if not findings.total_vfs:
        document["sriov"] = document["vf"] = None
        for name in ("min_tx", "max_tx"):
            document["rates"][name] = {
                "supported": "no",
                "errno": "EOPNOTSUPP",
                "source": "sriov_totalvfs: it can have no VFs",
            }
    else:
        document["sriov"]["max_vfs"] = findings.total_vfs
    if not findings.rates:
        document["rates"]["devlink"] = None
    return parse_profile(document, "the base profile")


def _is_there(table: Mapping[str, Any], findings: Findings) -> bool:
    if table["mechanism"] == "ntuple":
        return findings.ntuple is not None
    return findings.tc and bool(table["needs"].get("eswitch_mode")) == findings.modes


def _not_described(table: str, findings: Findings) -> dict[str, Any]:
    """Return what every rule of a table comes with: a driver that takes a rule may compare less than it says."""
    driver = findings.driver or "of no name"
    text = (
        f"no profile describes this NIC: whether driver {driver} compares all that a rule says is not known"
    )
    if findings.alike:
        text += f"; for what its driver does with other NICs see {', '.join(findings.alike)}"
    return {
        "id": f"not_described_{table}",
        "about": "flow",
        "text": text,
        "source": "no source: the driver was asked, not read",
        "warns": {"table": table},
    }


def _fill_in(table: dict[str, Any], info: NtupleTableInfo) -> None:
    if info.driver_chooses:
        table["slots"] = {"picker": "driver"}
    elif info.size is not None:
        table["capacity"]["rows"] = info.size


def _can_be_on(kernel: Kernel, ifname: str, name: FeatureName) -> bool:
    try:
        feature = read_feature(kernel, ifname, name)
    except NicOffloadError:
        return False
    return feature.active or not feature.fixed


def _ask_classifier(kernel: Kernel, ifname: str) -> NtupleTableInfo | None:
    """Return the classifier; None where the driver says nothing of one. Some count 0 rules and take none."""
    try:
        info = NtupleTable(kernel, ifname).info()
    except NicOffloadError:
        return None
    known = info.rules > 0 or info.size is not None or info.driver_chooses
    return info if known or _can_be_on(kernel, ifname, FeatureName.NTUPLE) else None


def _ask_devlink(kernel: Kernel, handle: Handle) -> tuple[bool, bool]:
    """Return whether the eswitch tells a mode, and whether there are rates or can be."""
    try:
        with Devlink(kernel) as devlink:
            modes = devlink.eswitch(handle).mode is not None
    except NicOffloadError:
        return False, False
    return modes, modes
