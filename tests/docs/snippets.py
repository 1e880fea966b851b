"""Takes the fenced blocks out of a page and runs them, in order, as a reader would.

What is understood:

- ``console``: lines that start with ``$ `` are commands (a backslash at the end goes on in the next line); what
  stands below one is what it prints. A command that fails must be followed by ``$ echo $?``, except ``flow check``,
  which answers with 3.
- ``python``: runs in one interpreter a page, as at the prompt. A ``text`` block right below shows what it prints.
- Any block right below a line that ends with a file's name in backticks and a colon is written to that file.

In output that is shown, ``...`` stands for any text within a line, and alone on a line for any number of lines. Ids,
times and figures that depend on the machine are compared by their form, and columns without regard to their width.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_FILE_NAME = re.compile(r"`([\w./-]+\.\w+)`:\s*$")
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_EPOCH = re.compile(r"\b\d{10}\b")
# What the two paths carried depends on how flows are placed, which is not the pages' business; the sum is compared.
_PATHS = re.compile(r"^(NIC \(offloaded\)|virtual switch \(onloaded\)) .*$", re.MULTILINE)
_SPEED = re.compile(r"in [\d.,]+ s, [\d,]+ packets/s")


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """One fenced block.

    Args:
        kind: Its language.
        text: What is in it.
        line: Line of the page that it starts on.
        before: The last line of text before it.
        follows: Whether nothing but blank lines is between it and the block before.
    """

    kind: str
    text: str
    line: int
    before: str
    follows: bool


def blocks(page: str) -> list[Block]:
    """Return the fenced blocks of a page."""
    found = []
    end = 0
    for match in _FENCE.finditer(page):
        gap = page[end : match.start()].rstrip()
        before = page[: match.start()].rstrip().rpartition("\n")[2]
        line = page.count("\n", 0, match.start()) + 1
        found.append(
            Block(kind=match[1], text=match[2], line=line, before=before, follows=bool(found) and not gap)
        )
        end = match.end()
    return found


def commands(text: str) -> Iterator[tuple[str, str]]:
    """Yield each command of a console block with the output that is shown for it."""
    command, shown = "", []
    lines = iter(text.splitlines())
    for line in lines:
        if line.startswith("$ "):
            if command:
                yield command, "\n".join(shown)
            command, shown = line[2:], []
            while command.endswith("\\"):
                command += "\n" + next(lines).removeprefix("> ")
        else:
            assert command, f"output before the first command: {line!r}"
            shown.append(line)
    if command:
        yield command, "\n".join(shown)


def normalised(text: str) -> str:
    """Return output without what differs from run to run."""
    text = _UUID.sub("00000000-0000-0000-0000-000000000000", text)
    text = _SPEED.sub("in T s, N packets/s", _EPOCH.sub("0000000000", text))
    text = _PATHS.sub(r"\1", text)
    return "\n".join(" ".join(line.split()) for line in text.strip("\n").splitlines())


def agree(shown: str, printed: str) -> bool:
    """Tell whether output is as shown."""
    parts = []
    for line in normalised(shown).splitlines():
        if line == "...":
            parts.append(r"(?:.*\n)*?")
        else:
            parts.append(".*?".join(re.escape(part) for part in line.split("...")) + r"\n")
    return re.fullmatch("".join(parts), normalised(printed) + "\n") is not None


def difference(shown: str, printed: str) -> str:
    """Return what a person needs to correct the page."""
    return f"--- shown\n{normalised(shown)}\n--- printed\n{normalised(printed)}"


@dataclass(slots=True, kw_only=True)
class Reader:
    """Somebody who types what a page says.

    Args:
        folder: Where; has what of the repository a reader sees.
        repo_root: The repository.
    """

    folder: Path
    repo_root: Path
    names: dict[str, Any] = field(default_factory=lambda: {"__name__": "__main__"})
    code: int = 0

    def __post_init__(self) -> None:
        for name in ("examples", "schemas"):
            (self.folder / name).symlink_to(self.repo_root / name)
        (self.folder / ".venv").symlink_to(sys.prefix)
        (self.folder / "build").mkdir()

    def read(self, page: str) -> int:
        """Do all that a page says; return how many commands and programs that was."""
        done = 0
        found = blocks(page)
        for index, block in enumerate(found):
            try:
                name = _FILE_NAME.search(block.before)
                if name and not block.follows:
                    (self.folder / name[1]).parent.mkdir(parents=True, exist_ok=True)
                    (self.folder / name[1]).write_text(block.text, "utf-8")
                elif block.kind == "console":
                    done += self.console(block.text)
                elif block.kind == "python":
                    below = found[index + 1] if index + 1 < len(found) else None
                    self.python(block.text, below.text if below and below.follows else "")
                    done += 1
            except Exception as fault:
                fault.add_note(f"in the block on line {block.line} of the page")
                raise
        return done

    def console(self, text: str) -> int:
        """Run the commands of a block."""
        pairs = list(commands(text))
        for index, (command, shown) in enumerate(pairs):
            printed = self.run(command)
            following = pairs[index + 1][0] if index + 1 < len(pairs) else ""
            answered = following == "echo $?" or ("flow check" in command and self.code == 3)
            assert self.code == 0 or answered, f"{command} ended with {self.code}\n{printed}"
            assert not shown or agree(shown, printed), f"{command}\n{difference(shown, printed)}"
        return len(pairs)

    def run(self, command: str) -> str:
        """Run one command in a shell that knows what those before it exported; return all that it printed."""
        if command.startswith("make "):
            return self.make(command.split()[1])
        state = self.folder / ".shell"
        script = f"{command}\nnicoffload_code=$?; export -p > .shell; exit $nicoffload_code"
        begin = f". ./.shell; (exit {self.code})\n" if state.exists() else ""
        done = self.call(["bash", "-c", begin + script], self.folder)
        self.code = done.returncode
        assert "Traceback" not in done.stdout, done.stdout
        return done.stdout

    def make(self, target: str) -> str:
        """Run `make demo` in the repository; other targets only have to exist."""
        ours = Path(sys.prefix) == self.repo_root / ".venv"
        words = ["make", "--no-print-directory", "-o", ".venv/.stamp-run", "-o", ".venv/.stamp-dev", target]
        if target != "demo" or not ours:
            words.insert(1, "-n")
        done = self.call(words, self.repo_root)
        self.code = done.returncode
        return done.stdout if target == "demo" and ours else ""

    def call(self, words: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
        """Run a program with the environment of somebody new."""
        env = {
            "PATH": f"{Path(sys.executable).parent}:{os.environ.get('PATH', '/usr/bin:/bin')}",
            "HOME": str(self.folder),
            "NICOFFLOAD_STATE_DIR": str(self.folder / "journal"),
            "LC_ALL": "C.UTF-8",
            "PYTHONUNBUFFERED": "1",  # what goes to stderr stands where a terminal shows it
            "NO_COLOR": "1",
        }
        return subprocess.run(
            words,
            cwd=folder,
            env=env,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            check=False,
        )

    def python(self, text: str, shown: str) -> None:
        """Run a program where those before it left off."""
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed), contextlib.chdir(self.folder):
            exec(compile(text, "page", "exec", dont_inherit=True), self.names)
        if shown:
            assert agree(shown, printed.getvalue()), difference(shown, printed.getvalue())
