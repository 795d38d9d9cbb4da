"""What tests of latent models are made of."""

from typing import Any

import pytest

from multistage_diffusion.space import AutoencoderInfo, LatentConfig


def make_vq() -> Any:
    """Diffusers' VQModel with 4 channels and factor 2."""
    diffusers = pytest.importorskip("diffusers")
    return diffusers.VQModel(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 8),
        norm_num_groups=4,
        latent_channels=4,
        num_vq_embeddings=16,
    )


def on_four_channels(info: AutoencoderInfo) -> LatentConfig:
    """Latents of images of 8x8 that an autoencoder of 4 channels makes."""
    return LatentConfig(
        autoencoder=info,
        image_shape=(3, 8, 8),
        shift=(0.5, 0.0, 0.1, 0.2),
        scale=(2.0, 0.3, 1.0, 1.5),
        deviation=0.5,
    )
