"""A YAML loader that says what JSON can say, and refuses what would be read as something else than it looks."""

from __future__ import annotations

import re
from typing import Any

import yaml


class Loader(yaml.SafeLoader):
    """SafeLoader with the plain scalars of YAML 1.2, without anchors, and strict about keys."""

    # Without the resolvers of YAML 1.1: there 12:00:00:00:00:01 is a number, `no` is false, 2001-01-01 is a date.
    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012  as PyYAML declares it

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Refuse anchors, aliases and tags where they stand."""
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        for name in ("anchor", "tag"):
            if getattr(event, name, None):
                raise yaml.composer.ComposerError(
                    None, None, "anchors, aliases and tags are not taken", event.start_mark
                )
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:  # noqa: FBT001, FBT002  PyYAML's signature
        """Refuse keys that are no text, and keys that are given twice."""
        seen = set()
        for key_node, _ in node.value:
            if key_node.tag != "tag:yaml.org,2002:str":
                raise yaml.constructor.ConstructorError(
                    None, None, "a key is text; write it in quotes", key_node.start_mark
                )
            if key_node.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key_node.value} is given twice", key_node.start_mark
                )
            seen.add(key_node.value)
        return super().construct_mapping(node, deep)


def _resolve(tag: str, pattern: str, first: tuple[str, ...]) -> None:
    Loader.add_implicit_resolver(f"tag:yaml.org,2002:{tag}", re.compile(rf"(?:{pattern})\Z"), [*first])


_DIGITS = tuple("-0123456789")
_resolve("null", "~|null|Null|NULL|", ("~", "n", "N", ""))
_resolve("bool", "true|True|TRUE|false|False|FALSE", tuple("tTfF"))
_resolve("int", "-?(?:0|[1-9][0-9]{0,99})|0x[0-9a-fA-F]{1,99}", _DIGITS)
_resolve("float", r"-?(?:0|[1-9][0-9]{0,99})(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?", _DIGITS)
