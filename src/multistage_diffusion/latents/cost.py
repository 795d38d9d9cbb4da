"""What an autoencoder costs."""

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from multistage_diffusion.latents.find import load_autoencoder
from multistage_diffusion.space import LatentConfig

__all__ = ["decoding_macs"]


@torch.no_grad()
def decoding_macs(config: LatentConfig) -> int:
    """Multiply-accumulates that turn the latents of one image into pixels, by torch's counter.

    Raises:
        BadInput: if the autoencoder has changed or is no longer there.
    """
    autoencoder, factor = load_autoencoder(config.autoencoder), config.autoencoder.factor
    _, height, width = config.image_shape
    latents = torch.zeros(1, config.autoencoder.channels, height // factor, width // factor)
    # the counter sees the products of attention only where no fused kernel computes them
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        autoencoder.decode(latents)
    return int(counter.get_total_flops()) // 2
