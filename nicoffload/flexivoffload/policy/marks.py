"""A YAML or JSON text as plain values, together with where each of them stands."""

from __future__ import annotations

import json
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Any

import yaml

MAX_NODES = 100_000
"""More than any policy holds: aliases of aliases would fill the memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One thing that is wrong with a document.

    Args:
        pointer: JSON pointer to it; empty for the whole.
        message: What is wrong, and what would be right.
    """

    pointer: str
    message: str


@dataclass(slots=True, kw_only=True)
class Marked:
    """A document with the places of its parts.

    Args:
        value: Plain dicts, lists and scalars.
        marks: JSON pointer to line and column, both from 1, of the key of a member or of an item.
        faults: What is wrong with the document as a document: a key that is there twice.
    """

    value: Any = None
    marks: dict[str, tuple[int, int]] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)

    def place(self, pointer: str) -> tuple[int, int]:
        """Return line and column of a part, or of the nearest part around it that is there."""
        while pointer and pointer not in self.marks:
            pointer = pointer.rpartition("/")[0]
        return self.marks.get(pointer, (1, 1))


class BrokenTextError(Exception):
    """The text is neither YAML nor JSON; says where."""

    def __init__(self, message: str, line: int, column: int) -> None:
        super().__init__(message)
        self.message, self.line, self.column = message, line, column


def read_marked(text: str) -> Marked:
    """Return the values of a YAML or JSON text, each with its place.

    Raises:
        BrokenTextError: The text is neither, holds more than one document, or nests without end.
    """
    # YAML forbids tabs for indentation; JSON allows them, and has none inside its strings.
    plain = text.replace("\t", " ") if text.lstrip()[:1] in ("{", "[") else text
    try:
        loader = yaml.SafeLoader(plain)
        node = loader.get_single_node()
        marked = Marked()
        marked.value = None if node is None else _Reader(loader, marked).value(node, "")
    except yaml.reader.ReaderError as error:
        before = plain[: error.position]
        column = error.position - (before.rfind("\n") + 1) + 1
        raise BrokenTextError(str(error.reason), before.count("\n") + 1, column) from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        raise BrokenTextError(error.problem or str(error.context), line, column) from error
    except yaml.YAMLError as error:
        raise BrokenTextError(str(error).splitlines()[0], 1, 1) from error
    except RecursionError as error:
        raise BrokenTextError("nested too deeply", 1, 1) from error
    except ValueError as error:  # a timestamp such as 2024-99-99
        raise BrokenTextError(str(error), 1, 1) from error
    return marked


class _Reader:
    def __init__(self, loader: yaml.SafeLoader, marked: Marked) -> None:
        self._loader = loader
        self._marked = marked
        self._count = 0

    def value(self, node: yaml.Node, pointer: str) -> Any:
        self._count += 1
        if self._count > MAX_NODES:
            raise BrokenTextError(f"more than {MAX_NODES:,} values", *_place(node))
        self._marked.marks.setdefault(pointer, _place(node))
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, pointer)
        if isinstance(node, yaml.SequenceNode):
            return [self.value(item, f"{pointer}/{index}") for index, item in enumerate(node.value)]
        # YAML 1.1 reads 12:34:56:10:11:12 as a number to base 60; here it is a MAC address.
        if ":" in node.value and not node.tag.endswith(":null"):
            return node.value
        return self._loader.construct_object(node, deep=True)

    def _mapping(self, node: yaml.MappingNode, pointer: str) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = self._key(key_node)
            below = f"{pointer}/{key.replace('~', '~0').replace('/', '~1')}"
            if key in found:
                line = self._marked.marks[below][0]
                self._marked.faults.append(
                    Fault(pointer=below, message=f"{key!r} is here twice, first on line {line}")
                )
            self._marked.marks[below] = _place(key_node)
            found[key] = self.value(value_node, below)
        return found

    def _key(self, node: yaml.Node) -> str:
        if not isinstance(node, yaml.ScalarNode):
            raise BrokenTextError("a key is text, not a list or a mapping", *_place(node))
        key: Hashable = self._loader.construct_object(node, deep=True)
        return key if isinstance(key, str) else str(node.value) if key is not None else json.dumps(None)


def _place(node: yaml.Node) -> tuple[int, int]:
    return node.start_mark.line + 1, node.start_mark.column + 1
