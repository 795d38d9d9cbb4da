"""``multistage ema`` as a person types it."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from multistage_diffusion.cli import main
from multistage_diffusion.data import Images
from multistage_diffusion.model import load_model
from multistage_diffusion.run import Run
from multistage_diffusion.training import train
from tests.conftest import run_on

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def ema(capfd: pytest.CaptureFixture[str]) -> Command:
    def command(*arguments: object) -> tuple[int, str, str]:
        return main(["ema", *map(str, arguments)]), *capfd.readouterr()

    return command


@pytest.fixture(scope="module")
def trained(few_digits: Images, tmp_path_factory: pytest.TempPathFactory) -> Path:
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


def assert_refused(result: tuple[int, str, str], says: str, out: Path) -> None:
    code, _, err = result
    assert code == 2
    assert len(err.strip().splitlines()) == 1
    assert says in err
    assert not out.exists()


def test_the_half_life_of_the_run_gives_its_own_average(
    ema: Command, trained: Path, tmp_path: Path
) -> None:
    """The ramp-up of a short run is a power-function average, but for the difference of steps from
    a continuous time."""
    code, printed, _ = ema(trained, "--half-life", 50_000, "--out", tmp_path / "same.safetensors")
    assert code == 0
    assert "Widths sigma_rel that come out to 1%: 0.0" in printed
    assert "(snapshots: 16)" in printed
    assert "decoder 3" in printed
    made, own = (
        load_model(path) for path in (tmp_path / "same.safetensors", trained / "model.safetensors")
    )
    assert (made.config, made.images) == (own.config, own.images)
    latest = load_model(_other(ema, trained, tmp_path, 0.15))
    difference, scale = (distance(made.denoiser, other.denoiser) for other in (own, latest))
    assert difference < 0.25 * scale


def _other(ema: Command, trained: Path, tmp_path: Path, width: float) -> Path:
    out = tmp_path / f"{width}.safetensors"
    assert ema(trained, "--sigma-rel", width, "--out", out)[0] == 0
    return out


@torch.no_grad()
def distance(one: torch.nn.Module, two: torch.nn.Module) -> float:
    return float(
        sum((a - b).square().sum() for a, b in zip(one.parameters(), two.parameters(), strict=True))
        ** 0.5
    )


def test_nothing_is_overwritten(ema: Command, trained: Path, tmp_path: Path) -> None:
    out = tmp_path / "there.safetensors"
    out.write_text("mine")
    code, _, err = ema(trained, "--sigma-rel", 0.07, "--out", out)
    assert code == 2
    assert "choose another --out" in err
    assert out.read_text() == "mine"


@pytest.mark.parametrize(
    ("which", "says"),
    [
        ([], "either --sigma-rel or --half-life"),
        (["--sigma-rel", 0.1, "--half-life", 10], "either --sigma-rel or --half-life"),
        (["--sigma-rel", 0], "between 0 and 0.2887"),
        (["--half-life", -5], "between 0 and 69%"),
        (["--sigma-rel", 0.006], "do not give this average: it would differ by"),
    ],
    ids=str,
)
def test_averages_that_cannot_be_had_are_refused(
    ema: Command, trained: Path, tmp_path: Path, which: list[object], says: str
) -> None:
    out = tmp_path / "none.safetensors"
    assert_refused(ema(trained, *which, "--out", out), says, out)


def test_runs_without_snapshots_or_with_too_few_or_damaged_ones_are_refused(
    ema: Command, few_digits: Images, tmp_path: Path
) -> None:
    run, out = tmp_path / "run", tmp_path / "none.safetensors"
    arguments = [run, "--sigma-rel", 0.2, "--out", out]
    list(train(run_on(few_digits), few_digits, run))
    assert_refused(ema(*arguments), "holds no snapshots of averages; train with --posthoc-ema", out)
    list(train(run_on(few_digits, posthoc_ema=(0.05,)), few_digits, tmp_path / "few"))
    result = ema(tmp_path / "few", *arguments[1:])
    assert_refused(result, "Widths sigma_rel that come out to 1%: 0.050 (snapshots: 1).", out)
    (path,) = Run(tmp_path / "few").snapshots()
    path.write_bytes(path.read_bytes()[:-9])
    assert_refused(
        ema(tmp_path / "few", *arguments[1:]), "remove it; the other snapshots do not need it", out
    )
