"""What the tests of the command line share: short runs of a tiny network, and checks of results."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from multistage_diffusion.cli import main
from tests.conftest import write_images

TINY = (
    *("--encoder-widths", "8", "--decoder-widths", "12", "8", "4"),
    *("--channel-mult", "1", "2", "--blocks", "1"),
)
SHORT = (
    *("--images", "32", "--batch-size", "8", "--record-images", "8"),
    *("--checkpoint-images", "16", "--precision", "float32"),
)
UNIFIED = ("--encoder-widths", "8", "--decoder-widths", "8", "--channel-mult", "1", "2")

Result = tuple[int, str, str]
"""Exit code, standard output and standard error."""
Command = Callable[..., Result]


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Command:
    """Runs a command line; arguments may be of any type."""

    def command(*arguments: object) -> Result:
        code = main([str(argument) for argument in arguments])
        return code, *capfd.readouterr()

    return command


@pytest.fixture
def stages(tmp_path: Path) -> Path:
    """A stages file with three stages."""
    return write_stages(tmp_path / "stages.json")


def write_stages(path: Path) -> Path:
    """A stages file with three stages."""
    path.write_text(json.dumps({"boundaries": [0.3, 2.5]}))
    return path


@pytest.fixture(scope="session")
def trained_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of three stages on images as those of ``folder``, which no test may change."""
    root = tmp_path_factory.mktemp("trained")
    images, stages = write_images(root / "images"), write_stages(root / "stages.json")
    words = training(images, root / "run", "--stages", stages)
    assert main([str(word) for word in words]) == 0
    return root / "run"


@pytest.fixture
def trained(trained_once: Path, tmp_path: Path, stages: Path, folder: Path) -> Path:
    """A copy of that run beside its own images, ``folder``."""
    return shutil.copytree(trained_once, tmp_path / "run")


def training(data: Path, out: Path, *more: object) -> list[object]:
    """The arguments of a short run of a tiny three-stage network."""
    return ["train", "small", "--data", data, "--out", out, *TINY, *SHORT, *more]


def contents(root: Path) -> dict[Path, bytes]:
    """Every file below a folder."""
    return {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}


def assert_refused(result: Result, message: str) -> None:
    """Checks for exit code 2 and one line of error output that contains ``message``."""
    code, _, err = result
    lines = err.strip().splitlines()
    assert code == 2
    assert len(lines) == 1, err
    assert lines[0].startswith("multistage: ")
    assert message in lines[0]
