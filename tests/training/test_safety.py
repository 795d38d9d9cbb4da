"""Nothing that was written is lost, and no number that is not finite gets into the weights."""

import json
import logging
import resource
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from multistage_diffusion.data import Images
from multistage_diffusion.errors import BadInput
from multistage_diffusion.model import load_model
from multistage_diffusion.run import Run
from multistage_diffusion.space import to_unit_range
from multistage_diffusion.tensorfile import read_tensors, save_tensors
from multistage_diffusion.training import Diverged, read_records, train
from multistage_diffusion.training.batches.order import image_indices
from multistage_diffusion.training.monitoring.divergence import MOST_FAILED_STEPS, spread_non_finite
from tests.conftest import run_on
from tests.training.test_loop import assert_same_weights

FILES = ["model.safetensors", "training.safetensors"]


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


@pytest.mark.parametrize("file", FILES)
def test_a_truncated_checkpoint_is_renamed_and_the_one_before_is_loaded(
    few_digits: Images, tmp_path: Path, file: str, caplog: pytest.LogCaptureFixture
) -> None:
    config = run_on(few_digits, images=40)
    list(train(config, few_digits, tmp_path / "whole"))
    list(train(run_on(few_digits), few_digits, tmp_path / "parts"))
    cut(Run(tmp_path / "parts").checkpoints()[-1] / file)
    with caplog.at_level(logging.WARNING):
        list(train(config, few_digits, tmp_path / "parts"))
    assert "000000000024 is damaged and was renamed" in caplog.text
    assert (tmp_path / "parts" / "checkpoints" / "000000000024.damaged" / file).exists()
    assert_same_weights(tmp_path / "whole", tmp_path / "parts")


@pytest.mark.parametrize("file", FILES)
def test_if_all_checkpoints_are_truncated_nothing_is_touched(
    few_digits: Images, tmp_path: Path, file: str
) -> None:
    list(train(run_on(few_digits), few_digits, tmp_path))
    for checkpoint in Run(tmp_path).checkpoints():
        cut(checkpoint / file)
    with pytest.raises(BadInput, match=rf"Cannot read .*24/{file}"):
        list(train(run_on(few_digits, images=40), few_digits, tmp_path))
    assert len(Run(tmp_path).checkpoints()) == 2


@pytest.mark.parametrize(("policy", "kept"), [
    ({}, [64, 80]),
    ({"keep_last": 1}, [80]),
    ({"keep_last": 3}, [48, 64, 80]),
    ({"keep_last": 1, "keep_every": 32}, [16, 32, 64, 80]),
    ({"keep_last": 1, "keep_every": 1}, [16, 32, 48, 64, 80]),
])  # fmt: skip
def test_checkpoints_that_are_kept(
    few_digits: Images, tmp_path: Path, policy: dict[str, int], kept: list[int]
) -> None:
    list(train(run_on(few_digits, images=80, **policy), few_digits, tmp_path))
    assert [int(path.name) for path in Run(tmp_path).checkpoints()] == kept
    assert not list(tmp_path.glob("checkpoints/.*"))


def test_what_is_kept_may_change_when_a_run_is_resumed(few_digits: Images, tmp_path: Path) -> None:
    list(train(run_on(few_digits, images=32), few_digits, tmp_path))
    list(train(run_on(few_digits, images=64, keep_last=1), few_digits, tmp_path))
    assert [int(path.name) for path in Run(tmp_path).checkpoints()] == [64]


def with_bad_images(images: Images, bad: slice) -> Images:
    values = to_unit_range(images.pixels[:])
    values[bad] = torch.nan
    return Images(values, source="digits")


def test_steps_that_are_not_finite_are_left_out_and_counted(
    few_digits: Images, tmp_path: Path
) -> None:
    data = with_bad_images(few_digits, slice(7, 8))
    config = run_on(data, images=400)
    records = list(train(config, data, tmp_path))
    batches = [image_indices(config.training.seed, 50, start, 8) for start in range(0, 400, 8)]
    assert [record.skipped for record in records] == [int(7 in batch) for batch in batches]
    assert 7 <= sum(record.skipped for record in records) <= 9
    for record in records:
        assert all(np.isfinite(loss) for loss in record.loss if loss is not None)
        assert np.isfinite(record.gradient_norm).all()
    assert all(
        p.isfinite().all() for p in load_model(tmp_path / "model.safetensors").denoiser.parameters()
    )


def test_a_step_left_out_leaves_the_weights_and_moments_alone(
    few_digits: Images, tmp_path: Path
) -> None:
    """A run whose last steps all fail ends with the weights of the run that ends before them."""
    short = run_on(few_digits, images=16)
    list(train(short, few_digits, tmp_path / "short"))
    bad = with_bad_images(few_digits, slice(0, 50))
    longer = replace(run_on(bad, images=32), data=short.data)
    shutil.copytree(tmp_path / "short", tmp_path / "long")
    bad.__dict__["fingerprint"] = few_digits.fingerprint
    assert [record.skipped for record in train(longer, bad, tmp_path / "long")] == [1, 1]
    first, second = (
        torch_file(tmp_path / name / "checkpoints" / number)
        for name, number in (("short", f"{16:012d}"), ("long", f"{32:012d}"))
    )
    for name, tensor in first.items():
        if not name.startswith(("sum.", "seen")):
            assert torch.equal(tensor, second[name]), name


def torch_file(checkpoint: Path) -> dict[str, torch.Tensor]:
    from multistage_diffusion.tensorfile import read_tensors

    return read_tensors(checkpoint / "training.safetensors")[0]


def test_many_failing_steps_stop_the_run_and_name_the_sample(
    few_digits: Images, tmp_path: Path
) -> None:
    config = run_on(
        few_digits, images=160, learning_rate=1000, warmup_images=1, checkpoint_images=8
    )
    with pytest.raises(
        Diverged,
        match=rf"in {MOST_FAILED_STEPS} steps .* after 8 images; .* in stage \d, of image \d+ at "
        r"sigma [\d.]+\.",
    ):
        list(train(config, few_digits, tmp_path))
    assert [int(path.name) for path in Run(tmp_path).checkpoints()] == [8]
    for checkpoint in Run(tmp_path).checkpoints():
        assert all(
            t.isfinite().all()
            for t in load_model(checkpoint / "model.safetensors").denoiser.parameters()
        )
    assert len(read_records(Run(tmp_path))) == MOST_FAILED_STEPS


def test_a_loss_that_overflows_has_a_gradient_that_tells_of_it() -> None:
    x = torch.tensor(1e30, requires_grad=True)
    spread_non_finite(x.square()).backward()
    assert x.grad is not None
    assert x.grad.isnan()
    y = torch.tensor(3.0, requires_grad=True)
    spread_non_finite(y.square()).backward()
    assert y.grad == 6


TINY = ["--encoder-widths", "8", "--decoder-widths", "12", "8", "4", "--blocks", "1"]
LENGTH = ["--batch-size", "16", "--record-images", "64", "--checkpoint-images", "64"]


def command(out: Path, images: int, limit: int | None = None) -> subprocess.CompletedProcess[str]:
    """Runs the command line, which may write no file larger than ``limit`` bytes, as if the disk
    were full then."""
    words = [
        "train",
        "digits",
        "--data",
        "digits",
        "--out",
        str(out),
        "--images",
        str(images),
        *TINY,
        *LENGTH,
    ]

    def small_disk() -> None:
        if limit is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    full = [sys.executable, "-m", "multistage_diffusion", *words]
    return subprocess.run(
        full, capture_output=True, text=True, check=False, timeout=110, preexec_fn=small_disk
    )


@pytest.mark.slow
def test_a_full_disk_costs_nothing_that_was_there(tmp_path: Path) -> None:
    assert command(tmp_path / "whole", 192).returncode == 0
    assert command(tmp_path / "parts", 64).returncode == 0
    before = {
        path: path.read_bytes()
        for path in (tmp_path / "parts" / "checkpoints").rglob("*.safetensors")
    }
    smallest = min(len(content) for content in before.values())
    found = command(tmp_path / "parts", 192, smallest + 1000)
    assert found.returncode == 2
    assert "Cannot write or read" in found.stderr.splitlines()[-1]
    assert "training.safetensors: File too large" in found.stderr.splitlines()[-1]
    assert {path: path.read_bytes() for path in before} == before
    assert not list(tmp_path.glob("parts/checkpoints/.*"))
    assert command(tmp_path / "parts", 192).returncode == 0
    assert_same_weights(tmp_path / "whole", tmp_path / "parts")
    lines = (tmp_path / "parts" / "stats.jsonl").read_text().splitlines()
    assert [json.loads(line)["images"] for line in lines] == [64, 128, 192]


@pytest.mark.skipif(
    not Path("/proc/self").exists(), reason="needs a file system that nobody may write to"
)
def test_a_folder_that_cannot_be_written_is_named() -> None:
    found = command(Path("/proc/run"), 64)
    assert found.returncode == 2
    assert found.stderr.splitlines()[-1].startswith("multistage: Cannot write or read /proc/run")


def test_a_second_damaged_checkpoint_of_a_number_gets_another_name(
    few_digits: Images, tmp_path: Path
) -> None:
    config = run_on(few_digits)
    for _ in range(2):
        list(train(config, few_digits, tmp_path))
        cut(Run(tmp_path).checkpoints()[-1] / "training.safetensors")
    list(train(config, few_digits, tmp_path))
    damaged = sorted(path.name for path in (tmp_path / "checkpoints").glob("*.damaged*"))
    assert damaged == ["000000000024.damaged", "000000000024.damaged-2"]


def test_progress_that_is_no_number_does_not_fit(few_digits: Images, tmp_path: Path) -> None:
    list(train(run_on(few_digits), few_digits, tmp_path))
    file = Run(tmp_path).checkpoints()[-1] / "training.safetensors"
    tensors, progress = read_tensors(file)
    save_tensors(file, tensors, {**progress, "images": "many"})
    with pytest.raises(BadInput, match="does not fit this run"):
        list(train(run_on(few_digits, images=40), few_digits, tmp_path))
