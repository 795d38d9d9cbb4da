"""From a latent model's samples to images, as one more file of an export."""

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from multistage_diffusion.latents import AutoencoderSpace, load_autoencoder
from multistage_diffusion.latents.pretrained import NetworkAutoencoder
from multistage_diffusion.model import ModelConfig
from multistage_diffusion.space import LatentConfig

__all__ = ["LARGEST_BATCH", "DecodingPath", "trace_decoding"]

LARGEST_BATCH = 63  # diffusers' upsampling takes another path from 64 images


class DecodingPath(nn.Module):
    """The decoder of an autoencoder, which undoes the normalisation of its latents first.

    Args:
        config: autoencoder and normalisation.

    Raises:
        BadInput: if the autoencoder has changed or is no longer there.
    """

    def __init__(self, config: LatentConfig) -> None:
        super().__init__()
        self.autoencoder = load_autoencoder(config.autoencoder)
        if isinstance(self.autoencoder, NetworkAutoencoder):
            self.weights = self.autoencoder.module  # the exporter looks for them here
        self.space = AutoencoderSpace(config)

    def forward(self, latents: Tensor) -> Tensor:
        """Images, about -1 to 1, of the model's samples, float32 ``[B, c, h, w]``."""
        return self.autoencoder.decode(self.space.raw(latents))


def trace_decoding(config: ModelConfig) -> ExportedProgram:
    """The graph for 1 to ``LARGEST_BATCH`` latents of the model's size."""
    assert config.latents is not None
    example = {"latents": torch.zeros(2, *config.shape)}
    with torch.no_grad():
        return torch.export.export(
            DecodingPath(config.latents),
            (),
            kwargs=example,
            dynamic_shapes={"latents": {0: Dim("batch", min=1, max=LARGEST_BATCH)}},
            strict=False,
        )
