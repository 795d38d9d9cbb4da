"""``multistage ema``."""

from functools import partial
from pathlib import Path

import pytest
import torch

from multistage_diffusion.data import Images
from multistage_diffusion.model import load_model
from multistage_diffusion.run import Run
from multistage_diffusion.training import train
from tests.cli.conftest import Command, Result, assert_refused
from tests.conftest import run_on


@pytest.fixture
def ema(run: Command) -> Command:
    return partial(run, "ema")


@pytest.fixture(scope="module")
def averaged(few_digits: Images, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with snapshots of averages."""
    out = tmp_path_factory.mktemp("runs") / "run"
    config = run_on(
        few_digits,
        images=256,
        record_images=256,
        checkpoint_images=256,
        posthoc_ema=(0.05, 0.1),
        snapshot_images=16,
    )
    list(train(config, few_digits, out))
    return out


def test_each_stage_comes_from_its_best_checkpoint(
    ema: Command, run: Command, trained: Path, folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "model.safetensors"
    code, printed, _ = ema(trained, "--per-stage", "--data", folder, "--images", 64, "--out", out)
    assert code == 0
    assert printed.count("*") == 3
    made = load_model(out)
    assert made.config.boundaries == load_model(trained / "model.safetensors").config.boundaries
    assert run("sample", out, "--images", 2, "--steps", 2)[0] == 0


def test_a_stage_of_its_best_checkpoint_needs_images(
    ema: Command, averaged: Path, tmp_path: Path
) -> None:
    out = tmp_path / "none.safetensors"
    assert_nothing_written(ema(averaged, "--per-stage", "--out", out), "give them with", out)
    other = tmp_path / "other.safetensors"
    files = [averaged / "model.safetensors"] * 3
    assert ema(averaged, "--stages-from", *files, "--out", other)[0] == 0
    assert load_model(other).config == load_model(files[0]).config
    both = ema(averaged, "--per-stage", "--sigma-rel", 0.1, "--out", out)
    assert_nothing_written(both, "Which average?", out)


def assert_nothing_written(result: Result, message: str, out: Path) -> None:
    assert_refused(result, message)
    assert not out.exists()


def test_the_half_life_of_the_run_gives_the_average_of_the_run(
    ema: Command, averaged: Path, tmp_path: Path
) -> None:
    """The ramp-up of a short run is a power-function average.

    It differs from one only because steps are not continuous in time.
    """
    out = tmp_path / "same.safetensors"
    code, printed, _ = ema(averaged, "--half-life", 50_000, "--out", out)
    assert code == 0
    assert "Widths sigma_rel that come out to 1%: 0.0" in printed
    assert "(snapshots: 16)" in printed
    assert "decoder 3" in printed
    made = load_model(out)
    own = load_model(averaged / "model.safetensors")
    assert (made.config, made.images) == (own.config, own.images)
    wide = tmp_path / "wide.safetensors"
    assert ema(averaged, "--sigma-rel", 0.15, "--out", wide)[0] == 0
    difference = distance(made.denoiser, own.denoiser)
    scale = distance(made.denoiser, load_model(wide).denoiser)
    assert difference < 0.25 * scale


@torch.no_grad()
def distance(one: torch.nn.Module, two: torch.nn.Module) -> float:
    pairs = zip(one.parameters(), two.parameters(), strict=True)
    return float(sum((a - b).square().sum() for a, b in pairs) ** 0.5)


def test_nothing_is_overwritten(ema: Command, averaged: Path, tmp_path: Path) -> None:
    out = tmp_path / "there.safetensors"
    out.write_text("mine")
    code, _, err = ema(averaged, "--sigma-rel", 0.07, "--out", out)
    assert code == 2
    assert "choose another --out" in err
    assert out.read_text() == "mine"


@pytest.mark.parametrize(
    ("width", "message"),
    [
        ([], "Give --sigma-rel, --half-life"),
        (["--sigma-rel", 0.1, "--half-life", 10], "Give --sigma-rel, --half-life"),
        (["--sigma-rel", 0], "The setting sigma_rel must be"),
        (["--half-life", -5], "The setting half_life must be at least 1"),
        (["--sigma-rel", 0.006], "do not give this average: it would differ by"),
    ],
    ids=str,
)
def test_averages_that_cannot_be_made_are_refused(
    ema: Command, averaged: Path, tmp_path: Path, width: list[object], message: str
) -> None:
    out = tmp_path / "none.safetensors"
    assert_nothing_written(ema(averaged, *width, "--out", out), message, out)


def test_a_run_without_snapshots_is_refused(
    ema: Command, few_digits: Images, tmp_path: Path
) -> None:
    out = tmp_path / "none.safetensors"
    list(train(run_on(few_digits), few_digits, tmp_path / "run"))
    result = ema(tmp_path / "run", "--sigma-rel", 0.2, "--out", out)
    message = "holds no snapshots of averages; train with --posthoc-ema"
    assert_nothing_written(result, message, out)


def test_too_few_or_damaged_snapshots_are_refused(
    ema: Command, few_digits: Images, tmp_path: Path
) -> None:
    run = Run(tmp_path / "few")
    out = tmp_path / "none.safetensors"
    list(train(run_on(few_digits, posthoc_ema=(0.05,)), few_digits, run.path))
    arguments = [run.path, "--sigma-rel", 0.2, "--out", out]
    message = "Widths sigma_rel that come out to 1%: 0.050 (snapshots: 1)."
    assert_nothing_written(ema(*arguments), message, out)
    (path,) = run.snapshots()
    path.write_bytes(path.read_bytes()[:-9])
    message = "remove it; the other snapshots do not need it"
    assert_nothing_written(ema(*arguments), message, out)
