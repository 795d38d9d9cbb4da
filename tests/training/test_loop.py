import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from multistage_diffusion.config import replace_settings
from multistage_diffusion.data import Images
from multistage_diffusion.errors import BadInput
from multistage_diffusion.model import load_model
from multistage_diffusion.optimal import OptimalDenoiser
from multistage_diffusion.run import Run
from multistage_diffusion.training import Record, read_records, train
from multistage_diffusion.training.config import RunConfig, TrainingConfig, run_config
from multistage_diffusion.training.ema.averages import ema_decay
from multistage_diffusion.training.ema.snapshots import Snapshots
from multistage_diffusion.training.rates import Rates
from multistage_diffusion.training.resume import check_run
from tests.conftest import run_on

GOLDEN_LOSSES = [
    [1.105622, 2.122833, 0],
    [1.015286, 1.805218, 2.897772],
    [1.229090, 1.793437, 0],
]


def weights(run: Path) -> dict[str, Tensor]:
    return load_model(run / "model.safetensors").denoiser.network.state_dict()


def assert_same_weights(first: Path, second: Path) -> None:
    a, b = weights(first), weights(second)
    assert a.keys() == b.keys()
    for name in a:
        assert torch.equal(a[name], b[name]), name


def stop_after(steps: int) -> Iterator[bool]:
    yield from [False] * (steps - 1)
    while True:
        yield True


def test_three_steps_have_golden_losses(
    run_config: RunConfig, few_digits: Images, tmp_path: Path
) -> None:
    records = list(train(run_config, few_digits, tmp_path / "run"))
    assert [record.images for record in records] == [8, 16, 24]
    for record, golden in zip(records, GOLDEN_LOSSES, strict=True):
        assert [loss or 0 for loss in record.loss] == pytest.approx(golden, rel=1e-5)


@pytest.mark.parametrize("steps", [1, 2])
def test_an_interrupted_run_equals_an_uninterrupted_one(
    few_digits: Images, tmp_path: Path, steps: int
) -> None:
    config = run_on(few_digits, images=40)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    expected = list(train(config, few_digits, whole))
    for _ in range(5):
        stop = stop_after(steps)
        list(train(config, few_digits, parts, lambda stop=stop: next(stop)))  # type: ignore[misc]
    assert_same_weights(whole, parts)
    assert [record.loss for record in read_records(Run(parts))] == [
        record.loss for record in expected
    ]


def test_records_between_checkpoints_are_made_again_not_twice(
    few_digits: Images, tmp_path: Path
) -> None:
    """A crash after records that no checkpoint covers."""
    config, run = run_on(few_digits, images=48, checkpoint_images=32), tmp_path / "run"
    whole = [record.loss for record in train(config, few_digits, tmp_path / "whole")]
    running = train(config, few_digits, run)
    for _ in range(3):
        next(running)
    running.close()
    assert len(read_records(Run(run))) == 3
    assert [record.loss for record in train(config, few_digits, run)] == whole
    assert [record.loss for record in read_records(Run(run))] == whole


def test_a_record_may_span_a_resumption(few_digits: Images, tmp_path: Path) -> None:
    """The sums of a record in the making are part of the checkpoint."""
    config = run_on(few_digits, images=32, record_images=32, checkpoint_images=8)
    stop = stop_after(2)
    assert list(train(config, few_digits, tmp_path / "parts", lambda: next(stop))) == []
    (second,) = train(config, few_digits, tmp_path / "parts")
    (whole,) = train(config, few_digits, tmp_path / "whole")
    assert second.loss == whole.loss
    assert second.share == whole.share


def test_a_finished_run_can_be_lengthened(few_digits: Images, tmp_path: Path) -> None:
    list(train(run_on(few_digits, images=16), few_digits, tmp_path / "parts"))
    list(train(run_on(few_digits, images=40), few_digits, tmp_path / "parts"))
    list(train(run_on(few_digits, images=40), few_digits, tmp_path / "whole"))
    assert_same_weights(tmp_path / "parts", tmp_path / "whole")


def test_a_shorter_length_than_what_was_seen_is_refused(few_digits: Images, tmp_path: Path) -> None:
    list(train(run_on(few_digits, images=40), few_digits, tmp_path))
    with pytest.raises(BadInput, match="already seen 40 images"):
        list(train(run_on(few_digits, images=16), few_digits, tmp_path))
    assert run_config(load_model(tmp_path / "model.safetensors")).training.images == 40


@pytest.mark.parametrize(
    ("setting", "value"), [("seed", 9), ("batch_size", 4), ("learning_rate", 1.0)]
)
def test_another_configuration_is_refused_and_nothing_touched(
    few_digits: Images, tmp_path: Path, setting: str, value: float
) -> None:
    list(train(run_on(few_digits), few_digits, tmp_path))
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(BadInput, match=rf"training\.{setting} is .* there, {value} here"):
        list(train(run_on(few_digits, **{setting: value}), few_digits, tmp_path))
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("name", ["stats.jsonl", "photo.png", "checkpoints"])
def test_a_folder_with_foreign_files_is_refused(
    run_config: RunConfig, few_digits: Images, tmp_path: Path, name: str
) -> None:
    (tmp_path / name).write_text("mine")
    with pytest.raises(BadInput, match=f"holds {name} but no config.json"):
        list(train(run_config, few_digits, tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == "mine"


@pytest.mark.parametrize(
    "name", ["stages.json", "stages.svg", ".stages.json.x1y2z3", ".config.json.abc"]
)
def test_stages_and_unfinished_files_do_not_hinder_a_run(
    run_config: RunConfig, few_digits: Images, tmp_path: Path, name: str
) -> None:
    """The first of several processes may be writing while another one looks."""
    (tmp_path / name).write_text("{}")
    check_run(Run(tmp_path), run_config, few_digits)


def test_other_images_are_refused(
    run_config: RunConfig, few_digits: Images, tmp_path: Path
) -> None:
    with pytest.raises(BadInput, match="images differ"):
        list(train(run_config, Images(few_digits.pixels[:].flip(0), few_digits.labels), tmp_path))


def test_conditional_runs_resume_too(few_digits: Images, tmp_path: Path) -> None:
    config = run_on(few_digits, images=40)
    config = replace(config, model=replace(config.model, classes=10))
    stop = stop_after(2)
    list(train(config, few_digits, tmp_path / "parts", lambda: next(stop)))
    list(train(config, few_digits, tmp_path / "parts"))
    list(train(config, few_digits, tmp_path / "whole"))
    assert_same_weights(tmp_path / "parts", tmp_path / "whole")


@pytest.mark.slow
def test_training_learns(few_digits: Images, tmp_path: Path) -> None:
    records = list(
        train(
            run_on(few_digits, images=1600, record_images=800, checkpoint_images=1600),
            few_digits,
            tmp_path,
        )
    )
    assert sum(records[-1].probe_loss) < 0.85 * sum(records[0].probe_loss)


def test_stats_are_lines_of_json(run_config: RunConfig, few_digits: Images, tmp_path: Path) -> None:
    records = list(train(run_config, few_digits, tmp_path))
    lines = [json.loads(line) for line in (tmp_path / "stats.jsonl").read_text().splitlines()]
    assert [line["images"] for line in lines] == [8, 16, 24]
    assert [Record(**line) for line in lines] == records


def test_the_optimal_denoiser_is_a_lower_bound_on_the_probe(
    run_config: RunConfig, few_digits: Images, tmp_path: Path
) -> None:
    for record in train(run_config, few_digits, tmp_path):
        assert all(
            best < loss for best, loss in zip(record.optimal_loss, record.probe_loss, strict=True)
        )


def test_the_optimum_of_a_conditional_run_knows_the_class(
    few_digits: Images, tmp_path: Path
) -> None:
    free = run_on(few_digits, images=8)
    known = replace(free, model=replace(free.model, classes=10))
    (one,), (two,) = (
        train(config, few_digits, tmp_path / name)
        for config, name in ((free, "free"), (known, "known"))
    )
    assert sum(two.optimal_loss) < sum(one.optimal_loss)
    assert OptimalDenoiser(few_digits.pixels[:1])(torch.zeros(1, 1, 8, 8), 1.0).shape == (
        1,
        1,
        8,
        8,
    )


def test_half_life_of_the_average() -> None:
    """Once ramped up, a start of 1 and weights of 0 leave 1/2 after one half-life."""
    config = replace_settings(TrainingConfig(), batch_size=50, ema_half_life=1000, ema_rampup=0.05)
    kept = math.prod(ema_decay(config.averaging, 10**6, 50) for _ in range(1000 // 50))
    assert kept == pytest.approx(0.5)


def test_the_average_forgets_the_start_of_a_short_run() -> None:
    """With ramp-up r the weight of the start falls as images^(-ln 2 / r); without it, it would
    still be above 0.9."""
    config = replace_settings(
        TrainingConfig(), batch_size=100, ema_half_life=500_000, ema_rampup=0.05
    )
    kept = math.prod(ema_decay(config.averaging, images, 100) for images in range(100, 20_001, 100))
    assert kept < 1e-3
    assert ema_decay(config.averaging, 0, 0) == 1


def test_learning_rate_ramps_linearly_to_a_constant(few_digits: Images) -> None:
    rates = Rates(run_on(few_digits, learning_rate=1.0, warmup_images=32))
    assert [rates.at(images) for images in (0, 8, 16, 24, 32, 800)] == [
        [rate] * 4 for rate in (0.25, 0.5, 0.75, 1, 1, 1)
    ]


@pytest.mark.parametrize(
    "recipe",
    [
        {"optimizer": "adamw", "weight_decay": 0.1, "clip_norm": 0.5},
        {"shares": "uniform", "batches": "single-stage"},
        {"shares": (0.2, 0.2, 0.6), "importance": True},
        {"learned_weight": True, "optimizer": "adamw", "weight_decay": 0.1},
        {"learned_weight": True, "optimizer": "muon", "weight_decay": 0.1, "clip_norm": 0.5},
    ],
    ids=str,
)
def test_every_recipe_resumes_bit_by_bit(
    few_digits: Images, tmp_path: Path, recipe: dict[str, object]
) -> None:
    config = run_on(few_digits, **recipe)
    list(train(config, few_digits, tmp_path / "whole"))
    calls = iter([False, True])
    list(train(config, few_digits, tmp_path / "parts", lambda: next(calls, False)))
    list(train(config, few_digits, tmp_path / "parts"))
    first, second = (
        load_model(tmp_path / name / "model.safetensors").denoiser.state_dict()
        for name in ("whole", "parts")
    )
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]), name


def test_a_network_with_random_frequencies_resumes_with_them(
    few_digits: Images, tmp_path: Path
) -> None:
    config = run_on(few_digits, posthoc_ema=(0.05, 0.1), snapshot_images=8)
    network = replace(config.model.network, embedding="fourier")
    config = replace(config, model=replace(config.model, network=network))
    list(train(config, few_digits, tmp_path / "whole"))
    calls = iter([False, True])
    list(train(config, few_digits, tmp_path / "parts", lambda: next(calls, False)))
    list(train(config, few_digits, tmp_path / "parts"))
    assert_same_weights(tmp_path / "whole", tmp_path / "parts")
    name = "encoders.0.embedding.frequencies"
    averaged = Snapshots(Run(tmp_path / "parts")).average([10.0] * 4)
    assert torch.equal(averaged[name], weights(tmp_path / "whole")[name])


def test_clipping_bounds_the_step(few_digits: Images, tmp_path: Path) -> None:
    """Adam's first step does not know the size of a gradient, but for its epsilon: a tiny norm
    makes a tiny step."""
    starts = {}
    for clip in (0.0, 1e-9):
        config = run_on(few_digits, clip_norm=clip, images=8, warmup_images=0, ema_rampup=1e-9)
        list(train(config, few_digits, tmp_path / str(clip)))
        starts[clip] = load_model(
            tmp_path / str(clip) / "model.safetensors"
        ).denoiser.network.state_dict()
    torch.manual_seed(0)
    moved = {
        clip: max(float(t.abs().max()) for n, t in state.items() if n.endswith("norm0.bias"))
        for clip, state in starts.items()
    }
    assert moved[1e-9] < 0.1 * moved[0.0]
