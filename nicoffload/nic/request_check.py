"""What callers hand in by mistake in place of rules and rates, told with a cure; one cheap pass over all of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from nicoffload.errors import InvalidRequestError
from nicoffload.model import FlowRule, RateLimit

_PARSE = "nicoffload.codec.parse_rule makes a rule of its text"


def check_rules(rules: Iterable[FlowRule], device: str) -> Sequence[FlowRule]:
    """Return the rules as a sequence.

    Args:
        rules: Any iterable of rules.
        device: The NIC, for the error.

    Raises:
        InvalidRequestError: It is none, or holds something else.
    """
    if isinstance(rules, (str, bytes, FlowRule)) or not isinstance(rules, Iterable):
        hint = "put it in a list" if isinstance(rules, FlowRule) else _PARSE
        raise InvalidRequestError(
            f"takes a list of rules, not a {type(rules).__name__}", path="/flows", device=device, hint=hint
        )
    found = tuple(rules)
    if set(map(type, found)) - {FlowRule}:
        for index, rule in enumerate(found):
            if not isinstance(rule, FlowRule):
                raise InvalidRequestError(
                    f"takes a FlowRule, not a {type(rule).__name__}",
                    path=f"/flows/{index}",
                    device=device,
                    hint=_PARSE,
                )
    return found


def check_limits(limits: Mapping[int, RateLimit], device: str) -> None:
    """Refuse what is no map of VF indices to rates.

    Args:
        limits: VF index to its rates.
        device: The NIC, for the error.

    Raises:
        InvalidRequestError: A key is no whole number, or a value no `RateLimit`.
    """
    hint = "such as {0: RateLimit(max_tx_bps=100_000_000)}"
    if not isinstance(limits, Mapping):
        raise InvalidRequestError(
            f"takes a map of VF indices to rates, not a {type(limits).__name__}",
            path="/rates",
            device=device,
            hint=hint,
        )
    for vf, limit in limits.items():
        if not isinstance(vf, int) or isinstance(vf, bool):
            raise InvalidRequestError(
                f"takes VF indices, not {vf!r}", path="/rates", device=device, hint=hint
            )
        if not isinstance(limit, RateLimit):
            raise InvalidRequestError(
                f"takes a RateLimit, not a {type(limit).__name__}",
                path=f"/rates/{vf}",
                device=device,
                hint=hint,
            )
