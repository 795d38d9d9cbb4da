"""Pipelines of diffusers: read from their files, and the same images with our solvers."""

import json
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from multistage_diffusion.cli import main
from multistage_diffusion.denoiser import NetworkDenoiser
from multistage_diffusion.errors import BadInput
from multistage_diffusion.interop.unet2d import read_scheduler, read_unet
from multistage_diffusion.model import load_model
from multistage_diffusion.sampling import SOLVERS
from multistage_diffusion.schedule import make_schedule
from tests.interop.unet2d.models import UNCONDITIONAL, save_pipeline, unet

diffusers = pytest.importorskip("diffusers")

STEPS = 8
SCALED = {"beta_schedule": "scaled_linear"}
SCHEDULERS: dict[str, dict[str, Any]] = {
    "Ho et al.": {},
    "latent diffusion": {**SCALED, "beta_start": 0.0015, "beta_end": 0.0195},
    "Stable Diffusion": {**SCALED, "beta_start": 0.00085, "beta_end": 0.012},
    "cosine": {"beta_schedule": "squaredcos_cap_v2"},
    "few steps": {"num_train_timesteps": 50, "beta_end": 0.1},
}


@pytest.fixture
def pipeline(tmp_path: Path) -> Path:
    """The folder of a pipeline with a network as that of DDPM."""
    model = unet("UNet2DModel", UNCONDITIONAL["ddpm"])
    return save_pipeline(model, diffusers.DDPMScheduler(), tmp_path / "pipeline")


@pytest.fixture
def stages(tmp_path: Path) -> Path:
    (tmp_path / "stages.json").write_text(json.dumps({"boundaries": [0.5, 5.0]}))
    return tmp_path / "stages.json"


@pytest.mark.parametrize("name", SCHEDULERS)
def test_the_levels_are_those_of_the_scheduler(name: str) -> None:
    scheduler = diffusers.DDPMScheduler(**SCHEDULERS[name])
    found = read_scheduler(scheduler.config)
    assert found.preconditioning == "ddpm"
    with_v = {**scheduler.config, "prediction_type": "v_prediction"}
    assert read_scheduler(with_v).preconditioning == "ddpm-v"
    steps = torch.arange(scheduler.config.num_train_timesteps)
    levels = make_schedule(found.schedule, found.schedule_settings).from_clock(steps)
    abar = scheduler.alphas_cumprod.double()  # from float32, in which 1 - beta is rounded
    torch.testing.assert_close(levels, ((1 - abar) / abar).sqrt(), rtol=5e-4, atol=0)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"_class_name": "ScoreSdeVeScheduler", "snr": 0.15}, "ScoreSdeVeScheduler .* no betas"),
        ({"beta_schedule": "sigmoid"}, "beta_schedule sigmoid"),
        ({"beta_start": 0.0001, "prediction_type": "sample"}, "prediction_type sample"),
        ({"beta_start": 0.0001, "rescale_betas_zero_snr": True}, "rescale_betas_zero_snr"),
    ],
)
def test_other_schedulers_are_refused(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(BadInput, match=says):
        read_scheduler(settings)


def test_a_pipeline_with_copied_decoders_draws_the_same_images(
    pipeline: Path, stages: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "model.safetensors"
    arguments = ["convert", str(pipeline), "--out", str(out), "--stages", str(stages)]
    assert main(arguments) == 0
    assert "decoders 8/8/8" in capsys.readouterr().out
    denoiser = load_model(out).denoiser
    loaded = diffusers.DDPMPipeline.from_pretrained(pipeline)
    for name, settings in (("DDIM", {"use_clipped_model_output": True}), ("DDPM", {})):
        pipe = getattr(diffusers, f"{name}Pipeline")(loaded.unet, loaded.scheduler)
        expected, start, noise = _drawn_by(pipe, settings)
        found = _drawn_by_us(denoiser, name.lower(), pipe.scheduler, start, noise)
        assert float(((expected > 0) & (expected < 1)).float().mean()) > 0.05
        torch.testing.assert_close((found / 2 + 0.5).clamp(0, 1), expected, rtol=0, atol=1e-5)


def _drawn_by(pipe: Any, settings: dict[str, Any]) -> tuple[Tensor, Tensor, Any]:
    """The images of a pipeline, and the noise that it began with and drew in its steps."""
    pipe.set_progress_bar_config(disable=True)
    first, second = (torch.Generator().manual_seed(5) for _ in range(2))
    options = {"num_inference_steps": STEPS, "output_type": "np", "return_dict": False}
    images = pipe(batch_size=2, generator=first, **options, **settings)[0]
    shape = (2, 1, 8, 8)
    start = torch.randn(shape, generator=second)
    noise = partial(torch.randn, shape, generator=second)
    return torch.from_numpy(images).permute(0, 3, 1, 2), start, lambda _step: noise()


def _drawn_by_us(
    denoiser: NetworkDenoiser, solver: str, scheduler: Any, noise: Tensor, more: Any
) -> Tensor:
    """The same at the scheduler's levels; it clips the denoised images."""
    abar = scheduler.alphas_cumprod.double()[scheduler.timesteps]  # rounded to float32
    levels = ((1 - abar) / abar).sqrt()
    grid = torch.cat([levels, levels.new_zeros(1)])
    start = noise * (1 + levels[0] ** 2).sqrt().float()
    with torch.no_grad():
        return SOLVERS[solver](
            lambda x, sigma: denoiser(x, sigma).clamp(-1, 1), start, grid, noise=more
        )


def test_a_model_without_its_scheduler_needs_a_schedule(
    pipeline: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["--schedule", "ddpm-cosine", "--preconditioning", "ddpm-v"]
    alone = shutil.copytree(pipeline / "unet", tmp_path / "alone")
    out = tmp_path / "model.safetensors"
    assert main(["convert", str(alone), "--out", str(out)]) == 2
    assert "give --schedule, one of vp, edm" in capsys.readouterr().err
    assert main(["convert", str(alone), "--out", str(out), *given]) == 0
    config = load_model(out).config
    assert (config.schedule, config.preconditioning) == ("ddpm-cosine", "ddpm-v")
    beside = tmp_path / "beside.safetensors"
    assert main(["convert", str(pipeline / "unet"), "--out", str(beside)]) == 0
    assert load_model(beside).config.schedule == "ddpm-linear"


@pytest.mark.slow
def test_training_continues_from_a_converted_model(
    pipeline: Path, stages: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    begun, run = tmp_path / "begun.safetensors", tmp_path / "run"
    convert = ["convert", str(pipeline), "--out", str(begun), "--stages", str(stages)]
    assert main([*convert, "--decoder-widths", "8", "8", "4"]) == 0
    few = ["--images", "8", "--batch-size", "8", "--record-images", "8", "--no-flip"]
    train = ["train", "digits", "--data", "digits", "--out", str(run), *few]
    assert main([*train, "--keep-network"]) == 2
    assert "takes network and stages of --init" in capsys.readouterr().err
    still = ["--learning-rate", "1e-12", "--init", str(begun)]
    assert main([*train, *still]) == 2
    assert "or schedule differ" in capsys.readouterr().err
    assert main([*train, *still, "--keep-network"]) == 0
    first, second = load_model(begun), load_model(run / "model.safetensors")
    assert replace(second.config, sigma_data=0.5) == first.config
    for name, tensor in first.denoiser.network.state_dict().items():
        trained = second.denoiser.network.state_dict()[name]
        torch.testing.assert_close(trained, tensor, rtol=0, atol=1e-6)


def test_a_hub_id_is_downloaded(
    pipeline: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def download(name: str, allow_patterns: list[str]) -> str:
        asked.append((name, allow_patterns))
        return str(pipeline)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    monkeypatch.chdir(tmp_path)
    assert main(["convert", "owner/name", "--out", "model.safetensors"]) == 0
    ((name, patterns),) = asked
    assert name == "owner/name"
    assert "unet/diffusion_pytorch_model.safetensors" in patterns


def test_what_the_hub_does_not_have_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def download(name: str, allow_patterns: list[str]) -> str:
        raise OSError("no such repository\nand more")

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    assert main(["convert", "owner/name", "--out", str(tmp_path / "model.safetensors")]) == 2
    said = capsys.readouterr().err
    assert "no folder owner/name" in said
    assert said.endswith("no such repository.\n")


def test_earlier_files_have_other_names_of_attention_and_pickled_weights(pipeline: Path) -> None:
    folder = pipeline / "unet"
    file = folder / "diffusion_pytorch_model.safetensors"
    now = load_file(file)
    earlier = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    then = {}
    for name, tensor in now.items():
        place, _, kind = name.rpartition(".")
        inner = next((new for new in earlier if place.endswith(f".{new}")), None)
        old = name if inner is None else f"{place.removesuffix(inner)}{earlier[inner]}.{kind}"
        then[old] = tensor
    assert then.keys() != now.keys()
    save_file(then, file)
    assert read_unet(str(pipeline)).weights.keys() == now.keys()
    file.unlink()
    torch.save(then, folder / "diffusion_pytorch_model.bin")
    weights = read_unet(str(pipeline)).weights
    assert all(torch.equal(weights[name], tensor) for name, tensor in now.items())


def test_latents_are_warned_of(
    pipeline: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    index = pipeline / "model_index.json"
    index.write_text(json.dumps({**json.loads(index.read_text()), "vae": ["diffusers", "VQModel"]}))
    assert main(["convert", str(pipeline), "--out", str(tmp_path / "model.safetensors")]) == 0
    assert "works on latents; --autoencoder" in capsys.readouterr().err
