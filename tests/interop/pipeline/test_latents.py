"""Pipelines of latent models carry their autoencoder."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from multistage_diffusion.data import Images
from multistage_diffusion.latents import find_autoencoder, load_autoencoder
from multistage_diffusion.model import Model, build_denoiser
from multistage_diffusion.sampling import SampleOptions, generate, noise
from tests.conftest import disturb
from tests.latents.models import make_vq, on_four_channels

pytest.importorskip("diffusers")

from multistage_diffusion.interop.pipeline import MultistagePipeline
from multistage_diffusion.interop.pipeline.export import write_pipeline
from tests.interop.pipeline.test_pipeline import GUIDABLE, quiet

START = noise(3, range(2), (4, 4, 4))


def latent_model(name: str, images: Images) -> Model:
    torch.manual_seed(0)
    latents = on_four_channels(find_autoencoder(name, images).info)
    config = replace(GUIDABLE, shape=(4, 4, 4), latents=latents)
    return Model(disturb(build_denoiser(config).eval()), config, 0)


def drawn(pipe: Any) -> torch.Tensor:
    images: torch.Tensor = pipe(latents=START, num_inference_steps=4, output_type="pt").images
    return (images * 255).round().to(torch.uint8)


def expected(model: Model) -> torch.Tensor:
    return generate(model, SampleOptions(steps=4, seed=3), range(2))


@pytest.fixture
def saved(colours: Images, tmp_path: Path) -> tuple[Model, Path]:
    """A model on latents of diffusers' VQModel, and its pipeline."""
    torch.manual_seed(0)
    make_vq().save_pretrained(tmp_path / "vq")
    model = latent_model(str(tmp_path / "vq"), colours)
    write_pipeline(model, tmp_path / "pipeline")
    return model, tmp_path / "pipeline"


def test_its_pictures_need_nothing_but_its_folder(saved: tuple[Model, Path]) -> None:
    model, folder = saved
    images = expected(model)
    shutil.rmtree(folder.parent / "vq")
    load_autoencoder.cache_clear()
    pipe = quiet(MultistagePipeline.from_pretrained(folder))
    assert type(pipe.vae).__name__ == "VQModel"
    assert torch.equal(drawn(pipe), images)


def test_its_autoencoder_may_have_another_dtype(saved: tuple[Model, Path]) -> None:
    model, folder = saved
    pipe = quiet(MultistagePipeline.from_pretrained(folder))
    pipe.vae.to(torch.bfloat16)
    difference = drawn(pipe).int() - expected(model).int()
    assert 0 < difference.abs().float().mean() < 8  # bf16 chooses another code here and there


def test_linear_patches_lie_in_the_model_itself(colours: Images, tmp_path: Path) -> None:
    model = latent_model("pca-f2c4", colours)
    write_pipeline(model, tmp_path / "pipeline")
    pipe = quiet(MultistagePipeline.from_pretrained(tmp_path / "pipeline"))
    assert pipe.vae is None
    assert torch.equal(drawn(pipe), expected(model))
