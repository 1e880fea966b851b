"""The model as JSON values and as one line of text, and back; what comes from outside is checked."""

from nicoffload.codec.actions import format_action, parse_action
from nicoffload.codec.documents import load_document, load_json, load_yaml
from nicoffload.codec.errors import RuleTextError
from nicoffload.codec.rules import (
    action_from_json,
    action_to_json,
    match_from_json,
    match_to_json,
    rule_from_json,
    rule_to_json,
)
from nicoffload.codec.state import rate_limit_from_json, to_json, vf_config_from_json
from nicoffload.codec.text import format_match, format_rule, parse_rule
from nicoffload.codec.units import format_rate, parse_rate, parse_size

__all__ = [
    "RuleTextError",
    "action_from_json",
    "action_to_json",
    "format_action",
    "format_match",
    "format_rate",
    "format_rule",
    "load_document",
    "load_json",
    "load_yaml",
    "match_from_json",
    "match_to_json",
    "parse_action",
    "parse_rate",
    "parse_rule",
    "parse_size",
    "rate_limit_from_json",
    "rule_from_json",
    "rule_to_json",
    "to_json",
    "vf_config_from_json",
]
