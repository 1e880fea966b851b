"""The one error that only the codec raises: it knows the place in a line of text."""

from __future__ import annotations

from nicoffload.errors import InvalidRequestError


class RuleTextError(InvalidRequestError):
    """A rule written as text is wrong at a known place.

    Args:
        message: What is wrong; the column is added to it.
        text: The whole line.
        column: Where, from 1; one past the end where something is missing.
        path: JSON pointer to the part of the rule, where that is known.
        hint: What would help.
    """

    def __init__(self, message: str, *, text: str, column: int, path: str = "", hint: str = "") -> None:
        super().__init__(f"{message} (column {column})", path=path, hint=hint)
        self.reason = message
        self.text = text
        self.column = column
