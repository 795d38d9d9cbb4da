"""What an autoencoder loses: images against their own reconstructions."""

import torch
from torch import Tensor

from multistage_diffusion.evaluation.estimate import Estimate, mean_of_values
from multistage_diffusion.latents.autoencoder import Autoencoder, decode, encode
from multistage_diffusion.latents.quality import image_psnr

__all__ = ["psnr", "reconstruct"]

HIGHEST = 100.0  # dB, for images that come back as they were


def reconstruct(autoencoder: Autoencoder, images: Tensor) -> Tensor:
    """Images decoded from the means of their latents, on the accelerator if there is one.

    Args:
        autoencoder: for images of this shape.
        images: uint8 ``[N, C, H, W]``.

    Returns:
        As many, uint8, on the CPU.
    """
    device = torch.accelerator.current_accelerator() or torch.device("cpu")
    moved = autoencoder.to(device)
    return decode(moved, encode(moved, images.to(device)).mean).cpu()


def psnr(reconstructed: Tensor, images: Tensor) -> Estimate:
    """Mean over images of the peak signal-to-noise ratio, dB, at most 100 for each.

    Args:
        reconstructed, images: uint8 ``[N, C, H, W]``.
    """
    return mean_of_values(image_psnr(reconstructed, images).clamp(max=HIGHEST))
