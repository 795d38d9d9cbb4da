"""The tutorial's page, script and notebook give the same commands, which work."""

import os
import re
import runpy
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import nbclient
import nbformat
import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "tutorial.md").read_text()
SCRIPT = runpy.run_path(str(ROOT / "examples" / "tutorial.py"))
NOTEBOOK = ROOT / "examples" / "tutorial.ipynb"
TINY = (
    *("--encoder-widths", "8", "--decoder-widths", "12", "8", "4", "--channel-mult", "1", "2"),
    *("--blocks", "1", "--batch-size", "8", "--record-images", "8", "--precision", "float32"),
)


def _notebook(values: dict[str, object]) -> nbformat.NotebookNode:
    """The notebook with other values in its first cell of code."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    first = next(cell for cell in notebook.cells if cell.cell_type == "code")
    first.source += "".join(f"\n{name} = {value!r}" for name, value in values.items())
    return notebook


def _commands(notebook: nbformat.NotebookNode) -> list[list[str]]:
    """The commands of a notebook as words, with its variables filled in."""
    sources = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    names: dict[str, object] = {}
    exec("\n".join(sources[:2]), names)  # noqa: S102
    lines = [source for source in sources if source.startswith("!")]
    return [shlex.split(line.format_map(names))[1:] for line in lines]


def _images(folder: Path) -> Path:
    """24 images of a square, in two subfolders."""
    rng = np.random.default_rng(0)
    for number, (row, column) in enumerate(rng.integers(0, 6, (24, 2))):
        pixels = np.full((8, 8, 3), 255, np.uint8)
        pixels[row : row + 3, column : column + 3] = (220, 0, 0) if number % 2 else (0, 0, 220)
        path = folder / ("red" if number % 2 else "blue") / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    return folder


def _has_all(run: Path) -> bool:
    files = ("stages.json", "model.safetensors", "samples.png", "report.html")
    return all((run / file).exists() for file in (*files, "samples/evaluations.json"))


def _steps(words: Sequence[str]) -> list[list[str]]:
    steps: list[list[str]] = SCRIPT["steps"](words)
    return steps


def test_the_page_shows_the_commands_of_the_script() -> None:
    (line,) = re.findall(r"^python examples/tutorial\.py (.*)$", PAGE, re.M)
    typed = re.sub(r"```text\n.*?```", "", PAGE, flags=re.DOTALL)
    shown = re.findall(r"^multistage (.*)$", typed, re.M)
    assert [shlex.split(command) for command in shown] == _steps(shlex.split(line))


def test_the_notebook_has_the_commands_of_the_script() -> None:
    words = ["a", "b", "--size", "8", "--images", "9", "--samples", "7", "--extractor", "pixels"]
    values = {"DATA": "a", "RUN": "b", "SIZE": 8, "IMAGES": 9, "SAMPLES": 7, "EXTRACTOR": "pixels"}
    notebook = _notebook({**values, "NETWORK": shlex.join(TINY)})
    assert _commands(notebook) == _steps([*words, *TINY])


def test_the_notebook_is_stored_without_outputs() -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    assert not any(cell.get("outputs") for cell in notebook.cells)


@pytest.mark.slow
def test_the_script_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    _images(Path("dots"))
    short = ("--size", "8", "--images", "32", "--samples", "4", "--extractor", "pixels")
    assert SCRIPT["run"](["dots", "run", *short, *TINY]) == 0
    assert _has_all(tmp_path / "run")


def test_the_script_stops_at_the_first_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert SCRIPT["run"]([str(tmp_path), str(tmp_path / "run")]) == 2
    assert capsys.readouterr().out.count("$ multistage") == 1


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # of the notebook's own machinery
def test_the_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    programs = Path(sys.executable).parent  # where the command multistage is
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    values = {"DATA": "dots", "RUN": "run", "SIZE": 8, "IMAGES": 32, "SAMPLES": 4}
    _images(tmp_path / "dots")
    notebook = _notebook({**values, "EXTRACTOR": "pixels", "NETWORK": shlex.join(TINY)})
    resources = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(notebook, timeout=500, resources=resources).execute()
    assert _has_all(tmp_path / "run")
