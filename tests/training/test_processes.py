"""Training in two processes on this machine: the weights of one process with the same batches."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from multistage_diffusion.checkpoint import load_model
from multistage_diffusion.training import read_records

from ..test_processes import free_port

TINY = ["--encoder-widths", "8", "--decoder-widths", "12", "8", "4", "--blocks", "1", "--dropout", "0"]
LENGTH = ["--images", "96", "--batch-size", "12", "--record-images", "24", "--checkpoint-images", "48"]


@pytest.fixture
def start(tmp_path: Path) -> list[str]:
    """The last stage, above sigma 12, gets one image in 960: most batches have none of it."""
    stages = tmp_path / "stages.json"
    stages.write_text(json.dumps({"boundaries": [0.3, 12.0]}))
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "set.npz", images=rng.integers(0, 256, (40, 8, 8), dtype=np.uint8), labels=np.arange(40) % 10)
    data = ["--data", str(tmp_path / "set.npz"), "--stages", str(stages)]
    return ["-m", "multistage_diffusion", "train", "digits", *data, *TINY, *LENGTH]


def run(command: list[str]) -> str:
    found = subprocess.run([sys.executable, *command], capture_output=True, text=True, check=False, timeout=110)
    assert found.returncode == 0, found.stderr
    return found.stdout


def torchrun() -> list[str]:
    return ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", free_port()]


@pytest.mark.parametrize(
    "more", [[], ["--accumulate", "3"], ["--shares", "0.5", "0.4965", "0.0035", "--clip-norm", "0.1"]], ids=str
)
def test_two_processes_train_like_one(tmp_path: Path, start: list[str], more: list[str]) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    run([*start, *more, "--out", str(one)])
    printed = run([*torchrun(), *start, *more, "--out", str(two)])
    assert printed.count("trained; the model is") == 1
    first, second = (load_model(out / "model.safetensors").denoiser.network.state_dict() for out in (one, two))
    for name, tensor in first.items():
        torch.testing.assert_close(second[name], tensor, rtol=0, atol=1e-6, msg=name)
    for a, b in zip(read_records(one), read_records(two), strict=True):
        assert a.share == b.share
        assert [loss or 0 for loss in a.loss] == pytest.approx([loss or 0 for loss in b.loss], rel=1e-4)
    third = [name for name in first if name.startswith("decoders.2.")]
    shares = [record.share[2] for record in read_records(one)]
    assert third
    assert min(shares) == 0  # there were records without any sample of the last stage


def test_a_run_of_two_processes_goes_on_in_one(tmp_path: Path, start: list[str]) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    run([*start, "--out", str(whole)])
    run([*torchrun(), *start, "--out", str(parts), "--images", "48"])
    run([*start, "--out", str(parts)])
    first, second = (load_model(out / "model.safetensors").denoiser.network.state_dict() for out in (whole, parts))
    for name, tensor in first.items():
        torch.testing.assert_close(second[name], tensor, rtol=0, atol=1e-6, msg=name)
    assert [record.images for record in read_records(parts)] == [24, 48, 72, 96]
