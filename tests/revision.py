"""Which code a result is of: results that are kept say so."""

from __future__ import annotations

import subprocess
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[1]
_SHIPPED = ("nicoffload", "plugins")


def code_revision() -> str:
    """Return the commit that is checked out, with a + where shipped code differs from it; empty outside of git."""
    head = _git("rev-parse", "--short=7", "HEAD").strip()
    changed = _git("status", "--porcelain", "--untracked-files=no", "--", *_SHIPPED)
    return f"{head}+" if head and changed else head


def _git(*words: str) -> str:
    try:
        ended = subprocess.run(["git", *words], cwd=_ROOT, capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return ended.stdout if ended.returncode == 0 else ""
