"""What both programs share in talking to people and machines: tables, JSON, progress, errors, exit codes."""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from nicoffload.cli.report import error_lines, error_to_json
from nicoffload.errors import NicOffloadError

if TYPE_CHECKING:
    from rich.console import Console

EXIT_BUG = 70
"""A fault of ours (EX_SOFTWARE of sysexits.h)."""
EXIT_INTERRUPTED = 130
EXIT_BROKEN_PIPE = 141
"""The reader of our output went away: 128 + SIGPIPE, as a shell reports it."""

STYLES: Mapping[str, str] = MappingProxyType(
    {
        "yes": "green",
        "ok": "green",
        "no": "red",
        "problem": "red",
        "failed": "red",
        "partial": "yellow",
        "warning": "yellow",
        "unknown": "dim",
    }
)
"""Colour of a cell by its text."""

_MOST_FOLDED_ROWS = 1000

_UNWRITABLE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF})
"""What a write to stdout can fail with; such a fault names no file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """Where a command writes.

    Args:
        as_json: Whether the answer is one JSON document.
        color: Whether colour is allowed; a file or a pipe gets none in any case.
    """

    as_json: bool = False
    color: bool = True

    def json(self, schema: str, document: Mapping[str, Any]) -> None:
        """Print a JSON document that names its schema: ``{"schema": "cli-output", ...}``.

        Args:
            schema: Name of a file in ``schemas/``, without ``.schema.json``.
            document: The rest.
        """
        print(json.dumps({"schema": schema, **document}, indent=2))

    def line(self, text: str = "") -> None:
        """Print a line for people."""
        print(text)

    def note(self, text: str) -> None:
        """Print a line beside the answer, on stderr."""
        print(text, file=sys.stderr)

    def table(
        self, columns: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[str] = ()
    ) -> None:
        """Print a table for people.

        Args:
            columns: Headings.
            rows: Text of each cell.
            right: Headings of the columns that are set flush right: numbers.
        """
        # A terminal gets colour and folded cells. A file gets all of each cell; so does a table of thousands of rows,
        # which would take the library seconds.
        if not sys.stdout.isatty() or len(rows) > _MOST_FOLDED_ROWS:
            for line in _plain_lines(columns, rows, right):
                print(line)
            return
        from rich.table import Table
        from rich.text import Text

        shown = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
        for name in columns:
            shown.add_column(Text(name), justify="right" if name in right else "left", overflow="fold")
        for row in rows:
            shown.add_row(*(Text(cell, style=STYLES.get(cell, "")) for cell in row))
        self._console(sys.stdout).print(shown)

    @contextlib.contextmanager
    def progress(self, what: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
        """Show progress on stderr while the block runs, where stderr is a terminal.

        Args:
            what: What is being done.
            total: How much there is to do; None where unknown.

        Yields:
            A function that takes how much is done by now.
        """
        if not sys.stderr.isatty():
            yield lambda _done: None
            return
        from rich.progress import Progress

        with Progress(console=self._console(sys.stderr), transient=True) as bar:
            task = bar.add_task(what, total=total)
            yield lambda done: bar.update(task, completed=done)

    def error(self, fault: NicOffloadError) -> None:
        """Print an error on stderr: for people with its hint, for machines as a JSON document."""
        if self.as_json:
            document = {"schema": "cli-output", "command": "error", "error": error_to_json(fault)}
            print(json.dumps(document, indent=2), file=sys.stderr)
        else:
            print("\n".join(error_lines(fault)), file=sys.stderr)

    def _console(self, stream: Any) -> Console:
        from rich.console import Console

        return Console(file=stream, color_system="auto" if self.color else None, highlight=False)


def _plain_lines(
    columns: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[str]
) -> Iterator[str]:
    """Yield the lines of a table that is not folded."""
    widths = [max(map(len, column)) for column in zip(columns, *rows, strict=True)]
    adjust = [str.rjust if name in right else str.ljust for name in columns]
    for row in (columns, *rows):
        yield "  ".join(map(lambda set_, cell, width: set_(cell, width), adjust, row, widths)).rstrip()


def run(work: Callable[[], int], *, program: str, output: Output) -> int:
    """Run a command and return the exit code of the program; nothing that a user does ends in a traceback.

    Args:
        work: The command; it returns its exit code.
        program: Name of the program, for messages.
        output: Where errors go.
    """
    _open_missing_streams()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(
            stream, io.TextIOWrapper
        ):  # a terminal without UTF-8 gets question marks, not a traceback
            stream.reconfigure(errors="replace")
    try:
        code = work()
        sys.stdout.flush()
    except NicOffloadError as fault:
        output.error(fault)
        return fault.exit_code
    except BrokenPipeError:
        _forget_stdout()
        return EXIT_BROKEN_PIPE
    except KeyboardInterrupt:
        print(f"{program}: interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    except OSError as fault:
        if fault.errno not in _UNWRITABLE or fault.filename is not None:
            _report_bug(program, fault)
            return EXIT_BUG
        _forget_stdout()
        print(f"error: the answer can't be written: {fault.strerror}", file=sys.stderr)
        return NicOffloadError.exit_code
    except Exception as fault:  # noqa: BLE001  the last line of defence: it reports a bug of ours
        _report_bug(program, fault)
        return EXIT_BUG
    return code


def _open_missing_streams() -> None:
    """Put the null device where the caller closed a standard stream, in Python and as file descriptor."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115, PTH123  open to the end


def _forget_stdout() -> None:
    """Let the interpreter's flush at exit go nowhere, as the pipe is closed."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _report_bug(program: str, fault: Exception) -> None:
    print(f"{program}: this is a bug: {type(fault).__name__}: {fault}", file=sys.stderr)
    if os.environ.get("NICOFFLOAD_DEBUG"):
        traceback.print_exception(fault)
    else:
        print(
            "  please report it, with the output of the same command under NICOFFLOAD_DEBUG=1",
            file=sys.stderr,
        )
