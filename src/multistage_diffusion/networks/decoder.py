"""The decoder of a U-Net; a network has one per stage."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from multistage_diffusion.networks.blocks import ResidualBlock, bottom_blocks, resampling_block
from multistage_diffusion.networks.checkpointing import Checkpointed
from multistage_diffusion.networks.config import NetworkConfig
from multistage_diffusion.networks.encoder import Encoder, Features
from multistage_diffusion.networks.layers import conv, group_norm
from multistage_diffusion.networks.pyramids import output_steps

__all__ = ["Decoder", "decoder_attention"]


class Decoder(Checkpointed):
    """The upward half of a U-Net. Its width may differ from that of the encoder.

    Args:
        shape: channels, height, width of an image.
        width: channels of the top level.
        encoder: the encoder whose features it receives.
        config: depth and style.
        attention: sizes of feature maps with attention, see ``decoder_attention``.
    """

    def __init__(
        self,
        shape: Sequence[int],
        width: int,
        encoder: Encoder,
        config: NetworkConfig,
        attention: Sequence[int],
    ) -> None:
        super().__init__()
        embedding = 4 * encoder.width
        skips = list(encoder.skip_channels)
        channels = skips[-1]
        self.blocks_per_level = config.blocks + 1
        self.bottom = nn.ModuleList()
        if config.bottom == "decoder":
            self.bottom = bottom_blocks(channels, embedding, config)
        self.blocks = nn.ModuleList()
        widths = [multiple * width for multiple in config.channel_mult]
        for level, outputs in reversed(list(enumerate(widths))):
            attends = _attends(config, max(shape[1:]) >> level in attention)
            for attention_here in attends:
                inputs = channels + skips.pop()
                self.blocks.append(
                    ResidualBlock(inputs, outputs, embedding, config, attention_here)
                )
                channels = outputs
            if level > 0:
                self.blocks.append(resampling_block(channels, embedding, config, "up"))
        self.adds_pyramid = config.output_pyramid == "skip"
        self.pyramid = output_steps(shape[0], widths, config)
        self.norm = group_norm(channels, config)
        self.out = conv(channels, shape[0], 3, gain=1e-5)

    def ends_level(self, index: int) -> bool:
        """Whether the block with this index is the last one before an up-sampling or the output."""
        return (index + 1) % (self.blocks_per_level + 1) == self.blocks_per_level

    def forward(self, features: Features) -> Tensor:
        """Decodes the features of the samples of one stage to images, ``[B, C, H, W]``."""
        emb = features.embedding
        context = features.context
        skips = list(features.skips)
        x = features.deepest
        for block in self.bottom:
            x = self.run(block, x, emb, context)
        pyramid = None
        steps = iter(self.pyramid)
        for index, block in enumerate(self.blocks):
            inputs = x if block.how == "up" else torch.cat([x, skips.pop()], dim=1)
            x = self.run(block, inputs, emb, context)
            if len(self.pyramid) and self.ends_level(index):
                x, pyramid = next(steps)(x, pyramid)
        image = self.out(F.silu(self.norm(x)))
        return image + pyramid if self.adds_pyramid and pyramid is not None else image


def _attends(config: NetworkConfig, attention: bool) -> list[bool]:
    """Which blocks of a level have attention, if that level has any."""
    last_only = config.decoder_attention == "last"
    return [attention and not last_only] * config.blocks + [attention]


def decoder_attention(shape: Sequence[int], config: NetworkConfig, stage: int) -> tuple[int, ...]:
    """Sizes of feature maps at which the decoder of a stage has attention.

    In the authors' latent diffusion, the down-sampling factor carries over from one decoder to the
    next and is halved, rounded down, at every up-sampling. The second decoder therefore begins with
    factor 1: it has attention only if the configuration asks for it at full size, and then at its
    lowest level. After that the factor is 0, and later decoders have no attention.

    Args:
        shape: channels, height, width of an image.
        config: the network's settings.
        stage: the stage; 0 is the one of smallest noise.
    """
    levels = len(config.channel_mult)
    if config.decoder_attention != "first-decoder" or stage == 0 or levels == 1:
        return config.attention_resolutions
    size = max(shape[1:])
    asked = stage == 1 and size in config.attention_resolutions
    return (size >> (levels - 1),) if asked else ()
