"""Why a flow is where it is, in sentences."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from nicoffload.codec import RuleTextError, parse_rule
from nicoffload.errors import InvalidRequestError, NotFoundError
from nicoffload.flexivoffload.accounts import FlowReport
from nicoffload.flexivoffload.headers import CUT, UNKNOWN
from nicoffload.model import Masked, Match, PortRange

_ANY_ACTION = " actions=pf"
"""What a match lacks to be a rule."""

_CODES: Mapping[str, str] = {
    "vswitch.only": "It stays on the virtual switch: it is broadcast, multicast or not IP, its header is cut, or no VM "
    "is at either end.",
    "policy.deny": "Policy rule {rule} keeps it on the virtual switch, whatever it does.",
    "policy.default_onload": "No rule of the policy wants it on the NIC so far, and the default is the virtual switch.",
    "policy.local": "It is between two VMs of this host: only a rule of the policy takes that off the virtual switch.",
    "policy.offload": "The policy wants it on the NIC ({by}).",
    "policy.no_longer": "The policy no longer wants it on the NIC ({by}).",
    "first_packet.offload": "The policy wants it on the NIC from the first packet on ({by}): {detail}.",
    "dispatcher.vf": "It moved to the NIC: {detail}.",
    "nic.installed": "It moved to the NIC: {detail}.",
    "rule.shared": "It needs no rule of its own: the {detail}.",
    "placement.admitted": "Its rate was worth a row ({rate} packets/s; a row cost {row} packets/s, an operation {op} "
    "packets): {detail}.",
    "placement.price": "Its rate was not worth a row ({rate} packets/s; a row cost {row} packets/s, an operation {op} "
    "packets).",
    "placement.budget": "The budget of table operations was used up.",
    "placement.table_full": "The table was full, and no flow in it was so much slower that a swap was worth it.",
    "placement.vm_share": "Its VM had its share of the table.",
    "placement.idle": "It left the NIC because nothing came any more, or the connection had ended.",
    "placement.outbid": "It left the NIC: a faster flow took its row ({rate} packets/s).",
    "budget.operations": "The budget of table operations was nearly used up; it had to show its rate first.",
    "table.no_room": "The table had no free row for its VM ({detail}).",
    "table.full": "The NIC said that its table is full: {detail}",
    "nic.unsupported": "This NIC can't hold a rule for it: {detail}",
    "nic.table_full": "This NIC had no place for a rule: {detail}",
    "nic.local": "This NIC can't hold a rule for it: {detail}",
    "nic.no_vf": "Its VM can't use a virtual function: {detail}",
    "nic.refused": "The NIC refused the rule: {detail}",
    "nic.gone": "The NIC was lost: {detail}",
    "nic.removed_at_last": "Its rule could be removed at last.",
}


def find_flow(report: Mapping[str, Any], asked: str) -> Mapping[str, Any]:
    """Return the one flow of a report that a match names.

    Args:
        report: A replay report as JSON values.
        asked: A flow's name as the report writes it, or a match that catches just one of its flows.

    Raises:
        InvalidRequestError: The text is no match, or it catches more than one flow.
        NotFoundError: It catches none.
    """
    flows: Sequence[Mapping[str, Any]] = report["flows"]["listed"]
    same = [flow for flow in flows if flow["flow"] == asked.strip()]
    if len(same) == 1:
        return same[0]
    match = _match_of(asked)
    caught = [flow for flow in flows if _is_caught(match, flow["flow"])]
    if not caught:
        listed = "; ".join(flow["flow"] for flow in flows[:3])
        raise NotFoundError(
            f"no flow of the capture matches {asked!r}",
            path="FLOW",
            hint=f"a flow has a direction, from nw_src to nw_dst; the largest are: {listed}"
            if listed
            else "",
        )
    if len(caught) > 1:
        some = "\n    ".join(flow["flow"] for flow in caught[:5])
        raise InvalidRequestError(
            f"{len(caught)} flows match {asked!r}",
            path="FLOW",
            hint=f"name more fields; the largest are:\n    {some}",
        )
    return caught[0]


def check_question(asked: str) -> None:
    """Check that a text can name a flow, before a capture is replayed for it.

    Raises:
        InvalidRequestError: It is no match.
    """
    if asked.strip() != UNKNOWN and not asked.strip().endswith(CUT):
        _match_of(asked)


def _match_of(asked: str) -> Match:
    if not asked.strip():
        return Match()
    try:
        return parse_rule(f"{asked}{_ANY_ACTION}").match
    except RuleTextError as error:
        # The text is shown as it was typed.
        text = error.text.removesuffix(_ANY_ACTION)
        raise RuleTextError(
            error.reason, path=error.path, hint=error.hint, text=text, column=min(error.column, len(text) + 1)
        ) from error


def _is_caught(match: Match, flow: str) -> bool:
    try:
        named = parse_rule(f"{flow}{_ANY_ACTION}").match
    except InvalidRequestError:
        return False  # a flow without addresses has a name, and no match
    for name, wanted in match.items():
        found = getattr(named, name)
        if not isinstance(found, Masked) or not _fits(wanted, found.value):
            return False
    return True


def _fits(wanted: Masked | PortRange, value: int) -> bool:
    if isinstance(wanted, PortRange):
        return wanted.first <= value <= wanted.last
    return value & wanted.mask == wanted.value


def explain(flow: Mapping[str, Any], start_ns: int) -> Iterator[str]:
    """Yield the story of a flow, a sentence a line.

    Args:
        flow: One of a report's flows, as JSON values.
        start_ns: Time of the capture's first packet.
    """
    yield f"flow {flow['flow']}"
    yield f"  {_whose(flow)}, {flow['first_s']:.3f} s to {flow['last_s']:.3f} s of the capture"
    for path, name in (("offloaded", "NIC"), ("onloaded", "virtual switch")):
        count = flow[path]
        yield f"  {name + ':':<16}{count['packets']:>12,} packets {count['bytes']:>16,} bytes"
    if flow["dropped"]["packets"]:
        yield f"  of which the NIC dropped {flow['dropped']['packets']:,} packets"
    if flow["counter_disagreements"]:
        yield (
            f"  {flow['counter_disagreements']} readings of the NIC's counter were wrong; what the VM's dispatcher "
            "counted was taken"
        )
    yield f"  now: {flow['state']}"
    yield "decisions"
    if not flow["decisions"]:
        yield "  the flow was idle for long, and its record was let go; the last entry was:"
        yield f"  {_sentence({'code': flow['code'], 'policy_rule': flow['policy_rule']})}"
    for together in _moves(flow["decisions"]):
        first = together[0]
        seconds = (first["time_ns"] - start_ns) / 1e9
        states = " → ".join([first["from"], *(entry["to"] for entry in together)])
        yield f"  {seconds:>10.3f} s  {states}  [{first['code']}]"
        yield f"               {_sentence(first)}"
    if flow["decisions_left_out"]:
        yield f"  {flow['decisions_left_out']} decisions in the middle were not kept"


def _moves(entries: Sequence[Mapping[str, Any]]) -> Iterator[list[Mapping[str, Any]]]:
    """Yield decisions, those together that are steps of one move: at one time, for one reason."""
    together: list[Mapping[str, Any]] = []
    for entry in entries:
        if together and _reason(together[-1]) != _reason(entry):
            yield together
            together = []
        together.append(entry)
    if together:
        yield together


def _reason(entry: Mapping[str, Any]) -> tuple[object, ...]:
    return entry["time_ns"], entry["code"], _sentence(entry)


def describe(flow: FlowReport, start_ns: int) -> Iterator[str]:
    """Yield a flow's decisions, each as one sentence with its time."""
    said = ""
    for entry in flow.decisions:
        values = {
            "code": entry.code,
            "policy_rule": entry.policy_rule,
            "detail": entry.detail,
            "rate_pps": round(entry.rate_pps, 3),
            "row_price_pps": round(entry.row_price_pps, 3),
            "op_price_packets": round(entry.op_price_packets, 3),
        }
        text = f"{(entry.time_ns - start_ns) / 1e9:.3f} s: {_sentence(values)}"
        if text != said:  # two steps of one move have one reason
            yield text
        said = text


def _whose(flow: Mapping[str, Any]) -> str:
    how = {"rx": "to VM", "tx": "from VM", "local": "between VMs, from"}.get(flow["direction"])
    return f"{how} {flow['vm']}" if how else "of no VM"


def _sentence(entry: Mapping[str, Any]) -> str:
    code, rule = entry["code"], entry["policy_rule"]
    text = _CODES.get(code)
    detail = entry.get("detail", "")
    if text is None:
        return f"The NIC did not take the rule: {detail}" if code.startswith("nic.") else detail or code
    return text.format(
        rule=repr(rule),
        by=f"rule {rule!r}" if rule else "its default",
        detail=detail,
        rate=f"{entry.get('rate_pps', 0.0):g}",
        row=f"{entry.get('row_price_pps', 0.0):g}",
        op=f"{entry.get('op_price_packets', 0.0):g}",
    )
