"""``nicoffload conformance``: try every behaviour of the conformance kit on a NIC."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nicoffload.cli.arguments import add_common
from nicoffload.cli.session import Session
from nicoffload.errors import ConflictError, InvalidRequestError, NicOffloadError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nicoffload.model import DeviceInfo
    from nicoffload.testing.conformance import NicUnderTest, Report

_GROUNDS = ("emulator", "software", "emulated-device", "hardware")

_DESCRIPTION = """\
Try every numbered behaviour of the conformance kit on a NIC and tell which hold.

The kit makes and removes rules, VFs, settings and rates, and puts back what it finds. It refuses a NIC that is in
use (rules, VFs, leases, a link that is up) unless --disruptive is given. What can't be tried here is listed with its
reason. Ends with 0 where everything that was tried holds, with 1 where something does not.
"""


def add(commands: Any) -> None:
    """Add the command's parser."""
    parser = commands.add_parser(
        "conformance", help="prove that a plugin does what every plugin does", description=_DESCRIPTION
    )
    parser.add_argument(
        "nic", metavar="NIC", nargs="?", help="mock:FAMILY, or what an installed plugin drives"
    )
    parser.add_argument(
        "--only",
        metavar="WHICH",
        action="append",
        default=[],
        help="numbers or groups of behaviours, with commas between them: FL-05,VF",
    )
    parser.add_argument("--list", action="store_true", dest="listing", help="list the behaviours and end")
    parser.add_argument("--disruptive", action="store_true", help="go on where the NIC is in use")
    parser.add_argument(
        "--expected", type=Path, metavar="FILE", help="the plugin's file of failures that are expected"
    )
    parser.add_argument(
        "--ground",
        choices=_GROUNDS,
        help="what the NIC stands on, for the report; guessed where it is not given",
    )
    parser.add_argument(
        "--most-rows",
        type=int,
        default=16_384,
        metavar="N",
        help="do not fill tables with room for more rules (default: 16384)",
    )
    add_common(parser)
    parser.set_defaults(command=_conformance)


def _conformance(args: argparse.Namespace, session: Session) -> int:
    from nicoffload.testing.conformance import load_expected_failures, run, select

    behaviours = select([word for words in args.only for word in words.split(",") if word])
    if args.listing:
        return _list(session, behaviours)
    if args.nic is None:
        raise InvalidRequestError("no NIC is named", path="NIC", hint="nicoffload conformance mock:ixgbe")
    expected = load_expected_failures(args.expected) if args.expected is not None else ()
    under_test = _under_test(args, session)
    with session.output.progress(f"{args.nic}: behaviours", len(behaviours)) as show:
        report = run(
            under_test,
            behaviours,
            expected=expected,
            disruptive=args.disruptive,
            progress=lambda done, _of, _number: show(done),
        )
    _print(session, report)
    return 0 if report.ok else NicOffloadError.exit_code


def _list(session: Session, behaviours: Sequence[Any]) -> int:
    if session.output.as_json:
        found = [{"number": each.number, "title": each.title, "text": each.text} for each in behaviours]
        session.answer("conformance list", {"behaviours": found})
        return 0
    session.output.table(("number", "behaviour"), [(each.number, each.title) for each in behaviours])
    return 0


def _print(session: Session, report: Report) -> None:
    from nicoffload.testing.conformance.report import SCHEMA, lines

    if session.output.as_json:
        document = report.to_json()
        session.output.json(SCHEMA, {key: value for key, value in document.items() if key != "schema"})
        return
    for line in lines(report):
        session.output.line(line)


def _under_test(args: argparse.Namespace, session: Session) -> NicUnderTest:
    """Return the NIC, once nothing outside its driver says that it is in use."""
    from nicoffload.linux import LinuxDriver
    from nicoffload.testing.conformance import Ground, NicUnderTest
    from nicoffload.testing.conformance.foreign import through_tc

    registry = session.registry()
    driver = registry.open(args.nic)
    try:
        info, persistent = driver.info, driver.persistent
        is_live = isinstance(driver, LinuxDriver)
    finally:
        driver.close()
    if persistent and not args.disruptive and (why := _use(session, info)):
        raise ConflictError(
            f"the NIC is in use: {why}",
            existing=why,
            device=args.nic,
            hint="--disruptive goes on all the same",
        )
    named = args.ground.replace("-", "_") if args.ground else _guessed_ground(info)
    return NicUnderTest(
        name=args.nic,
        open_driver=lambda: registry.open(args.nic),
        disposable=not persistent,
        ground=Ground(named),
        foreign_rule=through_tc if is_live else None,
        sleep_s=(lambda _seconds: None) if info.emulated else time.sleep,  # it has a clock of its own
        most_rows=args.most_rows,
    )


def _use(session: Session, info: DeviceInfo) -> str:
    """Return what says, beside the NIC itself, that it is in use; empty where nothing does."""
    if info.ifname and _read_sysfs(f"class/net/{info.ifname}/operstate") == "up":
        return f"the link of {info.ifname} is up"
    journal = session.resolved_state_dir() / "journal.sqlite"
    if info.emulated or not journal.exists():
        return ""
    from nicoffload.nic import open_nic

    with open_nic(info.name, registry=session.registry(), state_dir=session.state_dir) as nic:
        if nic.info.emulated or nic.profile.sriov is None:
            return ""
        held = ", ".join(f"VF {lease.vf} by {lease.owner}" for lease in nic.leases())
    return f"leased: {held}" if held else ""


def _guessed_ground(info: DeviceInfo) -> str:
    if info.emulated:
        return "emulator"
    if info.plugin == "softnic":
        return "software"
    if info.driver == "netdevsim" or _is_virtual_machine():
        return "emulated_device"
    return "hardware"


def _is_virtual_machine() -> bool:
    """Return whether this machine says that it is a virtual one: its NICs are then taken for emulated."""
    maker = _read_sysfs("class/dmi/id/sys_vendor").lower()
    return any(name in maker for name in ("qemu", "vmware", "xen", "innotek", "microsoft", "bochs"))


def _read_sysfs(path: str) -> str:
    from nicoffload.kernel.linux import LinuxKernel

    try:
        return LinuxKernel().read_sysfs(path).decode(errors="replace").strip()
    except OSError:
        return ""
