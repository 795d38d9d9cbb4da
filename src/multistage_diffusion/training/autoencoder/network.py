"""Autoencoders of diffusers, built from settings, and their outputs in training."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from multistage_diffusion.latents.pretrained import diffusers_library
from multistage_diffusion.training.autoencoder.config import LossSettings, NetworkSettings

__all__ = ["Reconstruction", "build_network", "reconstruct"]

GROUPS = (32, 16, 8, 4, 2, 1)


@dataclass(frozen=True)
class Reconstruction:
    """The outputs of a network for a batch, in training."""

    images: Tensor
    """Decoded images, ``[B, C, H, W]``."""
    penalty: Tensor
    """Weighted KL divergence or codebook loss."""
    codes: Tensor | None
    """Indices of the codes that were used."""


def build_network(settings: NetworkSettings, shape: tuple[int, int, int]) -> nn.Module:
    """A network with new random weights, drawn from torch's global generator.

    Raises:
        BadInput: if diffusers is not installed.
    """
    library = diffusers_library()
    levels = len(settings.widths)
    shared: dict[str, Any] = {
        "in_channels": shape[0],
        "out_channels": shape[0],
        "down_block_types": ("DownEncoderBlock2D",) * levels,
        "up_block_types": ("UpDecoderBlock2D",) * levels,
        "block_out_channels": settings.widths,
        "layers_per_block": settings.blocks,
        "latent_channels": settings.latent_channels,
        "norm_num_groups": next(g for g in GROUPS if not any(w % g for w in settings.widths)),
        "sample_size": max(shape[1:]),
    }
    if settings.kind == "kl":
        network: nn.Module = library.AutoencoderKL(**shared)
    else:
        network = library.VQModel(num_vq_embeddings=settings.codes, **shared)
    return network


def reconstruct(network: Any, images: Tensor, kind: str, loss: LossSettings) -> Reconstruction:
    """Encodes, samples or quantises, and decodes.

    Args:
        network: of ``build_network``.
        images: -1 to 1, ``[B, C, H, W]``.
        kind: of the network.
        loss: weights of the penalties.
    """
    if kind == "kl":
        posterior = network.encode(images).latent_dist
        decoded = network.decode(posterior.sample()).sample
        divergence = posterior.kl().float().mean() / images[0].numel()
        return Reconstruction(decoded.float(), loss.kl_weight * divergence, None)
    latents = network.encode(images).latents
    with torch.autocast(images.device.type, enabled=False):  # distances cancel in bfloat16
        quantised, distance, (_, _, codes) = network.quantize(latents.float())
    # what ``decode`` does with latents that are quantised already
    decoded = network.decode(quantised, force_not_quantize=True).sample
    return Reconstruction(decoded.float(), loss.codebook_weight * distance, codes)
