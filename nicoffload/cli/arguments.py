"""The parser that both programs build on: near names for slips, options on either side of the command."""

from __future__ import annotations

import argparse
import difflib
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from nicoffload.cli.output import EXIT_BROKEN_PIPE, EXIT_BUG, EXIT_INTERRUPTED, Output

EXIT_CODES = f"""exit codes:
  0  done               5  conflict             10  read back differs      {EXIT_BUG}  a bug of ours
  1  other error        6  table or pool full   11  could not be undone   {EXIT_INTERRUPTED}  interrupted
  2  wrong request      7  device busy          12  journal               {EXIT_BROKEN_PIPE}  reader went away
  3  not on this NIC    8  device gone          13  kernel
  4  not found          9  not permitted        14  plugin
"""

_CHOICE = re.compile(r"invalid choice: '([^']*)' \(choose from (.*)\)")


class Parser(argparse.ArgumentParser):
    """argparse's parser with a hint in its errors."""

    def __init__(self, **settings: Any) -> None:
        settings.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(allow_abbrev=False, **settings)
        self._mixes = False

    def parse_known_args(  # type: ignore[override]  # argparse's is overloaded for namespaces that we don't have
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """Parse as argparse does, but let options stand between NIC and RULE, too.

        Before Python 3.12.7 argparse takes an optional positional as left out once an option follows the one before.
        """
        is_mixed = any(action.nargs in {"*", "?"} for action in self._get_positional_actions())
        if self._mixes or not is_mixed:
            return super().parse_known_args(args, namespace)
        self._mixes = True
        try:
            return self.parse_known_intermixed_args(args, namespace)
        finally:
            self._mixes = False

    def error(self, message: str) -> NoReturn:
        """Print what is wrong on stderr, with the near name for a misspelt command, and end with 2."""
        hint = f"{self.prog} --help"
        if found := _CHOICE.search(message):
            near = difflib.get_close_matches(found[1], re.findall(r"'([^']*)'", found[2]), n=1)
            hint = f"did you mean {near[0]}?" if near else hint
        self.exit(2, f"error: {message}\n  hint: {hint}\n")


def add_common(parser: argparse.ArgumentParser) -> None:
    """Add the options that every command takes. They may stand before or behind the command's name."""
    common = parser.add_argument_group("common options")
    keep = argparse.SUPPRESS  # a sub-command's default must not undo what was given before its name
    common.add_argument(
        "--json", action="store_true", dest="as_json", default=keep, help="answer as one JSON document"
    )
    common.add_argument(
        "--state-dir",
        type=Path,
        metavar="DIR",
        default=keep,
        help="folder of the journal (also: NICOFFLOAD_STATE_DIR)",
    )
    common.add_argument(
        "--no-color",
        action="store_true",
        default=keep,
        help="no colour (also: NO_COLOR, or when not a terminal)",
    )


def output_of(args: argparse.Namespace) -> Output:
    """Return where to write, from the common options and NO_COLOR."""
    no_color = getattr(args, "no_color", False) or bool(os.environ.get("NO_COLOR"))
    return Output(as_json=getattr(args, "as_json", False), color=not no_color)


def add_nic(parser: argparse.ArgumentParser) -> None:
    """Add the argument that names a NIC."""
    parser.add_argument("nic", metavar="NIC", help="mock:FAMILY, or what an installed plugin drives")
