"""Policy documents: which flows go where, at their first packet and by what they do later."""

from __future__ import annotations

from nicoffload.flexivoffload.policy.load import load_policy, parse_policy
from nicoffload.flexivoffload.policy.types import (
    Granularity,
    Limits,
    Measure,
    Policy,
    PolicyRule,
    RuleKind,
    Threshold,
    Tier,
)

__all__ = [
    "Granularity",
    "Limits",
    "Measure",
    "Policy",
    "PolicyRule",
    "RuleKind",
    "Threshold",
    "Tier",
    "load_policy",
    "parse_policy",
]
