"""Averages of a run: their clocks, snapshots, resumption, and others made of them against the same
tracked directly."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from multistage_diffusion.config import replace_settings
from multistage_diffusion.data import Images
from multistage_diffusion.denoiser import NetworkDenoiser
from multistage_diffusion.errors import BadInput
from multistage_diffusion.model import build_denoiser
from multistage_diffusion.run import Run
from multistage_diffusion.tensorfile import read_metadata, read_tensors, save_tensors
from multistage_diffusion.training import train
from multistage_diffusion.training.config import TrainingConfig
from multistage_diffusion.training.ema.averages import Averages
from multistage_diffusion.training.ema.profiles import exponent
from multistage_diffusion.training.ema.snapshots import Snapshots
from tests.conftest import MODEL, TINY, run_on
from tests.training.test_loop import assert_same_weights

WIDTHS = (0.05, 0.1)
COUNTS = (7, 0, 1)  # images of each stage in every batch
STEPS = 40


def fill(network: torch.nn.Module, value: float) -> None:
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.fill_(value)


def values(network: torch.nn.Module) -> list[float]:
    """The value of each encoder and decoder whose weights are all alike."""
    parts = [
        part
        for name, part in network.named_modules()
        if name.split(".")[0] in ("encoders", "decoders") and name.count(".") == 1
    ]
    found = [torch.cat([parameter.flatten() for parameter in part.parameters()]) for part in parts]
    assert all(float(value.max() - value.min()) < 1e-6 for value in found)
    return [float(value.mean()) for value in found]


def averages(denoiser: NetworkDenoiser, clock: str) -> Averages:
    """Weights that are 1 at the start and 0 in every step."""
    fill(denoiser, 1)
    config = replace_settings(
        TrainingConfig(), ema_half_life=20, ema_rampup=1e9, ema_clock=clock, posthoc_ema=WIDTHS
    )
    made = Averages(denoiser, config.averaging)
    fill(denoiser, 0)
    for _ in range(STEPS):
        made.update(denoiser.network, COUNTS)
    return made


@pytest.mark.parametrize(("clock", "counted"), [("common", (8, 8, 8, 8)), ("own", (8, 7, 0, 1))])
def test_a_half_life_is_in_the_images_that_a_part_counts(
    denoiser: NetworkDenoiser, clock: str, counted: tuple[int, ...]
) -> None:
    """A decoder with an eighth of the images forgets its start eight times more slowly by its own
    clock; one with none, never."""
    made = averages(denoiser, clock)
    assert made.seen.tolist() == [STEPS * count for count in counted]
    assert values(made.main.network) == pytest.approx(
        [0.5 ** (STEPS * count / 20) for count in counted], rel=1e-4
    )


def test_separate_encoders_count_as_their_decoders() -> None:
    network = replace(TINY, encoder_widths=(8, 8, 8), decoder_widths=(8, 8, 8))
    made = averages(build_denoiser(replace(MODEL, network=network)), "own")
    assert made.seen.tolist() == [STEPS * count for count in (*COUNTS, *COUNTS)]
    assert [value == 1 for value in values(made.main.network)] == [False, True, False] * 2


def test_a_shared_decoder_counts_all_images() -> None:
    network = replace(TINY, encoder_widths=(8, 8, 8), decoder_widths=(8,))
    made = averages(build_denoiser(replace(MODEL, network=network)), "own")
    assert made.seen.tolist() == [STEPS * count for count in (*COUNTS, sum(COUNTS))]


@pytest.mark.parametrize("clock", ["common", "own"])
def test_power_function_averages_forget_the_start_and_weigh_a_step_by_their_profile(
    denoiser: NetworkDenoiser, clock: str
) -> None:
    """With weights of 1 in one step of equal steps, only the number of steps since counts, not the
    clock."""
    made = averages(denoiser, clock)
    fill(denoiser, 1)
    made.update(denoiser.network, COUNTS)
    for width, network in zip(WIDTHS, made.power, strict=True):
        last = 1 - (STEPS / (STEPS + 1)) ** (exponent(width) + 1)
        expected = [last, last, last if clock == "common" else 1, last]
        assert values(network) == pytest.approx(expected, rel=1e-4)


def flat(weights: dict[str, Tensor]) -> Tensor:
    return torch.cat([tensor.flatten().double() for _, tensor in sorted(weights.items())])


def last(run: Path) -> list[Tensor]:
    """The two averages of the last snapshot."""
    held = read_tensors(Run(run).snapshots()[-1])[0]
    return [
        flat({name[2:]: tensor for name, tensor in held.items() if name.startswith(index)})
        for index in ("0.", "1.")
    ]


def thinned(run: Path, copy: Path, keep: int) -> Path:
    """The run with every ``keep``-th of its snapshots, counted from the last one."""
    shutil.copytree(run, copy)
    for index, path in enumerate(reversed(Run(copy).snapshots())):
        if index % keep:
            path.unlink()
    return copy


@pytest.mark.parametrize("clock", ["common", "own"])
def test_other_averages_are_those_that_would_have_been_tracked(
    few_digits: Images, tmp_path: Path, clock: str
) -> None:
    """The weights of both runs are the same.

    Errors are parts of the distance between the two stored averages.
    """
    others = (0.07, 0.15)
    same = {
        "images": 640,
        "record_images": 640,
        "checkpoint_images": 640,
        "snapshot_images": 16,
        "ema_clock": clock,
    }
    list(train(run_on(few_digits, **same, posthoc_ema=WIDTHS), few_digits, tmp_path / "stored"))
    list(train(run_on(few_digits, **same, posthoc_ema=others), few_digits, tmp_path / "direct"))
    direct, (narrow, wide) = last(tmp_path / "direct"), last(tmp_path / "stored")
    errors = np.zeros((4, 2))
    for row, keep in zip(errors, (8, 4, 2, 1), strict=True):
        stored = Snapshots(Run(thinned(tmp_path / "stored", tmp_path / f"every {keep}", keep)))
        made = [flat(stored.average([exponent(width)] * 4)) for width in others]
        row[:] = [
            (a - b).norm() / (narrow - wide).norm() for a, b in zip(made, direct, strict=True)
        ]
    assert (errors[1:] < 0.7 * errors[:-1]).all()
    assert (errors[0] < 0.05).all()  # 5 snapshots
    assert (errors[-1] < 1e-3).all()  # 40


def held(run: Path) -> dict[str, Tensor]:
    """All tensors of the snapshots and the last checkpoint of a run."""
    files = [*Run(run).snapshots(), Run(run).checkpoints()[-1] / "training.safetensors"]
    return {
        f"{file.stem} {name}": tensor
        for file in files
        for name, tensor in read_tensors(file)[0].items()
    }


@pytest.mark.parametrize("clock", ["common", "own"])
def test_snapshots_and_averages_of_an_interrupted_run_are_the_same_bit_by_bit(
    few_digits: Images, tmp_path: Path, clock: str
) -> None:
    config = run_on(
        few_digits,
        images=48,
        checkpoint_images=32,
        posthoc_ema=WIDTHS,
        snapshot_images=8,
        ema_clock=clock,
    )
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    list(train(config, few_digits, whole))
    calls = iter([False, True])
    list(train(config, few_digits, parts, lambda: next(calls, False)))
    crashing = train(config, few_digits, parts)  # two snapshots past the checkpoint
    for _ in range(2):
        next(crashing)
    crashing.close()
    list(train(config, few_digits, parts))
    assert [int(path.stem) for path in Run(parts).snapshots()] == [8, 16, 24, 32, 40, 48]
    for one, two in zip(Run(parts).snapshots(), Run(whole).snapshots(), strict=True):
        assert read_metadata(one) == read_metadata(two)
    assert_same_weights(parts, whole)
    first, second = held(parts), held(whole)
    assert first.keys() == second.keys()
    assert {
        "000000000048 1.encoders.0.stem.weight",
        "training average.1.encoders.0.stem.weight",
    } <= first.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_snapshots_past_the_checkpoint_are_dropped(few_digits: Images, tmp_path: Path) -> None:
    config = run_on(
        few_digits, images=48, checkpoint_images=16, posthoc_ema=WIDTHS, snapshot_images=8
    )
    list(train(config, few_digits, tmp_path))
    shutil.rmtree(Run(tmp_path).checkpoints()[-1])
    running = train(config, few_digits, tmp_path)
    next(running)
    assert [int(path.stem) for path in Run(tmp_path).snapshots()] == [8, 16, 24, 32]
    running.close()


def test_how_often_snapshots_are_made_may_change_but_not_of_what(
    few_digits: Images, tmp_path: Path
) -> None:
    config = run_on(few_digits, images=16, posthoc_ema=WIDTHS, snapshot_images=8)
    list(train(config, few_digits, tmp_path))
    list(
        train(
            run_on(few_digits, images=48, posthoc_ema=WIDTHS, snapshot_images=16),
            few_digits,
            tmp_path,
        )
    )
    assert [int(path.stem) for path in Run(tmp_path).snapshots()] == [8, 16, 32, 48]
    with pytest.raises(BadInput, match=r"training\.averaging\.posthoc_ema is"):
        list(train(run_on(few_digits, images=64), few_digits, tmp_path))


def test_a_checkpoint_from_before_there_were_clocks_is_continued(
    few_digits: Images, tmp_path: Path
) -> None:
    list(train(run_on(few_digits, images=40, ema_clock="common"), few_digits, tmp_path / "whole"))
    list(train(run_on(few_digits, images=16, ema_clock="common"), few_digits, tmp_path / "parts"))
    path = Run(tmp_path / "parts").checkpoints()[-1] / "training.safetensors"
    tensors, about = read_tensors(path)
    del tensors["seen"]
    save_tensors(path, tensors, about)
    list(train(run_on(few_digits, images=40, ema_clock="common"), few_digits, tmp_path / "parts"))
    assert_same_weights(tmp_path / "whole", tmp_path / "parts")


def test_a_decoder_that_never_had_a_sample_comes_out_as_it_is(
    few_digits: Images, tmp_path: Path
) -> None:
    config = run_on(
        few_digits,
        images=64,
        posthoc_ema=WIDTHS,
        snapshot_images=16,
        ema_clock="own",
        shares=(0.5, 0.5, 1e-9),
    )
    list(train(config, few_digits, tmp_path))
    stored = Snapshots(Run(tmp_path))
    assert stored.seen[-1, 3] == 0
    made, start = (
        stored.average([exponent(0.08)] * 4),
        read_tensors(Run(tmp_path).snapshots()[0])[0],
    )
    for name, tensor in made.items():
        assert (
            torch.equal(tensor, start[f"0.{name}"]) == name.startswith("decoders.2")
            or not tensor.any()
        ), name


@pytest.mark.parametrize("widths", [(0.05, 0.05), (0.0,), (0.3,)])
def test_widths_that_cannot_be_tracked_are_refused(widths: tuple[float, ...]) -> None:
    with pytest.raises(BadInput, match="setting posthoc_ema"):
        replace_settings(TrainingConfig(), posthoc_ema=widths)


def test_the_profile_error_of_a_run_is_that_of_its_widest_gap(
    few_digits: Images, tmp_path: Path
) -> None:
    """A snapshot that is missing in the middle costs more than none."""
    list(
        train(
            run_on(few_digits, images=64, posthoc_ema=WIDTHS, snapshot_images=8),
            few_digits,
            tmp_path,
        )
    )
    gammas = np.array([exponent(0.03)])
    before = Snapshots(Run(tmp_path)).factors(0, gammas)[1]
    Run(tmp_path).snapshots()[-2].unlink()
    assert Snapshots(Run(tmp_path)).factors(0, gammas)[1] > before
