"""The U-Net with one encoder and one decoder per stage (paper, section 4.2).

The encoder sees every noise level; its features and skips are handed to the decoder of each sample's stage. Unified,
multistage and separate networks are settings of the one class:

- unified: one encoder, one decoder;
- multistage: one encoder, a decoder of its own width for each stage;
- separate: an encoder and a decoder for each stage.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from multistage_diffusion.conditions import UNCONDITIONAL, Conditions
from multistage_diffusion.errors import BadInput
from multistage_diffusion.networks.blocks import Resample, ResamplingConv, ResidualBlock
from multistage_diffusion.networks.config import NetworkConfig
from multistage_diffusion.networks.embedding import Embedding
from multistage_diffusion.networks.layers import conv, group_norm
from multistage_diffusion.networks.pyramids import InputStep, output_steps

__all__ = ["Decoder", "Encoder", "Features", "StagedUNet"]


@dataclass(frozen=True)
class Features:
    """What an encoder hands to a decoder: the deepest features, the skips from top to bottom, the embedding, the context."""

    deepest: Tensor
    skips: tuple[Tensor, ...]
    embedding: Tensor
    context: Tensor | None = None

    def split(self, counts: Sequence[int]) -> list["Features"]:
        """Views of consecutive parts of the batch."""
        sizes = list(counts)
        contexts = [None] * len(sizes) if self.context is None else self.context.split(sizes)
        tensors = zip(
            contexts,
            *(t.split(sizes) for t in (self.deepest, self.embedding, *self.skips)),
            strict=True,
        )
        return [
            Features(deepest, tuple(skips), embedding, context)
            for context, deepest, embedding, *skips in tensors
        ]


def _bottom(channels: int, embedding: int, config: NetworkConfig) -> nn.ModuleList:
    """The two blocks at the lowest resolution."""
    return nn.ModuleList(
        ResidualBlock(channels, channels, embedding, config, attention)
        for attention in (True, False)
    )


def _resampling_block(
    channels: int, embedding: int, config: NetworkConfig, how: Resample
) -> nn.Module:
    if config.resampling == "conv":
        return ResamplingConv(channels, how)
    return ResidualBlock(channels, channels, embedding, config, how=how)


class Encoder(nn.Module):
    """The downward half, with the embedding of noise level and label.

    Args:
        shape: channels, height, width of an image; height and width must be divisible by ``2 ** (levels - 1)``.
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
        self.blocks, self.pyramid = nn.ModuleList(), nn.ModuleList()
        channels, image_channels = width, shape[0]
        self.skip_channels = [width]
        for level, mult in enumerate(config.channel_mult):
            attention = max(shape[1:]) >> level in config.attention_resolutions
            if level > 0:
                self.blocks.append(_resampling_block(channels, 4 * width, config, "down"))
                self.skip_channels.append(channels)
                if config.input_pyramid != "none":
                    self.pyramid.append(InputStep(image_channels, channels, config))
                    image_channels = channels if config.input_pyramid == "residual" else shape[0]
            for _ in range(config.blocks):
                self.blocks.append(
                    ResidualBlock(channels, mult * width, 4 * width, config, attention)
                )
                channels = mult * width
                self.skip_channels.append(channels)
        self.bottom = (
            _bottom(channels, 4 * width, config) if config.bottom == "encoder" else nn.ModuleList()
        )

    def forward(
        self, x: Tensor, c_noise: Tensor, conditions: Conditions = UNCONDITIONAL
    ) -> Features:
        emb = self.embedding(c_noise, conditions.labels, conditions.augment)
        context = conditions.context
        skips, steps, pyramid = [self.stem(x)], iter(self.pyramid), x
        for block in self.blocks:
            h = block(skips[-1], emb, context)
            if block.how == "down" and len(self.pyramid):
                h, pyramid = next(steps)(h, pyramid)
            skips.append(h)
        deepest = skips[-1]
        for block in self.bottom:
            deepest = block(deepest, emb, context)
        return Features(deepest, tuple(skips), emb, context)


class Decoder(nn.Module):
    """The upward half. Its width is its own; what it receives has the encoder's.

    Args:
        shape: channels, height, width of an image.
        width: channels of the top level.
        encoder: whose features it receives.
        config: depth and style.
        attention: sizes of feature maps with attention.
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
        skips, channels = list(encoder.skip_channels), encoder.skip_channels[-1]
        self.in_level = config.blocks + 1
        self.bottom = (
            _bottom(channels, embedding, config) if config.bottom == "decoder" else nn.ModuleList()
        )
        self.blocks = nn.ModuleList()
        for level, mult in reversed(list(enumerate(config.channel_mult))):
            here = max(shape[1:]) >> level in attention
            for index in range(self.in_level):
                attends = here and (config.decoder_attention != "last" or index == config.blocks)
                self.blocks.append(
                    ResidualBlock(channels + skips.pop(), mult * width, embedding, config, attends)
                )
                channels = mult * width
            if level > 0:
                self.blocks.append(_resampling_block(channels, embedding, config, "up"))
        self.adds_up = config.output_pyramid == "skip"
        self.pyramid = output_steps(
            shape[0], [mult * width for mult in config.channel_mult], config
        )
        self.norm = group_norm(channels, config)
        self.out = conv(channels, shape[0], 3, gain=1e-5)

    def forward(self, features: Features) -> Tensor:
        x, emb, skips, context = (
            features.deepest,
            features.embedding,
            list(features.skips),
            features.context,
        )
        for block in self.bottom:
            x = block(x, emb, context)
        pyramid, steps = None, iter(self.pyramid)
        for index, block in enumerate(self.blocks, 1):
            x = block(x if block.how == "up" else torch.cat([x, skips.pop()], dim=1), emb, context)
            if index % (self.in_level + 1) == self.in_level and len(
                self.pyramid
            ):  # the last block of a level
                x, pyramid = next(steps)(x, pyramid)
        image = self.out(F.silu(self.norm(x)))
        return image + pyramid if self.adds_up and pyramid is not None else image


class StagedUNet(nn.Module):
    """A U-Net whose decoder, and encoder if there are several, is chosen for each sample by its stage.

    Args:
        shape: channels, height, width of an image.
        classes: number of classes, 0 for an unconditional network.
        config: widths and depth.

    Raises:
        BadInput: if the numbers of encoders and decoders do not fit, or the size is not divisible as the levels need.
    """

    def __init__(self, shape: Sequence[int], classes: int, config: NetworkConfig) -> None:
        super().__init__()
        _check(shape, config)
        encoders = [Encoder(shape, width, classes, config) for width in config.encoder_widths]
        widths = config.decoder_widths
        self.encoders = nn.ModuleList(encoders)
        owners = encoders if len(encoders) > 1 else encoders * len(widths)
        self.decoders = nn.ModuleList(
            Decoder(shape, width, owner, config, _attention(shape, config, stage))
            for stage, (width, owner) in enumerate(zip(widths, owners, strict=True))
        )

    @property
    def parts(self) -> tuple[nn.Module, ...]:
        """Each encoder, then each decoder."""
        return (*self.encoders, *self.decoders)

    def forward(
        self,
        x: Tensor,
        c_noise: Tensor,
        counts: Sequence[int],
        conditions: Conditions = UNCONDITIONAL,
        *,
        force_stages: Collection[int] = (),
    ) -> Tensor:
        """The network's output for a batch that is sorted by stage.

        Args:
            x: ``[B, C, H, W]``, the samples of stage 0 first.
            c_noise: noise labels, ``[B]``.
            counts: number of samples in each stage; they sum to B.
            conditions: of the B samples, in the order of ``x``.
            force_stages: stages to evaluate even without samples, because other processes have
                some (sharding).

        Returns:
            ``[B, C, H, W]`` in the order of ``x``. A stage without samples is not evaluated and gets no gradient.
        """
        features = self._encode(x, c_noise, conditions, counts)
        evaluated = [k for k, count in enumerate(counts) if count or k in force_stages]
        return torch.cat([self.decoders[k](features[k]) for k in evaluated])

    def _encode(
        self, x: Tensor, c_noise: Tensor, conditions: Conditions, counts: Sequence[int]
    ) -> list[Features]:
        """The features of each stage's samples."""
        if len(self.encoders) == 1:
            return self.encoders[0](x, c_noise, conditions).split(counts)
        sizes = list(counts)
        parts = zip(x.split(sizes), c_noise.split(sizes), conditions.split(sizes), strict=True)
        return [encoder(*part) for encoder, part in zip(self.encoders, parts, strict=True)]


def _attention(shape: Sequence[int], config: NetworkConfig, stage: int) -> tuple[int, ...]:
    """Sizes at which the decoder of a stage has attention.

    The authors' latent diffusion counts the down-sampling on from one decoder to the next, so that the later ones begin at
    what it takes for the full size; their attention is where the configuration asks for the full size, at their lowest level.
    """
    if config.decoder_attention != "first-decoder" or stage == 0:
        return config.attention_resolutions
    size = max(shape[1:])
    return (size >> (len(config.channel_mult) - 1),) if size in config.attention_resolutions else ()


def _check(shape: Sequence[int], config: NetworkConfig) -> None:
    encoders, decoders = len(config.encoder_widths), len(config.decoder_widths)
    if encoders not in (1, decoders):
        raise BadInput(
            f"{encoders} encoders do not fit {decoders} decoders: give one encoder, or one for each decoder."
        )
    factor = 2 ** (len(config.channel_mult) - 1)
    if shape[1] % factor or shape[2] % factor:
        raise BadInput(
            f"Images of {shape[1]}x{shape[2]} pixels do not fit {len(config.channel_mult)} levels: "
            f"height and width must be divisible by {factor}."
        )
