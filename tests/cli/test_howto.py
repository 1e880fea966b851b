"""What docs/howto/use-the-command-line.md tells to type does what it says."""

from __future__ import annotations

import re
import shlex


def test_every_command_of_the_page_runs(cli, repo_root, monkeypatch):
    page = (repo_root / "docs/howto/use-the-command-line.md").read_text("utf-8")
    (state,) = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    monkeypatch.chdir(cli.folder)
    (cli.folder / "desired.yaml").write_text(state)
    commands = re.findall(r"^\$ nicoffload (.*)$", page, re.MULTILINE)
    assert len(commands) > 10
    for command in commands:
        words = [word.replace("$NIC", cli.nic("mlx5")) for word in shlex.split(command)]
        target = words.pop() if ">" in words else ""
        answer = cli(*[word for word in words if word != ">"])
        assert answer.code == (3 if "mock:sfn5122f" in command else 0), f"{command}\n{answer.err}"
        if target:
            (cli.folder / target).write_text(answer.out)
    assert cli.ok("plan", cli.nic("mlx5"), "--file", "desired.yaml") == "Nothing to do.\n"
