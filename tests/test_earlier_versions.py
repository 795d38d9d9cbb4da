"""Runs and model files of earlier versions are read, sampled and continued."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from multistage_diffusion.cli import main
from multistage_diffusion.data.decoding import load_image
from multistage_diffusion.model import load_model
from multistage_diffusion.networks import StagedUNet
from multistage_diffusion.run import Run
from multistage_diffusion.training import read_records
from multistage_diffusion.training.config import read_run_config, run_config

FIXTURES = Path(__file__).parent / "fixtures"
BEFORE = FIXTURES / "run-0.1"
AFTER = FIXTURES / "run-0.1-continued"
SAMPLES = 4
CONTINUE = (
    "--encoder-widths 2 --decoder-widths 3 2 2 --batch-size 64 --warmup-images 64 "
    "--record-images 64 --checkpoint-images 128 --held-out 0.05 --learned-weight --clip-norm 1 "
    "--freeze 0 64 0 0 --learning-rates 2e-3 2e-3 1e-3 1e-3 --seed 5 --images 256"
)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    shutil.copytree(BEFORE, tmp_path / "run")
    return Run(tmp_path / "run")


def test_a_run_of_version_0_1_is_continued_as_version_0_1_did(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bit by bit on the machine that wrote the fixture; other CPUs round differently.

    Given torch's own dropout, whose masks version 0.1 had.
    """
    monkeypatch.setattr(StagedUNet, "_sources", lambda *_: [])
    arguments = ["train", "digits", "--data", "digits", *CONTINUE.split(), "--out", str(run.path)]
    assert main(arguments) == 0
    weights = load_file(run.model)
    for name, expected in load_file(AFTER / "model.safetensors").items():
        torch.testing.assert_close(weights[name], expected, rtol=1e-4, atol=1e-6)
    records = read_records(run)
    assert [record.images for record in records] == [64, 128, 192, 256]
    assert "version" in json.loads(run.config.read_text())


def test_its_settings_are_found_in_their_groups() -> None:
    config = read_run_config(json.loads((BEFORE / "config.json").read_text()))
    assert config.training.images == 128
    assert config.training.optimization.freeze == ("0", "64", "0", "0")
    assert config.training.draws.held_out == 0.05
    assert not config.training.draws.flip
    assert config.training.retention.checkpoint_images == 128
    assert config.training.averaging.ema_clock == "own"
    assert config.model == load_model(AFTER / "model.safetensors").config


def test_its_model_file_holds_the_same_weights_and_run() -> None:
    model = load_model(AFTER / "model.safetensors")
    stored = load_file(AFTER / "model.safetensors")
    for name, tensor in model.denoiser.network.state_dict().items():
        assert torch.equal(tensor, stored[name])
    assert model.images == 256
    assert run_config(model).training.images == 256


def test_its_samples_are_drawn_again(tmp_path: Path) -> None:
    arguments = f"--images {SAMPLES} --solver dpmpp-2m --steps 10 --out {tmp_path / 'samples'}"
    assert main(["sample", str(AFTER / "model.safetensors"), *arguments.split()]) == 0
    for index in range(SAMPLES):
        old = load_image(AFTER / "samples" / f"{index:06d}.png").int()
        new = load_image(tmp_path / "samples" / f"{index:06d}.png").int()
        assert int((old - new).abs().max()) <= 1


def test_more_samples_join_those_of_version_0_1(tmp_path: Path) -> None:
    """The note of what they are is understood, so that the folder is not refused."""
    shutil.copytree(AFTER, tmp_path / "run")
    before = (tmp_path / "run" / "samples" / "000000.png").read_bytes()
    arguments = f"sample {tmp_path / 'run'} --images 6 --solver dpmpp-2m --steps 10"
    assert main(arguments.split()) == 0
    assert (tmp_path / "run" / "samples" / "000005.png").exists()
    assert (tmp_path / "run" / "samples" / "000000.png").read_bytes() == before


def test_a_report_is_written_about_it(run: Run) -> None:
    assert main(["report", str(run.path)]) == 0
    assert "digits" in run.report.read_text()
