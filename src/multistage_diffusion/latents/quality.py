"""How much images change when they are encoded and decoded."""

import torch
from torch import Tensor

from multistage_diffusion.data.images import Images, evenly_spaced
from multistage_diffusion.latents.autoencoder import Autoencoder, decode, encode

__all__ = ["HIGHEST_PSNR", "image_psnr", "reconstruct", "reconstruction_psnr"]

MOST_IMAGES = 256
HIGHEST_PSNR = 100.0
"""In dB, for images that do not change, where a mean over images is taken."""


@torch.no_grad()
def reconstruct(
    autoencoder: Autoencoder, pixels: Tensor, device: torch.device | str = "cpu"
) -> Tensor:
    """Images decoded from the means of their latents: uint8 ``[N, C, H, W]``, on the CPU.

    Args:
        autoencoder: on the device.
        pixels: uint8 ``[N, C, H, W]``.
        device: where it is computed.
    """
    return decode(autoencoder, encode(autoencoder, pixels.to(device)).mean).cpu()


def image_psnr(reconstructed: Tensor, original: Tensor) -> Tensor:
    """Peak signal-to-noise ratio of each image, dB, float64 ``[N]``; infinite for equal ones.

    Args:
        reconstructed, original: uint8 ``[N, C, H, W]``.
    """
    difference = reconstructed.double() - original.double()
    return 10 * torch.log10(255**2 / difference.square().flatten(1).mean(1))


def reconstruction_psnr(
    autoencoder: Autoencoder, images: Images, device: torch.device | str = "cpu"
) -> float | None:
    """Mean over images, evenly spaced in the data set, of their peak signal-to-noise ratios, dB.

    None if no image changes.
    """
    original = images.pixels[evenly_spaced(len(images), MOST_IMAGES)]
    values = image_psnr(reconstruct(autoencoder, original, device), original)
    exact = values.isinf()
    return None if exact.all() else float(values[~exact].mean())
