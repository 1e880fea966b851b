"""Which of the rules in a NIC a user means: by id, by the start of one, or by the rule itself."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from nicoffload.cli.files import check_quoted, parse_rules, read_text
from nicoffload.codec import parse_rule
from nicoffload.errors import InvalidRequestError, NotFoundError

if TYPE_CHECKING:
    from nicoffload.model import FlowRule
    from nicoffload.nic import OwnedRule

_ID_START = re.compile(r"[0-9a-fA-F][0-9a-fA-F-]{3,35}")


def select_rules(
    ours: Sequence[OwnedRule], names: Sequence[str], files: Sequence[str], *, missing_ok: bool = False
) -> list[OwnedRule]:
    """Return the rules that are meant, each once.

    Args:
        ours: The rules to choose from.
        names: Ids, starts of ids of at least four digits, or rules as text.
        files: Files with rules, as `read_rules` takes them.
        missing_ok: Whether one that is not there is passed over.

    Raises:
        InvalidRequestError: A name is neither, or could mean several rules.
        NotFoundError: There is no such rule.
    """
    chosen: dict[str, OwnedRule] = {}
    check_quoted(names)
    for name in names:
        if _ID_START.fullmatch(name):
            found = _by_id(ours, name)
        elif "actions=" in name:
            found = _by_rule(ours, parse_rule(name))
        else:
            raise InvalidRequestError(
                f"{name!r} is neither an id nor a rule",
                hint="write four digits of an id, or match and actions=",
            )
        if len(found) > 1:
            raise InvalidRequestError(f"{name} could be {len(found)} rules", hint="give an id, or more of it")
        if not found and not missing_ok:
            raise NotFoundError(
                f"no rule of ours is {name}", hint="`nicoffload flow list NIC --ours` lists them"
            )
        chosen |= {str(row.rule.rule_id): row for row in found}
    for file in files:
        for place, rule in parse_rules(read_text(file), file):
            found = [row for row in ours if row.rule.rule_id == rule.rule_id] or _by_rule(ours, rule)
            if not found and not missing_ok:
                raise NotFoundError(
                    f"{place}: no rule of ours is this one", hint="--missing-ok passes over it"
                )
            chosen |= {str(row.rule.rule_id): row for row in found}
    return list(chosen.values())


def _by_id(ours: Sequence[OwnedRule], start: str) -> list[OwnedRule]:
    return [row for row in ours if str(row.rule.rule_id).startswith(start.lower())]


def _by_rule(ours: Sequence[OwnedRule], rule: FlowRule) -> list[OwnedRule]:
    wanted = (rule.match, rule.actions, rule.priority)
    return [row for row in ours if (row.rule.match, row.rule.actions, row.rule.priority) == wanted]
