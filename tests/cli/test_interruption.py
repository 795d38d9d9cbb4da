"""A training command that is killed and repeated gives the weights of an uninterrupted run.

They are the same bit by bit.
"""

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from multistage_diffusion.model import load_model

COMMAND = (sys.executable, "-m", "multistage_diffusion", "train", "digits", "--data", "digits")
TINY = (
    *("--encoder-widths", "8", "--decoder-widths", "12", "8", "4"),
    *("--blocks", "1", "--dropout", "0.1"),
)
LENGTH = (
    *("--images", "2000", "--batch-size", "16"),
    *("--record-images", "200", "--checkpoint-images", "240"),
)
LONGER = ("--images", "30000")


def start(tmp_path: Path, out: Path, more: Sequence[str] = ()) -> subprocess.Popen[str]:
    stages = tmp_path / "stages.json"
    stages.write_text(json.dumps({"boundaries": [0.3, 2.5]}))
    paths = ["--out", str(out), "--stages", str(stages)]
    command = [*COMMAND, *paths, *TINY, *LENGTH, *more]
    return subprocess.Popen(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def wait_for(out: Path, lines: int, process: subprocess.Popen[str]) -> None:
    """Waits until the run has written a number of records."""
    stats = out / "stats.jsonl"
    while process.poll() is None and (not stats.exists() or stats.read_text().count("\n") < lines):
        time.sleep(0.01)


def finish(tmp_path: Path, out: Path, more: Sequence[str] = ()) -> None:
    process = start(tmp_path, out, more)
    _, err = process.communicate()
    assert process.returncode == 0, err


def assert_same(first: Path, second: Path) -> None:
    """Checks that two runs have the same weights and losses."""
    a = weights(first)
    b = weights(second)
    for name in a:
        assert torch.equal(a[name], b[name]), name
    assert losses(first) == losses(second)


def weights(run: Path) -> dict[str, Tensor]:
    return load_model(run / "model.safetensors").denoiser.network.state_dict()


def losses(run: Path) -> list[object]:
    lines = (run / "stats.jsonl").read_text().splitlines()
    return [json.loads(line)["loss"] for line in lines]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run."""
    folder = tmp_path_factory.mktemp("whole")
    finish(folder, folder / "run")
    return folder / "run"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 130), (signal.SIGKILL, -9)]
)
def test_a_run_ended_by_a_signal_continues_where_it_was(
    whole: Path, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    out = tmp_path / "run"
    process = start(tmp_path, out)
    wait_for(out, 3, process)
    process.send_signal(number)
    printed, _ = process.communicate()
    assert process.returncode == code
    assert ("the same command continues" in printed) == (code == 130)
    assert not (out / "model.safetensors").exists()
    finish(tmp_path, out)
    assert_same(whole, out)


@pytest.mark.slow
def test_a_run_killed_at_random_moments_loses_nothing(tmp_path: Path) -> None:
    """SIGKILL thirty times: at the start, while a checkpoint is being written, at any time."""
    rng = np.random.default_rng(0)
    out = tmp_path / "run"
    whole = tmp_path / "whole"
    finish(tmp_path, whole, LONGER)
    codes: list[int] = []
    while codes.count(-signal.SIGKILL) < 30:
        process = start(tmp_path, out, LONGER)
        time.sleep(rng.uniform(0.2, 5.0))
        process.kill()
        process.communicate()
        codes.append(process.returncode)
        assert set(codes) <= {-signal.SIGKILL, 0}
        if process.returncode == 0:  # it had finished: again from the beginning
            assert_same(whole, out)
            shutil.rmtree(out)
    finish(tmp_path, out, LONGER)
    assert_same(whole, out)
