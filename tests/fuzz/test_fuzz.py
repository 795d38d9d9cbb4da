"""Random settings and randomly damaged files: every command keeps its promise.

The fast test takes about twenty seconds, the slow one ten minutes. A failure names its seed.
"""

import random
import shutil
import time
import typing
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from multistage_diffusion.cli import main
from multistage_diffusion.cli.discovery import command_names, command_type
from tests.cli.conftest import SHORT, TINY
from tests.fuzz.damage import damaged
from tests.fuzz.promise import check_promise
from tests.fuzz.settings import VALUES, numbers

FAST_SECONDS = 6
SLOW_SECONDS = 300
Words = list[object]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with images, stages, a finished run with everything it may hold, and more."""
    root = tmp_path_factory.mktemp("world")
    source = np.random.default_rng(0)
    for index in range(12):
        target = root / "images" / ("cat" if index % 2 else "dog") / f"{index}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(source.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(target)
    for words in first_commands(root):
        assert main([str(word) for word in words]) == 0, words
    return root


def first_commands(root: Path) -> list[Words]:
    run, images = root / "run", root / "images"
    averages = ("--posthoc-ema", "0.05", "0.1", "--snapshot-images", "16", "--learned-weight")
    cluster = ("--pairs", "16", "--levels", "9", "--stages", "3", "--method", "snr")
    return [
        ["cluster", "--data", images, "--out", root / "stages.json", *cluster],
        [*training(root), *averages],
        ["sample", run, "--images", "2", "--steps", "1"],
        ["evaluate", run, "--data", images, "--metric", "denoising", "--images", "8"],
        ["data", "inspect", images, "--out", root / "inspection"],
    ]


def training(root: Path, images: int = 32) -> Words:
    given = [*TINY, *SHORT, "--images", images]
    return [
        *("train", "small", "--data", root / "images", "--out", root / "run"),
        *("--stages", root / "stages.json", *given),
    ]


def readers(root: Path) -> dict[str, list[Words]]:
    """The commands that read each file, by a part of its name."""
    run, images, out = root / "run", root / "images", root / "out"
    averages = ["--posthoc-ema", 0.05, 0.1, "--snapshot-images", 16, "--learned-weight"]
    resume: Words = [*training(root, 40), *averages]
    report: Words = ["report", run, "--out", root / "page.html"]
    sample: Words = ["sample", run, "--images", 2, "--steps", 1]
    denoising = ["--metric", "denoising", "--images", 8]
    evaluate: Words = ["evaluate", run, "--data", images, *denoising]
    cluster: Words = ["cluster", "--data", images, "--method", "snr"]
    return {
        "run/config.json": [report, resume],
        "run/stats.jsonl": [report, resume],
        "run/evaluations.json": [report, evaluate],
        "run/uncertainty.json": [report],
        "run/samples/samples.json": [sample, report],
        "run/stages.json": [report, resume],
        "/stages.json": [[*cluster, "--out", root / "stages.json"], resume],
        "run/model.safetensors": [sample, evaluate, ["convert", run, "--out", out]],
        "checkpoints": [resume, [*evaluate, "--checkpoints", 2]],
        "averages": [["ema", run, "--out", out, "--sigma-rel", 0.1]],
        "inspection.json": [["data", "inspect", images, "--out", root / "inspection"]],
        "images": [[*cluster, "--out", out], [*cluster, "--out", out, "--skip-broken"]],
    }


def damage_something(world: Path, root: Path, source: random.Random) -> None:
    """Damages a file of a copy of the world, and runs a command that reads it."""
    shutil.copytree(world, root)
    commands = readers(root)
    part = source.choice(list(commands))
    files = [path for path in sorted(root.rglob("*")) if part in str(path) and path.is_file()]
    file = source.choice(files)
    file.write_bytes(damaged(file.name, file.read_bytes(), source))
    check_promise(source.choice(commands[part]), root)


def commands_with_numbers(root: Path) -> dict[str, Words]:
    """A quick call of each command that has settings that are numbers."""
    run, images, out = root / "run", root / "images", root / "out"
    return {
        "train": [*training(root)[:5], out, *TINY, *SHORT],
        "sample": ["sample", run, "--images", 2, "--steps", 1, "--out", out],
        "evaluate": ["evaluate", images, "--data", images, "--metric", "fd-pixels"],
        "cluster": ["cluster", "--data", images, "--pairs", 8, "--levels", 5, "--out", out],
        "schedule": ["schedule", run, "--budget", "2nfe", "--images", 1, "--out", out],
        "plan": ["plan", "digits", "--no-measure"],
        "ema": ["ema", run, "--out", out],
        "demo": ["demo", "--dry-run", "--out", out],
        "convert": ["convert", run, "--out", out],
    }


def set_something(world: Path, root: Path, source: random.Random) -> None:
    """Gives a setting of a command a value that it should hardly have."""
    shutil.copytree(world, root)
    name, words = source.choice(list(commands_with_numbers(root).items()))
    assert name in command_names()
    command = command_class(command_type(name))
    setting = source.choice(list(numbers(command)))
    values = [source.choice(VALUES[setting.kind]) for _ in range(setting.count)]
    check_promise([*words, setting.option, *values], root)


def command_class(found: object) -> type:
    """The class of a command, or of one of its subcommands."""
    if isinstance(found, type):
        return found
    inner = typing.get_args(found)
    return command_class(inner[0])


@pytest.mark.parametrize("attempt", [damage_something, set_something])
@pytest.mark.parametrize(
    "seconds", [FAST_SECONDS, pytest.param(SLOW_SECONDS, marks=pytest.mark.slow)]
)
def test_every_command_keeps_its_promise(
    world: Path,
    tmp_path: Path,
    attempt: Callable[[Path, Path, random.Random], None],
    seconds: float,
) -> None:
    end = time.monotonic() + seconds
    seed = 0 if seconds == FAST_SECONDS else random.SystemRandom().randrange(1 << 32)
    while time.monotonic() < end:
        root = tmp_path / str(seed)
        try:
            attempt(world, root, random.Random(seed))  # noqa: S311
        except Exception as error:
            raise AssertionError(f"{attempt.__name__}, seed {seed}: {error}") from error
        shutil.rmtree(root)
        seed += 1
