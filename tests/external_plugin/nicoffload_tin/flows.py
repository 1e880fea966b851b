"""Flow rules of the Tin One."""

import uuid
from collections.abc import Sequence

import numpy as np

from nicoffload.driver import FlowFilters, InstalledRule, Outcome, Placement, RuleRef, TableState
from nicoffload.errors import ConflictError, NicOffloadError, NotSupportedError, Reason, from_errno
from nicoffload.model import Drop, FlowCounters, FlowRule, Masked, Match, ToVf

TABLE = "steering"
FIELDS = ("eth_type", "ip_proto", "ipv4_dst", "tp_dst")


class TinFlows(FlowFilters):
    def __init__(self, tin, profile, name: str) -> None:
        self._tin = tin
        self._table = profile.table(TABLE)
        self._name = name

    def tables(self) -> Sequence[TableState]:
        return [TableState(table=self._table, rows=self._table.rows, in_use=len(self._tin.read()["rows"]))]

    def create_many(self, placements: Sequence[Placement]) -> Sequence[Outcome]:
        return [self._create(placement) for placement in placements]

    def destroy_many(self, refs: Sequence[RuleRef]) -> Sequence[NicOffloadError | None]:
        return [self._destroy(ref) for ref in refs]

    def dump(self, refs: Sequence[RuleRef] | None = None) -> Sequence[InstalledRule]:
        rows = self._tin.read()["rows"]
        wanted = {int(row): None for row in rows} if refs is None else {r.slot: r.rule_id for r in refs}
        return [
            _installed(row, rule_id, rows[str(row)]) for row, rule_id in wanted.items() if str(row) in rows
        ]

    def read_counters(self, refs: Sequence[RuleRef]) -> FlowCounters:
        # The Tin One counts nothing. That is not the same as zero: no row is valid.
        count = len(refs)
        return FlowCounters(
            rule_ids=[ref.rule_id or uuid.uuid4() for ref in refs],
            valid=np.zeros(count, bool),
            packets=np.zeros(count, np.uint64),
            bytes=np.zeros(count, np.uint64),
            epoch=np.zeros(count, np.int64),
            last_used_ns=np.full(count, -1, np.int64),
            time_ns=0,
            facts=[None] * count,
        )

    def _create(self, placement: Placement) -> Outcome:
        rule, row = placement.rule, placement.slot
        reasons = _obstacles(rule)
        if reasons or row is None:
            return NotSupportedError(
                f"the Tin One can't hold the rule: {'; '.join(map(str, reasons))}",
                capability=f"flow_filters.{TABLE}",
                reasons=reasons or [Reason(code="slot", path="", message="the caller picks the row")],
                device=self._name,
            )
        (action,) = rule.actions
        try:
            self._tin.put(
                row,
                rule.match.ipv4_dst.value,
                rule.match.tp_dst.value,
                action.vf if isinstance(action, ToVf) else None,
            )
        except OSError as cause:
            return self._error(cause, f"rule {rule.rule_id} was refused")
        return RuleRef(rule_id=rule.rule_id, table=TABLE, slot=row)

    def _destroy(self, ref: RuleRef) -> NicOffloadError | None:
        try:
            self._tin.clear(-1 if ref.slot is None else ref.slot)
        except OSError as cause:
            return self._error(cause, f"rule {ref.rule_id} was not removed")
        return None

    def _error(self, cause: OSError, message: str) -> NicOffloadError:
        # EBUSY usually means "try again"; this NIC says it of a row that is taken.
        error = from_errno(
            cause.errno,
            message,
            capability=f"flow_filters.{TABLE}",
            device=self._name,
            kernel_message=cause.strerror,
            meaning=ConflictError if cause.strerror.endswith("is taken") else None,
        )
        error.__cause__ = cause
        return error


def _obstacles(rule: FlowRule) -> list[Reason]:
    """Return everything that the NIC can't do of a rule: better refused than done otherwise."""
    found = []
    shape = dict(rule.match.shape)
    for name in FIELDS:
        value = getattr(rule.match, name)
        exact = isinstance(value, Masked) and value.mask in (0xFF, 0xFFFF, 0xFFFFFFFF)
        if (
            not exact
            or (name == "eth_type" and value.value != 0x0800)
            or (name == "ip_proto" and value.value != 6)
        ):
            found.append(
                Reason(code="field", path=f"/match/{name}", message="must be exact, of TCP over IPv4")
            )
    found += [
        Reason(code="field", path=f"/match/{name}", message="the NIC does not compare it")
        for name in shape.keys() - set(FIELDS)
    ]
    if len(rule.actions) != 1 or not isinstance(rule.actions[0], Drop | ToVf):
        found.append(Reason(code="action", path="/actions", message="it can drop, or deliver to a VF"))
    elif isinstance(rule.actions[0], ToVf) and rule.actions[0].queue:
        found.append(Reason(code="action", path="/actions", message="a VF has one queue"))
    return found


def _installed(row: int, rule_id: uuid.UUID | None, content: list) -> InstalledRule:
    address, port, vf = content
    rule = FlowRule(
        match=Match.of(ipv4_dst=Masked(address, 0xFFFFFFFF), ip_proto=6, tp_dst=port),
        actions=(Drop() if vf is None else ToVf(vf=vf),),
        rule_id=rule_id or uuid.uuid4(),
    )
    return InstalledRule(ref=RuleRef(rule_id=None, table=TABLE, slot=row), rule=rule)
