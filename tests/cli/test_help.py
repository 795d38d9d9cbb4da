"""``docs/commands.md`` shows the help of each command as it is.

To write it again: ``python -m tests.cli.test_help``.
"""

import contextlib
import io
import os
import re
from pathlib import Path

import pytest

from multistage_diffusion.cli import main
from multistage_diffusion.cli.discovery import command_names

PAGE = Path(__file__).parents[2] / "docs" / "commands.md"
SUBCOMMANDS = {
    "data": ("data inspect",),
    "plan": ("plan", "plan small"),
    "train": ("train", "train small"),
}
COMMANDS = tuple(command for name in command_names() for command in SUBCOMMANDS.get(name, (name,)))
INTRODUCTION = """# The commands

Where a command has `--dry-run`, it prints the resolved settings and stops; only `train --size` also
writes a preview. Exit codes: 0 done, 2 an error you can fix (one line), 130 interrupted. `--debug`
also shows where in the program an error comes from.
"""


def help_of(command: str) -> str:
    text = io.StringIO()
    with contextlib.redirect_stdout(text), contextlib.suppress(SystemExit):
        main([*command.split(), "--help"])
    plain = re.sub(r"\x1b\[[0-9;]*m", "", text.getvalue())
    return "\n".join(line.rstrip() for line in plain.strip().splitlines())


def page() -> str:
    sections = [
        f"## multistage {command}\n\n```\n{help_of(command)}\n```\n" for command in COMMANDS
    ]
    return "\n".join([INTRODUCTION, *sections])


def test_recorded_help_is_current(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "110")
    monkeypatch.setenv("NO_COLOR", "1")
    assert PAGE.read_text() == page()


if __name__ == "__main__":
    os.environ.update(COLUMNS="110", NO_COLOR="1")
    PAGE.write_text(page())
