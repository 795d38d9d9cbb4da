"""What the README shows works as it stands there."""

import re
import shlex
from dataclasses import replace
from pathlib import Path

import pytest

from multistage_diffusion import presets
from multistage_diffusion.cli import parse
from tests.conftest import TINY

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
TEXTS = [README, *(file.read_text() for file in sorted((ROOT / "docs").glob("*.md")))]
COMMANDS = [line for text in TEXTS for line in text.splitlines() if re.match(r"multistage (?!-)", line)]


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_are_understood(command: str) -> None:
    assert parse(shlex.split(command)[1:])


def test_there_are_commands_to_try() -> None:
    assert len(COMMANDS) >= 5


def test_the_python_examples_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    short = replace(presets.PRESETS["digits"].training, images=256, record_images=128)
    monkeypatch.setitem(presets.PRESETS, "digits", replace(presets.PRESETS["digits"], network=TINY, training=short))
    names: dict[str, object] = {}
    for block in re.findall(r"```python\n(.*?)```", README, re.DOTALL):
        exec(block, names)  # noqa: S102
    for name, count in (("pixels", 16), ("training_images", 4)):
        assert getattr(names[name], "shape", None) == (count, 1, 8, 8)
