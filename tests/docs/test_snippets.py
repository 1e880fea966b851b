"""What the pages for newcomers tell to type does what they show."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.docs.snippets import Reader, agree, blocks, commands

ROOT = Path(__file__).resolve().parents[2]
ELSEWHERE = {
    "docs/howto/measure-on-your-own-machine.md": "measures for minutes, as root; tests/lab measures in short",
    "docs/howto/use-the-software-nic.md": "makes NICs of this machine, as root; the plugin's tests do so in namespaces",
    "docs/howto/run-part-of-the-tests.md": "would run this test within itself",
}
"""Pages whose commands are not run here, and why."""
AT_HAND = {
    "docs/howto/write-a-policy.md": (
        "examples/policies/office.yaml",
        "examples/captures/office.pcap.gz",
        "examples/captures/office.vms.json",
    ),
}
"""Files that the reader of a page has before it begins."""
SLOW = {
    "README.md",
    "docs/howto/add-a-nic-profile.md",
    "docs/howto/use-the-command-line.md",
    "docs/howto/write-a-policy.md",
    "docs/tutorial/first-steps.md",
    "docs/tutorial/replay-your-capture.md",
    "docs/tutorial/write-a-plugin.md",
}
PAGES = [
    path.relative_to(ROOT).as_posix()
    for path in [
        ROOT / "README.md",
        *sorted((ROOT / "docs/tutorial").glob("*.md")),
        *sorted((ROOT / "docs/howto").glob("*.md")),
    ]
    if path.name != "index.md"
]


def marked(page):
    marks = [pytest.mark.slow] if page in SLOW else []
    if "$ make demo" in (ROOT / page).read_text("utf-8"):
        marks.append(pytest.mark.xdist_group("demo"))  # each writes build/demo
    return pytest.param(page, id=page, marks=marks)


@pytest.mark.parametrize("page", [marked(page) for page in PAGES if page not in ELSEWHERE])
def test_the_page_does_what_it_shows(page, tmp_path, monkeypatch):
    monkeypatch.setenv("NICOFFLOAD_STATE_DIR", str(tmp_path / "journal"))
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.delenv("NICOFFLOAD_PLUGINS", raising=False)
    reader = Reader(folder=tmp_path, repo_root=ROOT)
    for path in AT_HAND.get(page, ()):
        (tmp_path / Path(path).name).symlink_to(ROOT / path)
    assert reader.read((ROOT / page).read_text("utf-8")) > 0


def test_every_page_that_is_named_exists():
    assert {*ELSEWHERE, *AT_HAND, *SLOW} <= set(PAGES)


def test_every_piece_of_a_policy_is_one(tmp_path):
    page = (ROOT / "docs/howto/write-a-policy.md").read_text("utf-8")
    pieces = [block.text for block in blocks(page) if block.kind == "yaml"]
    assert len(pieces) > 3
    reader = Reader(folder=tmp_path, repo_root=ROOT)
    for piece in pieces:
        rules = piece if piece.startswith("version") else f"version: 1\nrules:\n{piece}"
        (tmp_path / "policy.yaml").write_text(rules, "utf-8")
        reader.console("$ flexivoffload policy check policy.yaml\n")


def test_every_link_of_the_readme_leads_somewhere():
    links = re.findall(r"\]\(([^)#]+)\)", (ROOT / "README.md").read_text("utf-8"))
    assert len(links) > 5
    assert [link for link in links if not (ROOT / link).exists()] == []


PAGE = """
Write `a.txt`:

```text
hello
```

```console
$ cat a.txt
hello
$ export B=2
$ echo $B \\
> and on
2 and on
```

```python
print("one", 2)
```

```text
one 2
```
"""


def test_a_page_is_read_in_order(tmp_path):
    assert [block.kind for block in blocks(PAGE)] == ["text", "console", "python", "text"]
    assert list(commands("$ a\nb\nc\n$ d\n")) == [("a", "b\nc"), ("d", "")]
    assert Reader(folder=tmp_path, repo_root=ROOT).read(PAGE) == 4


@pytest.mark.parametrize(
    ("right", "wrong"), [("$ cat a.txt\nhello", "$ cat a.txt\nhallo"), ("\none 2", "\none 3")]
)
def test_a_page_that_shows_what_is_not_so_fails(right, wrong, tmp_path):
    assert right in PAGE
    with pytest.raises(AssertionError, match="shown"):
        Reader(folder=tmp_path, repo_root=ROOT).read(PAGE.replace(right, wrong))


def test_a_command_that_fails_fails_the_page(tmp_path):
    reader = Reader(folder=tmp_path, repo_root=ROOT)
    reader.console("$ false\n$ echo $?\n1\n")
    with pytest.raises(AssertionError, match="ended with 1"):
        reader.console("$ false\n")


@pytest.mark.parametrize(
    ("shown", "printed", "same"),
    [
        ("a\n...\nc", "a\nb\nb\nc", True),
        ("a\n...\nc", "a\nc", True),
        ("a\n...\nc", "a\nb", False),
        ("a ... c", "a b c", True),
        ("a ... c", "a b\nc", False),
        ("a", "a\nb", False),
        (
            "id 31418dcd-7204-4865-960e-98a32c52823f",
            "id 971ee712-f7fa-58e1-bf97-ece93ce814f8",
            True,
        ),
        ("replayed 5 packets in 2.24 s, 66 packets/s", "replayed 6 packets in 2.24 s, 66 packets/s", False),
        ("replayed 5 packets in 2.24 s, 66 packets/s", "replayed 5 packets in 3.1 s, 7,066 packets/s", True),
    ],
)
def test_what_counts_as_the_same_output(shown, printed, same):
    assert agree(shown, printed) is same
