"""Learning rate, warm-up and freeze interval of each encoder and decoder."""

import math
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import Tensor

from multistage_diffusion.config import replace_settings
from multistage_diffusion.cost import stage_costs
from multistage_diffusion.data import Images
from multistage_diffusion.errors import BadInput
from multistage_diffusion.model import build_denoiser
from multistage_diffusion.networks.config import NetworkConfig
from multistage_diffusion.run import Run
from multistage_diffusion.tensorfile import read_tensors
from multistage_diffusion.training import Record, read_records, train
from multistage_diffusion.training.config import RunConfig, TrainingConfig
from multistage_diffusion.training.optimization import frozen_interval
from multistage_diffusion.training.rates import Rate, Rates, part_names
from multistage_diffusion.training.state import State
from multistage_diffusion.training.step import TrainingStep
from tests.conftest import TINY, run_on
from tests.training.test_loop import assert_same_weights

FROZEN = ("16", "0", "0", "0")  # the encoder, for two steps
PARTS = ["encoder", "decoder 1", "decoder 2", "decoder 3"]


def run(config: RunConfig, data: Images, out: Path) -> tuple[list[Record], list[dict[str, Tensor]]]:
    """The records of a run, and the training state after each step."""
    config = replace(
        config, training=replace_settings(config.training, checkpoint_images=8, keep_last=99)
    )
    records = list(train(config, data, out))
    return records, [
        read_tensors(path / "training.safetensors")[0] for path in Run(out).checkpoints()
    ]


def of(part: str, state: dict[str, Tensor], kind: str = "net") -> dict[str, Tensor]:
    return {name: tensor for name, tensor in state.items() if name.startswith(f"{kind}.{part}")}


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    assert first.keys() == second.keys()
    assert first
    return all(torch.equal(tensor, second[name]) for name, tensor in first.items())


def test_a_frozen_encoder_stays_and_then_learns(few_digits: Images, tmp_path: Path) -> None:
    records, states = run(
        run_on(few_digits, images=40, freeze=FROZEN, posthoc_ema=(0.1,)), few_digits, tmp_path
    )
    first, second, third = states[:3]
    assert same(of("encoders", first), of("encoders", second))
    assert not same(of("encoders", second), of("encoders", third))
    assert not same(of("decoders.0", first), of("decoders.0", second))
    assert not of("encoders", second, "exp_avg")
    assert {float(step) for step in of("encoders", third, "step").values()} == {1}
    assert [record.gradient_norm[0] > 0 for record in records] == [False, False, True, True, True]
    averaged, _ = read_tensors(Run(tmp_path).checkpoints()[1] / "model.safetensors")
    for name, tensor in of("encoders", second).items():
        assert torch.equal(averaged[name.removeprefix("net.")], tensor)
        assert torch.equal(second[f"average.0.{name.removeprefix('net.')}"], tensor)


def test_freezing_the_encoder_leaves_the_first_step_of_the_decoders_as_it_is(
    few_digits: Images, tmp_path: Path
) -> None:
    free, frozen = (
        run(run_on(few_digits, images=8, freeze=freeze), few_digits, tmp_path / str(len(freeze)))[
            1
        ][0]
        for freeze in ((), FROZEN)
    )
    for kind in ("net", "exp_avg", "exp_avg_sq"):
        assert same(of("decoders", free, kind), of("decoders", frozen, kind))


def test_weights_and_moments_rest_in_an_interval_in_the_middle(
    few_digits: Images, tmp_path: Path
) -> None:
    _, states = run(
        run_on(few_digits, images=40, freeze=("16:32", "0", "0", "0")), few_digits, tmp_path
    )
    for kind in ("net", "exp_avg", "step"):
        encoders = [of("encoders", state, kind) for state in states]
        assert [same(a, b) for a, b in pairwise(encoders)] == [False, True, True, False]


def test_nothing_moves_where_everything_is_frozen(few_digits: Images, tmp_path: Path) -> None:
    config = run_on(
        few_digits, freeze=("0:",) * 4, weight_decay=0.1, optimizer="adamw", clip_norm=1.0
    )
    records, states = run(config, few_digits, tmp_path)
    assert same(of("", states[0]), of("", states[-1]))
    assert records[-1].macs == pytest.approx(
        sum(8 * mean(r.share, [c.macs for c in stage_costs(config.model)]) for r in records)
    )


def mean(shares: list[float], values: list[int]) -> float:
    return sum(share * value for share, value in zip(shares, values, strict=True))


def test_clipping_looks_at_what_is_trained_alone(few_digits: Images, tmp_path: Path) -> None:
    """After one step Adam's first moments are a tenth of the clipped gradient."""
    _, (state,) = run(
        run_on(few_digits, images=8, freeze=FROZEN, clip_norm=0.01), few_digits, tmp_path
    )
    gradient = torch.cat(
        [10 * tensor.flatten() for name, tensor in state.items() if name.startswith("exp_avg.")]
    )
    assert float(gradient.norm()) == pytest.approx(0.01, rel=1e-3)


@pytest.mark.parametrize("stop", [8, 16, 24])
def test_a_run_resumes_bit_by_bit_before_at_and_after_the_end_of_a_freeze(
    few_digits: Images, tmp_path: Path, stop: int
) -> None:
    config = run_on(
        few_digits,
        images=40,
        freeze=FROZEN,
        learning_rates=(1e-3, 1e-2, 1e-2, 2e-2),
        warmups=(16, 0, 8, 8),
        learned_weight=True,
    )
    whole = list(train(config, few_digits, tmp_path / "whole"))
    calls = iter([False] * (stop // 8 - 1) + [True])
    list(train(config, few_digits, tmp_path / "parts", lambda: next(calls)))
    list(train(config, few_digits, tmp_path / "parts"))
    assert_same_weights(tmp_path / "whole", tmp_path / "parts")
    first, second = (
        read_tensors(Run(tmp_path / name).checkpoints()[-1] / "training.safetensors")[0]
        for name in ("whole", "parts")
    )
    assert same(first, second)
    parts = read_records(Run(tmp_path / "parts"))
    assert [(r.learning_rates, r.macs) for r in parts] == [
        (r.learning_rates, r.macs) for r in whole
    ]


def test_a_part_warms_up_from_when_it_begins_to_learn() -> None:
    rate = Rate(1.0, 32, (0, 16))
    assert [rate.at(images, 8) for images in (0, 8, 16, 24, 32, 40, 800)] == [
        0,
        0,
        0.25,
        0.5,
        0.75,
        1,
        1,
    ]
    again = Rate(1.0, 32, (16, 24))
    assert [again.at(images, 8) for images in (0, 8, 16, 24, 32)] == [0.25, 0.5, 0, 0.25, 0.5]
    assert Rate(1.0, 0, (8, math.inf)).at(0, 8) == 1


def test_each_part_moves_by_its_rate(few_digits: Images, tmp_path: Path) -> None:
    """Adam's first step is as long as the rate, wherever the gradient is not tiny."""
    given = (1e-4, 1e-3, 2e-3, 1e-2)
    config = run_on(
        few_digits,
        images=8,
        learning_rates=given,
        warmups=(0,) * 4,
        shares="uniform",
        ema_rampup=1e-9,
    )
    (record,), (state,) = run(config, few_digits, tmp_path)
    (_,), (start,) = run(
        replace(config, training=replace_settings(config.training, freeze=("0:",) * 4)),
        few_digits,
        tmp_path / "still",
    )
    for part, rate in zip(
        ("encoders.0", "decoders.0", "decoders.1", "decoders.2"), given, strict=True
    ):
        moved = max(
            float((tensor - start[name]).abs().max()) for name, tensor in of(part, state).items()
        )
        assert moved == pytest.approx(rate, rel=0.01)
    assert record.learning_rates == list(given)
    assert record.learning_rate == max(given)


def test_records_have_a_rate_for_each_part_only_where_they_differ(
    few_digits: Images, tmp_path: Path
) -> None:
    records = list(
        train(run_on(few_digits, images=40, freeze=FROZEN), few_digits, tmp_path / "frozen")
    )
    assert [record.learning_rates[0] for record in records] == [0, 0, 0.005, 0.01, 0.01]
    assert [record.learning_rate for record in records] == [0.005, 0.01, 0.01, 0.01, 0.01]
    (record,) = train(
        run_on(few_digits, images=8, learning_rates=(1e-2,) * 4), few_digits, tmp_path / "same"
    )
    assert record.learning_rates == []
    old = {name: value for name, value in vars(record).items() if name != "learning_rates"}
    assert Record(**old) == record


def test_the_ledger_counts_what_a_frozen_encoder_saves(few_digits: Images, tmp_path: Path) -> None:
    config = run_on(few_digits, freeze=("8", "0", "0", "0"))
    first, second, _ = train(config, few_digits, tmp_path)
    free, frozen = (
        [cost.training_macs for cost in stage_costs(config.model, still)]
        for still in ((), (True, False, False, False))
    )
    assert first.macs == pytest.approx(8 * mean(first.share, frozen))
    assert second.macs - first.macs == pytest.approx(8 * mean(second.share, free))
    for cost, less, full in zip(stage_costs(config.model), frozen, free, strict=True):
        assert cost.macs < less < full
        assert full - less < 2 * cost.macs


def test_the_parts_of_separate_networks_have_names_and_rates_too(
    few_digits: Images, tmp_path: Path
) -> None:
    network = replace(TINY, encoder_widths=(8, 8, 8))
    config = run_on(few_digits, freeze=("0:", "0", "0", "0", "0", "0"))
    config = replace(config, model=replace(config.model, network=network))
    _, states = run(config, few_digits, tmp_path)
    assert same(of("encoders.0", states[0]), of("encoders.0", states[-1]))
    assert not same(of("encoders.1", states[0]), of("encoders.1", states[-1]))
    assert part_names(network)[2:4] == ["encoder 3", "decoder 1"]
    assert part_names(NetworkConfig(decoder_widths=(8,))) == ["encoder", "decoder"]


@pytest.mark.parametrize(
    "given",
    [{"learning_rates": (1e-3, 1e-3)}, {"warmups": (1, 2, 3, 4, 5)}, {"freeze": ("1", "2", "3")}],
    ids=str,
)
def test_a_wrong_number_of_values_names_the_parts(
    few_digits: Images, given: dict[str, tuple[object, ...]]
) -> None:
    ((name, values),) = given.items()
    with pytest.raises(
        BadInput, match=f"{name} has {len(values)} values for 4 parts: {', '.join(PARTS)}"
    ):
        Rates(run_on(few_digits, **given))


def test_intervals() -> None:
    assert [frozen_interval(text) for text in ("0", "500", "20:50", "20:")] == [
        (0, 0),
        (0, 500),
        (20, 50),
        (20, math.inf),
    ]


@pytest.mark.parametrize("text", ["", ":", "x", "-5", "50:20", "1:2:3", "1e5", "-1:5"])
def test_what_is_no_interval_is_refused(text: str) -> None:
    with pytest.raises(BadInput, match="setting freeze takes numbers of images"):
        replace_settings(TrainingConfig(), freeze=(text,))


@pytest.mark.parametrize(
    "given",
    [{"learning_rates": (1e-3, 0.0)}, {"warmups": (-1,)}, {"learning_rates": (math.nan,)}],
    ids=str,
)
def test_rates_that_make_no_sense_are_refused(given: dict[str, tuple[float, ...]]) -> None:
    with pytest.raises(BadInput, match=f"setting {next(iter(given))} must be"):
        replace_settings(TrainingConfig(), **given)


def test_rates_are_printed_by_part_if_they_differ(few_digits: Images) -> None:
    assert str(Rates(run_on(few_digits))) == "0.01"
    assert (
        str(Rates(run_on(few_digits, learning_rates=(1e-4, 1e-3, 1e-3, 2e-3))))
        == "0.0001/0.001/0.001/0.002"
    )


def test_a_decay_begins_where_it_is_told_and_halves_the_rate_at_four_times_that() -> None:
    rate = Rate(2.0, 10, decay=100)
    assert rate.at(90, 10) == 2
    assert rate.at(390, 10) == pytest.approx(1)
    assert Rate(2.0, 10).at(390, 10) == 2


def test_min_snr_weights_the_error_of_the_image_by_the_smaller_of_snr_and_its_limit(
    few_digits: Images,
) -> None:
    config = run_on(few_digits, min_snr=5.0)
    state = State.initial(build_denoiser(config.model), config.training)
    step = TrainingStep(config, state, few_digits, torch.device("cpu"))
    sigma = torch.tensor([0.1, 0.5, 2.0], dtype=torch.float64)
    error = torch.tensor([0.3, 0.2, 0.1])  # squared, of the denoised image
    losses = error * state.denoiser.preconditioning.weight(sigma).float()
    expected = error * torch.tensor([5.0, 4.0, 0.25])
    assert torch.allclose(step._weighted(losses, sigma), expected)
