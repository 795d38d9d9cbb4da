"""Tiny autoencoders."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch


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
