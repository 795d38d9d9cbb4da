"""The encoder of a U-Net and the features it gives to the decoders."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from multistage_diffusion.conditions import NO_CONDITIONS, Conditions
from multistage_diffusion.networks.blocks import ResidualBlock, bottom_blocks, resampling_block
from multistage_diffusion.networks.checkpointing import Checkpointed
from multistage_diffusion.networks.config import NetworkConfig
from multistage_diffusion.networks.embedding import Embedding
from multistage_diffusion.networks.layers import conv
from multistage_diffusion.networks.pyramids import InputStep

__all__ = ["Encoder", "Features"]


@dataclass(frozen=True)
class Features:
    """What a decoder receives from an encoder."""

    deepest: Tensor
    """Features at the lowest resolution, ``[B, C, H, W]``."""
    skips: tuple[Tensor, ...]
    """Outputs of the stem and of each block, highest resolution first."""
    embedding: Tensor
    """Embedding of noise level and labels, ``[B, 4 * width]``."""
    context: Tensor | None = None
    """``[B, tokens, context_channels]``."""

    def split(self, counts: Sequence[int]) -> list["Features"]:
        """Views of consecutive parts of the batch with these numbers of samples."""
        sizes = list(counts)
        deepest = self.deepest.split(sizes)
        skips = zip(*(skip.split(sizes) for skip in self.skips), strict=True)
        embeddings = self.embedding.split(sizes)
        contexts = [None] * len(sizes) if self.context is None else self.context.split(sizes)
        parts = zip(deepest, skips, embeddings, contexts, strict=True)
        return [Features(*part) for part in parts]


class Encoder(Checkpointed):
    """The downward half of a U-Net, with the embedding of noise level and labels.

    Args:
        shape: channels, height, width of an image; height and width must be divisible by
            ``2 ** (levels - 1)``.
        width: channels of the top level.
        classes: number of classes, 0 for none.
        config: depth and style.
    """

    def __init__(
        self, shape: Sequence[int], width: int, classes: int, config: NetworkConfig
    ) -> None:
        super().__init__()
        self.width = width
        self.embedding = Embedding(width, classes, config)
        self.stem = conv(shape[0], width, 3)
        self.blocks = nn.ModuleList()
        self.pyramid = nn.ModuleList()
        self.pyramid_channels = shape[0]
        self.skip_channels = [width]
        for level, multiple in enumerate(config.channel_mult):
            if level > 0:
                self._add_downsampling(config)
            attention = max(shape[1:]) >> level in config.attention_resolutions
            for _ in range(config.blocks):
                self._add_block(multiple * width, config, attention)
        self.bottom = nn.ModuleList()
        if config.bottom == "encoder":
            self.bottom = bottom_blocks(self.skip_channels[-1], 4 * width, config)

    def _add_downsampling(self, config: NetworkConfig) -> None:
        """Adds the block between two levels, and a step of the input pyramid if there is one."""
        channels = self.skip_channels[-1]
        self.blocks.append(resampling_block(channels, 4 * self.width, config, "down"))
        self.skip_channels.append(channels)
        if config.input_pyramid != "none":
            self.pyramid.append(InputStep(self.pyramid_channels, channels, config))
        if config.input_pyramid == "residual":
            self.pyramid_channels = channels

    def _add_block(self, outputs: int, config: NetworkConfig, attention: bool) -> None:
        inputs = self.skip_channels[-1]
        block = ResidualBlock(inputs, outputs, 4 * self.width, config, attention)
        self.blocks.append(block)
        self.skip_channels.append(outputs)

    def forward(
        self, x: Tensor, c_noise: Tensor, conditions: Conditions = NO_CONDITIONS
    ) -> Features:
        """Encodes images.

        Args:
            x: ``[B, C, H, W]``.
            c_noise: noise labels, ``[B]``.
            conditions: of the B samples.
        """
        context = conditions.context
        emb = self.embedding(c_noise, conditions.labels, conditions.augment)
        skips = [self.stem(x)]
        pyramid = x
        steps = iter(self.pyramid)
        for block in self.blocks:
            h = self.run(block, skips[-1], emb, context)
            if block.how == "down" and len(self.pyramid):
                h, pyramid = next(steps)(h, pyramid)
            skips.append(h)
        deepest = skips[-1]
        for block in self.bottom:
            deepest = self.run(block, deepest, emb, context)
        return Features(deepest, tuple(skips), emb, context)

    def renew(
        self, features: Features, x: Tensor, c_noise: Tensor, conditions: Conditions = NO_CONDITIONS
    ) -> Features:
        """Features of an earlier call with the stem and the embedding of this one.

        The blocks, which are nearly all of the cost, are not evaluated. The arguments are those of
        ``forward``.
        """
        emb = self.embedding(c_noise, conditions.labels, conditions.augment)
        skips = (self.stem(x), *features.skips[1:])
        return Features(features.deepest, skips, emb, conditions.context)
