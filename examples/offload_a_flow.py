"""Put one flow on a NIC, read its counters, and take it off again.

Usage: python examples/offload_a_flow.py [NIC [RULE]]

Without arguments it uses an emulated NIC, which needs neither hardware nor root.
"""

from __future__ import annotations

import sys

from nicoffload import Nic, open_nic
from nicoffload.codec import format_rule, parse_rule
from nicoffload.compiler import Refusal
from nicoffload.errors import NicOffloadError
from nicoffload.model import FlowRule


def finest(nic: Nic, rule: FlowRule) -> FlowRule:
    """Return the rule, or the finest coarser one that the NIC can hold."""
    answer = nic.check(rule)
    if not isinstance(answer, Refusal):
        return rule
    print(f"{nic.name} can't hold it:")
    for reason in answer.reasons:
        print(f"  {reason}")
    for rung in answer.ladder:
        if rung.rule is not None and not rung.reasons:
            print(f"taking the {rung.name} rule instead, which catches {rung.also_catches}")
            return rung.rule
    raise answer.error(nic.name)


def main(name: str = "mock:mlx5", text: str = "tcp,nw_dst=10.0.0.5,tp_dst=443 actions=vf:2") -> int:
    """Offload the flow and return an exit code."""
    try:
        wanted = parse_rule(text)
        with open_nic(name) as nic:
            rule = finest(nic, wanted)
            (installed,) = nic.add_flows([rule]).installed
            print(f"{format_rule(rule)} is in table {installed.ref.table}")
            # A row is what is known of one rule; None is not zero, for many NICs count nothing per rule.
            packets = nic.flow_stats([rule.rule_id]).row(0).packets
            print("packets so far:", "not counted by this NIC" if packets is None else packets)
            nic.remove_flows([rule.rule_id])
            print("removed")
    except NicOffloadError as error:
        print(f"error: {error}", file=sys.stderr)
        if error.hint:
            print(f"  {error.hint}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
