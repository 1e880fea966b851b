"""Small pieces of Markdown for generated pages."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def cell(text: str) -> str:
    """Return text as one cell of a table."""
    return text.replace("|", "\\|").replace("\n", " ").replace("<", "&lt;") or "-"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table."""
    lines = [head, ["---"] * len(head), *([cell(text) for text in row] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def code(words: Iterable[str]) -> str:
    """Return words as code, with commas between them."""
    return ", ".join(f"`{word}`" for word in words)


def page(*parts: str) -> str:
    """Return parts with a blank line between them, those that are empty left out."""
    return "\n\n".join(part for part in parts if part) + "\n"
