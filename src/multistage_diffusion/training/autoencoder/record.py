"""Records of an autoencoder's training, and what is measured for them."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from multistage_diffusion.errors import BadInput
from multistage_diffusion.latents.autoencoder import Autoencoder
from multistage_diffusion.latents.pretrained import wrap_diffusers
from multistage_diffusion.latents.quality import HIGHEST_PSNR, image_psnr, reconstruct

__all__ = ["AutoencoderRecord", "Quality", "measure_quality"]


@dataclass(frozen=True, kw_only=True)
class AutoencoderRecord:
    """The steps since the last record, and the quality of the averaged weights."""

    images: int
    error: float
    """Mean absolute error of a pixel in training, in the range -1 to 1; of rank 0's images."""
    penalty: float
    """Weighted KL divergence or codebook loss."""
    psnr: float
    """Of held-out images, dB."""
    ssim: float
    """Of held-out images."""
    codes: float | None
    """Share of the codebook that was used since the last record; None without one."""
    images_per_second: float
    skipped: int
    """Steps without a finite gradient."""


@dataclass(frozen=True)
class Quality:
    """How well held-out images are reconstructed."""

    psnr: float
    """Mean over images of the peak signal-to-noise ratio, dB."""
    ssim: float
    """Structural similarity."""
    reconstructed: Tensor
    """uint8 ``[N, C, H, W]``."""


def measure_quality(network: nn.Module, pixels: Tensor, device: torch.device) -> Quality:
    """Reconstructs images with the means of their latents.

    Args:
        network: of ``build_network``.
        pixels: uint8 ``[N, C, H, W]``.
        device: where the network is.
    """
    training = network.training
    trained = {name: p.requires_grad for name, p in network.named_parameters()}
    wrapped: Autoencoder = wrap_diffusers(network, "")
    reconstructed = reconstruct(wrapped, pixels, device)
    network.train(training)
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(trained[name])
    psnr = image_psnr(reconstructed, pixels).clamp(max=HIGHEST_PSNR).mean()
    return Quality(float(psnr), _ssim(reconstructed, pixels), reconstructed)


def _ssim(reconstructed: Tensor, pixels: Tensor) -> float:
    try:
        from torchmetrics.functional.image import structural_similarity_index_measure
    except ImportError as error:
        raise BadInput(
            "Training an autoencoder needs torchmetrics: pip install "
            "'multistage-diffusion[latent]'."
        ) from error
    value = structural_similarity_index_measure(
        reconstructed.float(), pixels.float(), data_range=255.0
    )
    assert isinstance(value, Tensor)
    return float(value)
