"""Tiny autoencoders and coloured images."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from multistage_diffusion.data import Images


@pytest.fixture(scope="session")
def colours() -> Images:
    """40 smooth coloured images of 8x8 pixels in two classes."""
    source = torch.Generator().manual_seed(5)
    coarse = torch.rand(40, 3, 3, 3, generator=source)
    smooth = torch.nn.functional.interpolate(coarse, (8, 8), mode="bilinear", align_corners=True)
    labels = torch.arange(40) % 2
    return Images((smooth * 255).round().byte(), labels, ("even", "odd"), "colours")


@pytest.fixture(scope="session")
def make_kl() -> Callable[[int], "torch.nn.Module"]:
    """Diffusers' AutoencoderKL with 4 channels and factor 2, of the weights of a seed."""

    def make(seed: int) -> torch.nn.Module:
        diffusers = pytest.importorskip("diffusers")
        torch.manual_seed(seed)
        module: torch.nn.Module = diffusers.AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            block_out_channels=(8, 8),
            layers_per_block=1,
            norm_num_groups=4,
            latent_channels=4,
            sample_size=8,
        )
        return module

    return make


@pytest.fixture
def kl_folder(tmp_path: Path, make_kl: Callable[[int], torch.nn.Module]) -> Path:
    """A folder of such an autoencoder."""
    folder = tmp_path / "kl"
    make_kl(0).save_pretrained(folder)  # type: ignore[operator]
    return folder
