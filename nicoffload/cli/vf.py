"""``nicoffload vf``: virtual functions, their settings, and who holds them."""

from __future__ import annotations

import argparse
import re
import time
from typing import TYPE_CHECKING, Any

from nicoffload.cli.arguments import add_common, add_nic
from nicoffload.cli.session import Session
from nicoffload.cli.steps import add_previews, previewed
from nicoffload.errors import ConflictError, InvalidRequestError

if TYPE_CHECKING:
    from nicoffload.model import VfState, VlanTag
    from nicoffload.nic import Lease

_NOBODY = "nobody"
"""Who holds a VF that nobody holds: a late release names it, and the answer is that the lease was over."""

_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}


def add(commands: Any) -> None:
    """Add the parsers of the group."""
    group = commands.add_parser("vf", help="virtual functions: list, create, set, lease, release")
    verbs = group.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _verb(verbs, "list", "list the VFs, their settings and who holds them", _list)
    create = _verb(verbs, "create", "set how many VFs there are; 0 takes them all away", _create)
    create.add_argument("count", type=int, metavar="COUNT", help="0 to what the NIC can have")
    create.add_argument("--force", action="store_true", help="also while somebody holds a VF")
    add_previews(create)
    setting = _verb(verbs, "set", "change settings of a VF; what is not named stays", _set)
    setting.add_argument("vf", type=parse_vf, metavar="VF", help="vf:0 or 0")
    setting.add_argument(
        "--mac", metavar="MAC", help="address; 00:00:00:00:00:00 gives it back to the VF's driver"
    )
    setting.add_argument(
        "--vlan", metavar="VID[/PCP][@PROTOCOL]", help="port VLAN (100, 100/3@802.1ad), or none"
    )
    setting.add_argument("--spoof-check", choices=("on", "off"), help="drop frames with a foreign source MAC")
    setting.add_argument(
        "--trust", choices=("on", "off"), help="let the VF change its MAC and go promiscuous"
    )
    setting.add_argument(
        "--link-state", choices=("auto", "enable", "disable"), help="what the VF sees of the link"
    )
    add_previews(setting)
    lease = _verb(verbs, "lease", "take a VF for a while", _lease)
    lease.add_argument("owner", metavar="OWNER", help="who holds it, such as the name of a VM")
    lease.add_argument("--vf", type=parse_vf, metavar="VF", help="this one; otherwise any that is free")
    lease.add_argument(
        "--ttl", type=parse_duration, default=3600, metavar="TIME", help="30s, 10m, 1h (the default), 7d"
    )
    lease.add_argument(
        "--renew", type=int, metavar="EPOCH", help="extend the lease of --vf that has this epoch"
    )
    release = _verb(verbs, "release", "give a VF back", _release)
    release.add_argument("vf", type=parse_vf, metavar="VF", help="vf:0 or 0")
    release.add_argument("--epoch", type=int, required=True, metavar="EPOCH", help="as `vf lease` printed it")


def parse_vf(text: str) -> int:
    """Return the index of ``vf:2`` or ``2``.

    Raises:
        ArgumentTypeError: It is neither.
    """
    found = re.fullmatch(r"(?:vf:)?([0-9]{1,5})", text)
    if not found:
        raise argparse.ArgumentTypeError(f"{text!r} is no VF; write vf:0 or 0")
    return int(found[1])


def parse_duration(text: str) -> float:
    """Return the seconds of ``90``, ``30s``, ``10m``, ``1h`` or ``7d``.

    Raises:
        ArgumentTypeError: It is none of them.
    """
    found = re.fullmatch(r"([0-9]{1,9})([smhd]?)", text)
    if not found or int(found[1]) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no time; write 30s, 10m, 1h or 7d")
    return int(found[1]) * _SECONDS[found[2]]


def _verb(verbs: Any, name: str, text: str, command: Any) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = verbs.add_parser(
        name, help=text, description=text[0].upper() + text[1:] + "."
    )
    add_nic(parser)
    add_common(parser)
    parser.set_defaults(command=command)
    return parser


def _list(args: argparse.Namespace, session: Session) -> int:
    from nicoffload.codec import to_json

    with session.open(args.nic) as nic:
        states, limit, leases = nic.vfs(), nic.vf_limit(), nic.leases()
    if session.output.as_json:
        document = {
            "nic": args.nic,
            "limit": limit,
            "vfs": to_json(list(states)),
            "leases": to_json(list(leases)),
        }
        session.answer("vf list", document)
        return 0
    holders = {lease.vf: lease for lease in leases}
    session.output.line(f"{len(states)} of {limit} VFs")
    if states:
        columns = ("VF", "MAC", "VLAN", "spoof check", "trust", "link", "driver", "held by", "epoch", "left")
        session.output.table(columns, [_row(state, holders.get(state.vf)) for state in states])
    return 0


def _row(state: VfState, lease: Lease | None) -> tuple[str, ...]:
    from nicoffload.model import format_mac

    return (
        f"vf:{state.vf}" + (" (resetting)" if state.ready is False else ""),
        "-" if state.mac is None else format_mac(state.mac),
        _vlan_text(state.vlan),
        _switch_text(state.spoof_check),
        _switch_text(state.trust),
        "-" if state.link_state is None else state.link_state.value,
        state.driver or "-",
        lease.owner if lease else "-",
        str(lease.epoch) if lease else "-",
        f"{max(0, round(lease.expires_at_s - time.time()))} s" if lease else "-",
    )


def _vlan_text(vlan: VlanTag | None) -> str:
    if vlan is None:
        return "-"
    if vlan.vid == 0 and vlan.pcp == 0:
        return "none"
    protocol = "" if vlan.protocol == "802.1Q" else f"@{vlan.protocol}"
    return f"{vlan.vid}{f'/{vlan.pcp}' if vlan.pcp else ''}{protocol}"


def _switch_text(value: bool | None) -> str:  # noqa: FBT001  a setting, not an option
    return "-" if value is None else ("on" if value else "off")


def _create(args: argparse.Namespace, session: Session) -> int:
    from nicoffload.codec import to_json
    from nicoffload.nic import DesiredState

    with session.open(args.nic) as nic:
        if previewed(nic, DesiredState(vf_count=args.count), args, session):
            return 0
        with session.output.progress(f"making {args.count} VFs"):
            disruption = nic.set_vf_count(args.count, force=args.force)
        states = nic.vfs()
    if session.output.as_json:
        session.answer(
            "vf create", {"nic": args.nic, "disruption": disruption.value, "vfs": to_json(list(states))}
        )
    else:
        session.output.line(f"{args.nic} has {len(states)} VFs, disruption {disruption.value}.")
    return 0


def _set(args: argparse.Namespace, session: Session) -> int:
    from nicoffload.codec import to_json
    from nicoffload.model import LinkState, VfConfig, parse_mac
    from nicoffload.nic import DesiredState

    config = VfConfig(
        vf=args.vf,
        mac=None if args.mac is None else parse_mac(args.mac, "--mac"),
        vlan=None if args.vlan is None else _parse_vlan(args.vlan),
        spoof_check=None if args.spoof_check is None else args.spoof_check == "on",
        trust=None if args.trust is None else args.trust == "on",
        link_state=None if args.link_state is None else LinkState(args.link_state),
    )
    if config == VfConfig(vf=args.vf):
        raise InvalidRequestError(
            "no setting is given", hint="--mac, --vlan, --spoof-check, --trust or --link-state"
        )
    with session.open(args.nic) as nic:
        if previewed(nic, DesiredState(vfs=(config,)), args, session):
            return 0
        (state,) = nic.configure_vfs([config])
    if session.output.as_json:
        session.answer("vf set", {"nic": args.nic, "vf": to_json(state)})
    else:
        session.output.table(
            ("VF", "MAC", "VLAN", "spoof check", "trust", "link", "driver"), [_row(state, None)[:7]]
        )
    return 0


def _parse_vlan(text: str) -> VlanTag:
    from nicoffload.model import VlanTag

    if text == "none":
        return VlanTag(vid=0)
    found = re.fullmatch(r"([0-9]{1,4})(?:/([0-9]))?(?:@(.+))?", text)
    if not found:
        raise InvalidRequestError(
            f"{text!r} is no VLAN", path="--vlan", hint="write 100, 100/3, 100@802.1ad or none"
        )
    return VlanTag(vid=int(found[1]), pcp=int(found[2] or 0), protocol=found[3] or "802.1Q")


def _lease(args: argparse.Namespace, session: Session) -> int:
    from nicoffload.codec import to_json

    if args.renew is not None and args.vf is None:
        raise InvalidRequestError("--renew needs --vf", hint="name the VF whose lease is to be extended")
    with session.open(args.nic) as nic:
        if args.renew is None:
            lease = nic.lease_vf(args.owner, ttl_s=args.ttl, vf=args.vf)
        else:
            lease = nic.renew_lease(_named_lease(args.vf, args.owner, args.renew), args.ttl)
    if session.output.as_json:
        session.answer("vf lease", {"nic": args.nic, "lease": to_json(lease)})
    else:
        left = round(lease.expires_at_s - time.time())
        session.output.line(f"vf:{lease.vf} is leased to {lease.owner} for {left} s, epoch {lease.epoch}.")
        session.output.line(
            f"Give it back with: nicoffload vf release {args.nic} vf:{lease.vf} --epoch {lease.epoch}"
        )
    return 0


def _release(args: argparse.Namespace, session: Session) -> int:
    with session.open(args.nic) as nic:
        holder = next((lease.owner for lease in nic.leases() if lease.vf == args.vf), _NOBODY)
        outcome = nic.release_vf(_named_lease(args.vf, holder, args.epoch))
    if session.output.as_json:
        document = {"nic": args.nic, "vf": args.vf, "released": outcome.released, "detail": outcome.detail}
        session.answer("vf release", document)
    else:
        session.output.line(
            f"vf:{args.vf} is free." if outcome.released else f"Nothing done: {outcome.detail}"
        )
    return 0 if outcome.released else ConflictError.exit_code


def _named_lease(vf: int, owner: str, epoch: int) -> Lease:
    """Return a lease as its holder knows it: VF and epoch tell it apart from every other."""
    from nicoffload.nic import Lease

    return Lease(vf=vf, owner=owner, epoch=epoch, expires_at_s=0.0)
