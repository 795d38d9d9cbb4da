"""What decoding loses."""

import torch
from torch import Tensor

from multistage_diffusion.data.images import Images
from multistage_diffusion.latents.autoencoder import Autoencoder, decode, encode

__all__ = ["image_psnr", "reconstruction_psnr"]

MOST_IMAGES = 256


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
    count = min(MOST_IMAGES, len(images))
    rows = torch.linspace(0, len(images) - 1, count, dtype=torch.float64).round().long()
    original = images.pixels[rows]
    latents = encode(autoencoder, original.to(device)).mean
    values = image_psnr(decode(autoencoder, latents).cpu(), original)
    exact = values.isinf()
    return None if exact.all() else float(values[~exact].mean())
