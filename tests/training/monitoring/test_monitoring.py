"""What is said about a run while it goes on."""

import importlib.util
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from multistage_diffusion.config import replace_settings
from multistage_diffusion.cost import stage_costs, unified
from multistage_diffusion.data import Images
from multistage_diffusion.denoiser import NetworkDenoiser
from multistage_diffusion.errors import BadInput
from multistage_diffusion.report.curves import loss_panels
from multistage_diffusion.report.section import stages_of
from multistage_diffusion.run import Run
from multistage_diffusion.schedule import LogNormal
from multistage_diffusion.space import to_unit_range
from multistage_diffusion.training import Record, train
from multistage_diffusion.training.batches.held_out import split
from multistage_diffusion.training.monitoring import optimum
from multistage_diffusion.training.monitoring.optimum import find_optimum
from multistage_diffusion.training.monitoring.overfitting import overfitting
from multistage_diffusion.training.monitoring.probe import Probe
from multistage_diffusion.training.monitoring.utilisation import product_rate
from tests.conftest import run_on
from tests.training.test_loop import assert_same_weights


def test_a_split_is_a_partition_that_depends_on_the_seed_alone(few_digits: Images) -> None:
    kept, aside = split(few_digits, 0.2, 3)
    assert aside is not None
    assert (len(kept), len(aside)) == (40, 10)
    both = torch.cat([kept.pixels[:], aside.pixels[:]]).flatten(1).unique(dim=0)
    assert torch.equal(both, few_digits.pixels[:].flatten(1).unique(dim=0))
    assert torch.equal(split(few_digits, 0.2, 3)[0].pixels[:], kept.pixels[:])
    assert not torch.equal(split(few_digits, 0.2, 4)[0].pixels[:], kept.pixels[:])
    assert split(few_digits, 0.0, 3) == (few_digits, None)


@pytest.mark.parametrize("share", [0.001, 0.999])
def test_a_split_without_images_is_refused(few_digits: Images, share: float) -> None:
    with pytest.raises(BadInput, match="choose another --held-out"):
        split(few_digits, share, 0)


def test_held_out_images_are_never_trained_on(few_digits: Images, tmp_path: Path) -> None:
    """They are spread_non_finiteed here: one step with any of them would be left out."""
    numbered = Images(torch.arange(50, dtype=torch.uint8)[:, None, None, None])
    _, aside = split(numbered, 0.2, run_on(few_digits).training.seed)
    assert aside is not None
    values = to_unit_range(few_digits.pixels[:])
    values[aside.pixels[:].flatten().long()] = torch.nan
    data = Images(values)
    records = list(train(run_on(data, images=200, held_out=0.2), data, tmp_path))
    assert sum(record.skipped for record in records) == 0
    assert all(loss == loss for record in records for loss in record.probe_loss)
    assert all(loss != loss for loss in records[-1].held_out_loss)


@pytest.mark.slow
def test_the_held_out_loss_is_that_of_held_out_images(few_digits: Images, tmp_path: Path) -> None:
    """A network that learns 40 digits by heart gets worse on the others."""
    config = run_on(
        few_digits, images=4000, held_out=0.2, record_images=2000, checkpoint_images=4000
    )
    *_, last = train(config, few_digits, tmp_path)
    assert sum(last.held_out_loss) > sum(last.probe_loss)


def test_the_zero_loss_is_that_of_a_network_without_output(
    denoiser: NetworkDenoiser, few_digits: Images
) -> None:
    probe = Probe.draw(few_digits, denoiser.stages, LogNormal(), conditional=False, seed=0)
    expected = probe.zero_loss(denoiser)
    with torch.no_grad():
        for name, parameter in denoiser.named_parameters():
            if ".out." in name:
                parameter.zero_()
    assert probe.network_loss(denoiser, torch.device("cpu")) == pytest.approx(expected, rel=1e-5)


def record(images: int, probe: Sequence[float], held: Sequence[float]) -> Record:
    return Record(
        images=images,
        loss=list(probe),
        share=[0.5, 0.5],
        probe_loss=list(probe),
        optimal_loss=[0.0, 0.0],
        learning_rate=1.0,
        images_per_second=1.0,
        seconds=1.0,
        held_out_loss=list(held),
    )


def test_overfitting_is_reported_for_its_stage() -> None:
    start, better, worse = (
        record(10, [1.0, 1.0], [1.0, 1.0]),
        record(20, [0.5, 0.5], [0.6, 0.6]),
        record(30, [0.4, 0.4], [0.7, 0.6]),
    )
    assert overfitting([start, better]) == []
    (sentence,) = overfitting([start, better, worse])
    assert sentence.startswith(
        "stage 1 overfits: its loss on held-out images was 0.6 at 20 images and is 0.7 now"
    )


@pytest.mark.parametrize(
    "last", [([0.4, 0.5], [0.605, 0.6]), ([0.6, 0.6], [0.7, 0.7])], ids=["chance", "both rise"]
)
def test_overfitting_is_not_said_of_chance_or_of_a_run_that_gets_worse(
    last: tuple[list[float], list[float]],
) -> None:
    assert overfitting([record(20, [0.5, 0.5], [0.6, 0.6]), record(30, *last)]) == []
    assert overfitting([]) == []


def test_multiply_accumulates_are_counted_across_sessions(
    few_digits: Images, tmp_path: Path
) -> None:
    config = run_on(few_digits, images=40)
    whole = list(train(config, few_digits, tmp_path / "whole"))
    list(train(run_on(few_digits, images=16), few_digits, tmp_path / "parts"))
    parts = list(train(config, few_digits, tmp_path / "parts"))
    costs = [cost.training_macs for cost in stage_costs(config.model)]
    spent = sum(sum(s * c for s, c in zip(r.share, costs, strict=True)) * 8 for r in whole)
    assert whole[-1].macs == parts[-1].macs == pytest.approx(spent)
    costs = [cost.macs for cost in stage_costs(config.model)]
    spent = sum(sum(s * c for s, c in zip(r.share, costs, strict=True)) * 8 for r in whole)
    assert whole[-1].forward_macs == parts[-1].forward_macs == pytest.approx(spent)
    assert 0 < parts[0].processor_seconds < parts[-1].processor_seconds
    device, step_macs = torch.device("cpu"), (whole[-1].macs - whole[-2].macs) / 8
    reached = step_macs * whole[-1].images_per_second
    expected = reached / product_rate(device, torch.float32)
    assert whole[-1].utilisation == pytest.approx(expected, rel=1e-3, abs=1e-4)
    assert whole[-1].seconds_left == 0 < whole[0].seconds_left
    assert whole[-1].memory > 1 << 20


def test_grids_are_drawn_and_change_nothing(few_digits: Images, tmp_path: Path) -> None:
    list(train(run_on(few_digits), few_digits, tmp_path / "plain"))
    list(train(run_on(few_digits, grid_images=16), few_digits, tmp_path / "grids"))
    assert_same_weights(tmp_path / "plain", tmp_path / "grids")
    pictures = sorted((tmp_path / "grids" / "grids").iterdir())
    names = [f"{images:012d}-{kind}.png" for images in (16, 24) for kind in ("averaged", "raw")]
    assert [path.name for path in pictures] == names
    for path in pictures:
        with Image.open(path) as picture:
            assert picture.size == (8 * 50 - 2, 2 * 50 - 2)


def test_a_tracker_that_is_not_installed_is_named(few_digits: Images, tmp_path: Path) -> None:
    missing = next(
        (name for name in ("wandb", "tensorboard") if importlib.util.find_spec(name) is None), None
    )
    if missing is None:
        pytest.skip("both trackers are installed")
    config = run_on(few_digits)
    config = replace(config, training=replace_settings(config.training, track=(missing,)))
    with pytest.raises(BadInput, match=f"pip install {missing}"):
        next(train(config, few_digits, tmp_path / "run"))


def test_tensorboard_gets_the_records(few_digits: Images, tmp_path: Path) -> None:
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    config = run_on(few_digits)
    config = replace(config, training=replace_settings(config.training, track=("tensorboard",)))
    records = list(train(config, few_digits, tmp_path / "run"))
    found = events.EventAccumulator(str(tmp_path / "run" / "multistage-diffusion"))
    found.Reload()
    assert [(e.step, e.value) for e in found.Scalars("probe_loss/1")] == [
        (r.images, pytest.approx(r.probe_loss[0])) for r in records
    ]


def _of_one_stage(record: Record) -> Record:
    """As earlier versions recorded unified networks."""
    one: Any = [1.0]
    return replace(
        record,
        loss=one,
        share=one,
        probe_loss=one,
        optimal_loss=one,
        zero_loss=one,
        held_out_loss=one,
    )


def test_a_unified_network_is_recorded_by_the_stages_of_its_shares(
    few_digits: Images, tmp_path: Path
) -> None:
    """On the same images, noise and levels as the multi-stage network that it is compared with."""
    staged = run_on(few_digits, images=8, held_out=0.2)
    twin = replace(
        staged,
        model=unified(staged.model),
        training=replace_settings(staged.training, share_boundaries=staged.model.boundaries),
    )
    (one,) = train(staged, few_digits, tmp_path / "staged")
    (other,) = train(twin, few_digits, tmp_path / "unified")
    assert other.share == one.share
    assert other.optimal_loss == one.optimal_loss
    assert other.zero_loss == one.zero_loss
    for losses in (other.loss, other.probe_loss, other.held_out_loss):
        assert len(losses) == 3
    assert "stage 3" in loss_panels([_of_one_stage(one), other], "key").choices["images"][2]
    assert len(stages_of(twin, other)) == 3


def test_the_optimum_is_computed_once_for_a_run(
    few_digits: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (first,) = train(run_on(few_digits, images=8), few_digits, tmp_path / "run")
    called = []
    original = Probe.optimal_losses

    def counted(probe: Probe, images: Images, denoiser: NetworkDenoiser) -> torch.Tensor:
        called.append(len(probe.sigma))
        return original(probe, images, denoiser)

    monkeypatch.setattr(Probe, "optimal_losses", counted)
    (second,) = train(run_on(few_digits, images=16), few_digits, tmp_path / "run")
    assert second.optimal_loss == first.optimal_loss
    assert called == []
    (other,) = train(run_on(few_digits, images=8, seed=4), few_digits, tmp_path / "other")
    assert called == [192]
    assert other.optimal_loss_error == first.optimal_loss_error == []


def test_the_optimum_of_a_large_data_set_is_estimated_with_its_error(
    few_digits: Images, tmp_path: Path, denoiser: NetworkDenoiser, monkeypatch: pytest.MonkeyPatch
) -> None:
    probe = Probe.draw(few_digits, denoiser.stages, LogNormal(), conditional=False, seed=0)
    config = run_on(few_digits)
    whole = find_optimum(Run(tmp_path / "a"), config, probe, few_digits, denoiser)
    assert whole.error == [0, 0, 0]
    monkeypatch.setattr(optimum, "MOST_PRODUCTS", 2 * 3 * 16 * 50 * 64)
    part = find_optimum(Run(tmp_path / "b"), config, probe, few_digits, denoiser)
    assert len(probe.part(16).sigma) == 48
    for exact, estimate, error in zip(whole.loss, part.loss, part.error, strict=True):
        assert 0 < error < estimate
        assert abs(estimate - exact) < 4 * error
