"""What a refusal says would be accepted is what the table would take in the rule's place."""

from nicoffload import open_nic
from nicoffload.codec import parse_rule
from nicoffload.compiler import Refusal
from nicoffload.driver import Placement


def test_the_protocols_that_are_offered_are_those_that_the_table_takes_with_ports():
    with open_nic("mock:mlx5") as nic:
        refused = nic.check(parse_rule("sctp,nw_dst=10.0.0.1,tp_dst=80 actions=vf:1"))
        assert isinstance(refused, Refusal)
        assert refused.reasons[0].accepted == "nw_proto 6 or 17"
        for protocol in ("tcp", "udp"):
            taken = nic.check(parse_rule(f"{protocol},nw_dst=10.0.0.1,tp_dst=80 actions=vf:1"))
            assert isinstance(taken, Placement)
