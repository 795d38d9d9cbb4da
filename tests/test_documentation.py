"""What the README and the documentation show works as it stands there."""

import os
import re
import shlex
import subprocess
from dataclasses import replace
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import pytest

import multistage_diffusion
from multistage_diffusion import presets
from multistage_diffusion.cli import parse
from multistage_diffusion.config import fixed_settings, replace_settings, to_json
from multistage_diffusion.training.config import TrainingConfig
from tests.conftest import TINY

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
DOCS = sorted((ROOT / "docs").glob("*.md"))
API = sorted((ROOT / "docs" / "api").glob("*.md"))
PAGES = [*sorted(ROOT.glob("*.md")), *DOCS, *API, *sorted((ROOT / "benchmarks").glob("*.md"))]
TEXTS = [README, *(file.read_text() for file in DOCS)]
COMMANDS = [
    line for text in TEXTS for line in text.splitlines() if re.match(r"multistage (?!-)", line)
]


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_are_understood(command: str) -> None:
    assert parse(shlex.split(command)[1:])


def test_there_are_commands_to_try() -> None:
    assert len(COMMANDS) >= 5


def test_the_readme_is_short() -> None:
    lines = README.splitlines()
    assert len(lines) <= 120
    assert max(map(len, lines)) <= 100


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    targets = re.findall(r"\]\(([^)#\s]+)", text) + re.findall(r"^\[\w+\]: (\S+)", text, re.M)
    local = [target for target in targets if not target.startswith("http")]
    assert [target for target in local if not (page.parent / target).exists()] == []


def _anchors(page: Path) -> set[str]:
    """What a link to a heading of the page may name, as GitHub and mkdocs make it."""
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", text, re.M)
    return {re.sub(r"[^\w\- ]", "", heading).lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_headings(page: Path) -> None:
    found = re.findall(r"\]\(([^)#\s:]*)#([^)\s]+)\)", page.read_text())
    targets = [(page.parent / name if name else page, anchor) for name, anchor in found]
    assert [anchor for target, anchor in targets if anchor not in _anchors(target)] == []


def test_every_public_name_is_in_the_reference() -> None:
    """Pages of the reference name modules, whose public names they show, or single objects."""
    pages = "".join(page.read_text() for page in API)
    paths = re.findall(r"^::: (\S+)$", pages, re.M)
    found = [resolve_name(path) for path in paths if ".interop" not in path]  # needs diffusers
    shown = {path.split(".")[-1] for path in paths}.union(
        *(getattr(m, "__all__", ()) for m in found)
    )
    assert set(multistage_diffusion.__all__) <= shown


@pytest.mark.parametrize("page", DOCS, ids=lambda page: page.name)
def test_every_page_is_found_from_the_index(page: Path) -> None:
    assert page.name == "index.md" or f"({page.name})" in (ROOT / "docs" / "index.md").read_text()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_prose_has_at_most_100_columns(page: Path) -> None:
    """Tables and what stands between fences may be wider."""
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    wide = [line for line in text.splitlines() if len(line) > 100 and not line.startswith("|")]
    assert wide == []


def _names(settings: dict[str, Any]) -> set[str]:
    """The names of nested settings."""
    inner = (_names(value) for value in settings.values() if isinstance(value, dict))
    return settings.keys() | set[str]().union(*inner)


def test_the_page_on_training_lists_the_settings_that_may_change() -> None:
    config = TrainingConfig()
    changing = _names(to_json(config)) - _names(fixed_settings(config))
    (listed,) = re.findall(
        r"settings may change when a run is continued:([^.]*)\.",
        (ROOT / "docs" / "training.md").read_text(),
    )
    assert set(re.findall(r"--([a-z-]+)", listed)) == {name.replace("_", "-") for name in changing}


@pytest.mark.parametrize(
    ("page", "expected"),
    [
        (ROOT / "README.md", {"pixels": 16}),
        (ROOT / "docs" / "python.md", {"pixels": 16, "training_images": 4}),
    ],
    ids=["README", "python"],
)
def test_the_python_examples_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, page: Path, expected: dict[str, int]
) -> None:
    monkeypatch.chdir(tmp_path)
    short = replace_settings(presets.PRESETS["digits"].training, images=256, record_images=128)
    monkeypatch.setitem(
        presets.PRESETS, "digits", replace(presets.PRESETS["digits"], network=TINY, training=short)
    )
    names: dict[str, object] = {}
    for block in re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL):
        exec(block, names)  # noqa: S102
    shapes = {name: getattr(names[name], "shape", None) for name in expected}
    assert shapes == {name: (count, 1, 8, 8) for name, count in expected.items()}


@pytest.mark.parametrize(
    "script", sorted((ROOT / "examples").glob("*.sh")), ids=lambda script: script.name
)
def test_example_scripts_start_a_training_that_is_understood(script: Path, tmp_path: Path) -> None:
    """The programs they call only write down what they are given."""
    for name in ("torchrun", "srun", "scontrol"):
        program = tmp_path / name
        program.write_text(f'#!/bin/sh\necho {name} "$@" >> {tmp_path}/said\n')
        program.chmod(0o755)
    slurm = {"SLURM_JOB_NODELIST": "a,b", "SLURM_JOB_NUM_NODES": "2", "SLURM_JOB_ID": "7"}
    environment = {**os.environ, **slurm, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    command = ["/bin/bash", str(script), "data.npy", str(tmp_path / "run"), "--batch-size", "1024"]
    subprocess.run(command, env=environment, check=True, timeout=20)
    said = (tmp_path / "said").read_text()
    (words,) = re.findall(r"-m multistage_diffusion (train .*)", said)
    parsed = parse(shlex.split(words))
    assert vars(parsed)["preset"].training.batch_size == 1024
    assert vars(parsed)["data"] == "data.npy"
    assert "requeue" not in said  # nothing was achieved, so nothing is tried again
