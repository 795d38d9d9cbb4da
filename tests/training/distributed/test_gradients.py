"""Training in two processes on this machine: the weights of one process with the same batches."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from multistage_diffusion.model import load_model
from multistage_diffusion.run import Run
from multistage_diffusion.tensorfile import read_metadata, read_tensors
from multistage_diffusion.training import read_records
from tests.test_distributed import free_port

TINY = [
    "--encoder-widths",
    "8",
    "--decoder-widths",
    "12",
    "8",
    "4",
    "--blocks",
    "1",
    "--dropout",
    "0.1",
    "--label-dropout",
    "0.3",
]
LENGTH = [
    "--images",
    "96",
    "--batch-size",
    "12",
    "--record-images",
    "24",
    "--checkpoint-images",
    "48",
]


@pytest.fixture
def start(tmp_path: Path) -> list[str]:
    """The last stage, above sigma 12, gets one image in 960: most batches have none of it."""
    stages = tmp_path / "stages.json"
    stages.write_text(json.dumps({"boundaries": [0.3, 12.0]}))
    rng = np.random.default_rng(0)
    np.savez(
        tmp_path / "set.npz",
        images=rng.integers(0, 256, (40, 8, 8), dtype=np.uint8),
        labels=np.arange(40) % 10,
    )
    data = ["--data", str(tmp_path / "set.npz"), "--stages", str(stages)]
    return ["-m", "multistage_diffusion", "train", "digits", *data, *TINY, *LENGTH]


def run(command: list[str]) -> str:
    found = subprocess.run(
        [sys.executable, *command], capture_output=True, text=True, check=False, timeout=110
    )
    assert found.returncode == 0, found.stderr
    return found.stdout


def torchrun() -> list[str]:
    return ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", free_port()]


FROZEN = [
    "--freeze",
    "48",
    "0",
    "0",
    "12:60",
    "--learning-rates",
    "1e-3",
    "2e-3",
    "2e-3",
    "4e-3",
    "--learned-weight",
]
RARE = ["--shares", "0.5", "0.4965", "0.0035", "--clip-norm", "0.1", "--accumulate", "3"]


@pytest.mark.parametrize(
    ("more", "how"),
    [
        ([], []),
        (RARE, []),
        pytest.param(RARE, ["--shard"], marks=pytest.mark.slow),
        ([*RARE, *FROZEN], ["--shard"]),
        pytest.param([*RARE, *FROZEN], [], marks=pytest.mark.slow),
        pytest.param(["--accumulate", "3"], [], marks=pytest.mark.slow),
        pytest.param([], ["--shard"], marks=pytest.mark.slow),
        pytest.param(["--accumulate", "3"], ["--shard"], marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_two_processes_train_like_one(
    tmp_path: Path, start: list[str], more: list[str], how: list[str]
) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    run([*start, *more, "--out", str(one)])
    printed = run([*torchrun(), *start, *more, *how, "--out", str(two)])
    assert printed.count("trained; the model is") == 1
    assert_close(one, two)
    for a, b in zip(read_records(Run(one)), read_records(Run(two)), strict=True):
        assert a.share == b.share
        assert [loss or 0 for loss in a.loss] == pytest.approx(
            [loss or 0 for loss in b.loss], rel=1e-4
        )
        assert a.gradient_norm == pytest.approx(b.gradient_norm, rel=1e-4)
        assert (a.learning_rates, a.macs) == (b.learning_rates, b.macs)
    assert (
        min(record.share[2] for record in read_records(Run(one))) == 0
    )  # there were records without any sample of the last stage


@pytest.mark.slow
@pytest.mark.parametrize("how", [[], ["--shard"]], ids=str)
def test_a_run_continues_with_another_world_size(
    tmp_path: Path, start: list[str], how: list[str]
) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    run([*start, "--out", str(whole)])
    run([*torchrun(), *start, *how, "--out", str(parts), "--images", "36"])
    run([*start, "--out", str(parts), "--images", "60"])
    run([*torchrun(), *start, *how, "--out", str(parts)])
    assert_close(whole, parts)
    assert [record.images for record in read_records(Run(parts))] == [24, 36, 48, 60, 72, 96]


@pytest.mark.slow
@pytest.mark.parametrize("how", [[], ["--shard"]], ids=str)
def test_two_processes_keep_the_averages_of_one(
    tmp_path: Path, start: list[str], how: list[str]
) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    averages = ["--posthoc-ema", "0.05", "0.1", "--snapshot-images", "24", "--ema-clock", "own"]
    run([*start, *averages, "--out", str(one)])
    run([*torchrun(), *start, *averages, *how, "--out", str(two), "--images", "60"])
    run([*torchrun(), *start, *averages, *how, "--out", str(two)])
    assert_close(one, two)
    assert [path.name for path in Run(two).snapshots() if path.stem != f"{60:012d}"] == [
        path.name for path in Run(one).snapshots()
    ]
    for path in Run(one).snapshots():
        assert read_metadata(path)["seen"] == read_metadata(two / "averages" / path.name)["seen"]
        other = read_tensors(two / "averages" / path.name)[0]
        for name, tensor in read_tensors(path)[0].items():
            torch.testing.assert_close(other[name], tensor, rtol=0, atol=1e-6, msg=name)


def assert_close(first: Path, second: Path) -> None:
    a, b = (
        load_model(out / "model.safetensors").denoiser.network.state_dict()
        for out in (first, second)
    )
    for name, tensor in a.items():
        torch.testing.assert_close(b[name], tensor, rtol=0, atol=1e-6, msg=name)


@pytest.mark.slow
def test_accelerate_launch_trains_like_one_process(tmp_path: Path, start: list[str]) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    run([*start, "--out", str(one)])
    launch = [
        "-m",
        "accelerate.commands.launch",
        "--cpu",
        "--num_processes",
        "2",
        "--num_machines",
        "1",
        "--mixed_precision",
        "no",
    ]
    ports = ["--main_process_port", free_port(), "--dynamo_backend", "no"]
    run([*launch, *ports, *start, "--out", str(two)])
    assert_close(one, two)


@pytest.mark.slow  # torchrun gives the surviving process half a minute to end
def test_after_a_killed_process_torchrun_continues_from_the_last_checkpoint(
    tmp_path: Path, start: list[str]
) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    longer = ["--images", "960", "--checkpoint-images", "96"]
    run([*torchrun(), *start, *longer, "--out", str(whole)])
    command = [
        sys.executable,
        *torchrun(),
        "--max-restarts",
        "3",
        *start,
        *longer,
        "--out",
        str(parts),
    ]
    with subprocess.Popen(
        command, text=True, stdout=-1, stderr=-1, start_new_session=True
    ) as process:
        try:
            kill_one(process, parts)
            out, err = process.communicate(timeout=600)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    assert process.returncode == 0, err
    assert "continuing from the checkpoint at" in out
    for name, tensor in (
        load_model(whole / "model.safetensors").denoiser.network.state_dict().items()
    ):
        assert torch.equal(
            load_model(parts / "model.safetensors").denoiser.network.state_dict()[name], tensor
        ), name


def kill_one(process: subprocess.Popen[str], run: Path) -> None:
    """Kills the second process as soon as there is a checkpoint."""
    while not list(run.glob("checkpoints/0*")):
        assert process.poll() is None
        time.sleep(0.01)
    children = subprocess.run(
        ["/usr/bin/env", "pgrep", "-P", str(process.pid)],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    os.kill(int(children[-1]), signal.SIGKILL)
