"""Every trap of Linux drivers that is known is kept from the user, and by what is said to do it."""

from __future__ import annotations

import pytest

from tests.docs import markdown
from tests.linux.traps import TRAPS, of_rules, of_vfs

assert of_rules.TCP == of_vfs.TCP  # both put their checks into the list


@pytest.mark.parametrize("trap", [pytest.param(trap, id=trap.name) for trap in TRAPS])
def test_trap(trap):
    trap.check()


@pytest.mark.parametrize("trap", [pytest.param(trap, id=trap.name) for trap in TRAPS])
def test_check_fails_without_what_is_done_about(trap, monkeypatch):
    trap.off(monkeypatch)
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        trap.check()


def test_the_page_on_traps_is_current(repo_root, golden):
    assert len({trap.name for trap in TRAPS}) == len(TRAPS)
    golden.check_text(repo_root / "docs/reference/traps.md", _page())


_HEAD = """\
# Traps of Linux drivers

What drivers do that a caller does not expect, and what becomes of it here. Each row has a check, which runs on the
emulated driver through the plugin that drives it, and runs again with the code switched off that is named: then it must
fail. No NIC takes part in that. Run one with:

    pytest tests/linux/test_traps.py -k one_mask_per_port

Where a driver does it is in the page of the family: {doc}`nics`.\
"""


def _page():
    rows = [
        (f"`{trap.family}`", trap.does, trap.instead, markdown.code(trap.by.split(", ")), f"`{trap.name}`")
        for trap in sorted(TRAPS, key=lambda trap: (trap.family, trap.name))
    ]
    table = markdown.table(("driver", "what it does", "what becomes of it", "by", "check"), rows)
    return markdown.page(_HEAD, table)
