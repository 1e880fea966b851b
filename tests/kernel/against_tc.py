"""What tc says of kernel state, in a form that two devices can be compared by."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

# What differs between two filters that say the same: numbers that the kernel gives out, and time.
_PASSING = {"index", "ref", "bind", "installed", "last_used", "first_used", "stats"}
_PASSING_TEXT = re.compile(
    r"index \d+|police 0x[0-9a-f]+|installed \d+ sec|used \d+ sec|firstused \d+ sec|ref \d+ bind \d+"
)
_ORDER = re.compile(r"action order (\d+):")


def tc(*words: str) -> str:
    """Run tc, which must not fail, and return its output."""
    done = subprocess.run(["tc", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"tc {' '.join(words)}: {done.stderr}"
    return done.stdout


def run_commands(commands: Sequence[str], folder: Path) -> None:
    """Run whole tc commands in one batch."""
    file = folder / "batch"
    file.write_text("".join(command.removeprefix("tc ") + "\n" for command in commands), "ascii")
    tc("-batch", str(file))


def shown(device: str) -> tuple[list[object], list[str]]:
    """Return the filters of a device's ingress as tc shows them, as values and as lines (JSON leaves rates out)."""
    pairs = json.loads(tc("-j", "-d", "filter", "show", "dev", device, "ingress"), object_pairs_hook=_clean)
    return sorted(pairs, key=str), shown_lines(device)


def shown_lines(device: str) -> list[str]:
    """Return the filters of a device's ingress as lines; of u32 with links, tc 6.1 writes JSON that is none."""
    text = tc("-d", "filter", "show", "dev", device, "ingress")
    filters: list[list[str]] = []
    for line in _first_cookies(text.splitlines()):
        if line.startswith("filter "):
            filters.append([])
        filters[-1].append(_PASSING_TEXT.sub("", line).strip())
    # Chains are shown in the order in which they came to be, which is no part of what they say.
    return [line for lines in sorted(filters) for line in lines]


def _first_cookies(lines: Sequence[str]) -> Iterator[str]:
    """Leave out the cookies behind a filter's first action: tc repeats that of the first in some of the others."""
    first = True
    for line in lines:
        if found := _ORDER.search(line):
            first = found[1] == "1"
        if first or not line.strip().startswith("cookie"):
            yield line


def _clean(pairs: list[tuple[str, object]]) -> list[tuple[str, object]]:
    """Keep pairs, since tc writes some names twice."""
    if ("order", 1) not in pairs:
        pairs = [pair for pair in pairs if pair[0] != "cookie"]
    return [(name, value) for name, value in pairs if name not in _PASSING]
