"""Tiny images, networks and runs for several tests. They are the same in every test session."""

import os
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest
import torch
from PIL import Image

from multistage_diffusion.config import replace_settings
from multistage_diffusion.data import Images
from multistage_diffusion.denoiser import NetworkDenoiser
from multistage_diffusion.model import ModelConfig, build_denoiser
from multistage_diffusion.networks.config import NetworkConfig
from multistage_diffusion.training.config import DataInfo, RunConfig, TrainingConfig

TINY = NetworkConfig(
    encoder_widths=(8,),
    decoder_widths=(12, 8, 4),
    channel_mult=(1, 2),
    blocks=1,
    attention_resolutions=(4,),
    dropout=0.1,
)
MODEL = ModelConfig(
    shape=(1, 8, 8),
    classes=0,
    boundaries=(0.3, 2.5),
    schedule="edm",
    preconditioning="edm",
    sigma_data=0.5,
    network=TINY,
)
TRAINING = replace_settings(
    TrainingConfig(),
    images=24,
    batch_size=8,
    learning_rate=1e-2,
    warmup_images=16,
    flip=True,
    record_images=8,
    checkpoint_images=16,
    seed=3,
)


@pytest.fixture(autouse=True)
def _deterministic() -> None:
    torch.manual_seed(0)
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))


@pytest.fixture(autouse=True)
def _own_caches(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests neither read nor fill the caches of the user."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture(scope="session")
def digits() -> Images:
    from multistage_diffusion.data import load

    return load("digits")


@pytest.fixture(scope="session")
def few_digits(digits: Images) -> Images:
    """50 digits: five of each class."""
    assert digits.labels is not None
    chosen = torch.cat([torch.nonzero(digits.labels == label)[:5, 0] for label in range(10)])
    return Images(digits.pixels[chosen], digits.labels[chosen], digits.classes, "digits")


@pytest.fixture(scope="session")
def colours() -> Images:
    """40 smooth coloured images of 8x8 pixels in two classes."""
    source = torch.Generator().manual_seed(5)
    coarse = torch.rand(40, 3, 3, 3, generator=source)
    smooth = torch.nn.functional.interpolate(coarse, (8, 8), mode="bilinear", align_corners=True)
    labels = torch.arange(40) % 2
    return Images((smooth * 255).round().byte(), labels, ("even", "odd"), "colours")


@pytest.fixture
def model_config() -> ModelConfig:
    return MODEL


@pytest.fixture
def denoiser() -> NetworkDenoiser:
    """A tiny three-stage denoiser without parameters that are (nearly) zero, so that all matter."""
    return disturb(build_denoiser(MODEL)).eval()


Module = TypeVar("Module", bound=torch.nn.Module)


def disturb(module: Module) -> Module:
    """Adds noise to every parameter."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    return module


@pytest.fixture
def run_config(few_digits: Images) -> RunConfig:
    return run_on(few_digits)


def run_on(data: Images, **training: object) -> RunConfig:
    info = DataInfo(path=data.source, fingerprint=data.fingerprint, images=len(data))
    return RunConfig(model=MODEL, training=replace_settings(TRAINING, **training), data=info)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Twelve colour images of 8x8 in two labelled subfolders."""
    return write_images(tmp_path / "images")


def write_images(folder: Path) -> Path:
    """The images of ``folder``."""
    rng = np.random.default_rng(0)
    for index in range(12):
        target = folder / ("cat" if index % 2 else "dog")
        target.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(
            target / f"{index}.png"
        )
    return folder
