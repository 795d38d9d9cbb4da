"""The U-Net with one encoder and one decoder per stage (paper, section 4.2).

The encoder sees every noise level; its features and skips are handed to the decoder of each sample's stage. Unified,
multistage and separate networks are settings of the one class:

- unified: one encoder, one decoder;
- multistage: one encoder, a decoder of its own width for each stage;
- separate: an encoder and a decoder for each stage.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from multistage_diffusion.config import NetworkConfig
from multistage_diffusion.errors import BadInput
from multistage_diffusion.networks.blocks import Embedding, ResidualBlock, conv, group_norm

__all__ = ["Decoder", "Encoder", "Features", "StagedUNet"]


@dataclass(frozen=True)
class Features:
    """What an encoder hands to a decoder: the deepest features, the skips from top to bottom, the embedding."""

    deepest: Tensor
    skips: tuple[Tensor, ...]
    embedding: Tensor

    def split(self, counts: Sequence[int]) -> list["Features"]:
        """Views of consecutive parts of the batch."""
        tensors = zip(*(t.split(list(counts)) for t in (self.deepest, self.embedding, *self.skips)), strict=True)
        return [Features(deepest, tuple(skips), embedding) for deepest, embedding, *skips in tensors]


class Encoder(nn.Module):
    """The downward half, with the embedding of noise level and label.

    Args:
        shape: channels, height, width of an image; height and width must be divisible by ``2 ** (levels - 1)``.
        width: channels of the top level.
        classes: number of classes, 0 for none.
    """

    def __init__(self, shape: Sequence[int], width: int, classes: int, config: NetworkConfig) -> None:
        super().__init__()
        self.width = width
        self.embedding = Embedding(width, classes)
        self.stem = conv(shape[0], width, 3)
        self.blocks = nn.ModuleList()
        block = partial(ResidualBlock, embedding=4 * width, groups=config.groups, dropout=config.dropout)
        channels = width
        self.skip_channels = [width]
        for level, mult in enumerate(config.channel_mult):
            attention = max(shape[1:]) >> level in config.attention_resolutions
            if level > 0:
                self.blocks.append(block(channels, channels, how="down"))
                self.skip_channels.append(channels)
            for _ in range(config.blocks):
                self.blocks.append(block(channels, mult * width, attention=attention))
                channels = mult * width
                self.skip_channels.append(channels)

    def forward(self, x: Tensor, c_noise: Tensor, labels: Tensor | None) -> Features:
        emb = self.embedding(c_noise, labels)
        skips = [self.stem(x)]
        for block in self.blocks:
            skips.append(block(skips[-1], emb))
        return Features(skips[-1], tuple(skips), emb)


class Decoder(nn.Module):
    """The upward half. Its width is its own; what it receives has the encoder's.

    Args:
        shape: channels, height, width of an image.
        width: channels of the top level.
        encoder: whose features it receives.
    """

    def __init__(self, shape: Sequence[int], width: int, encoder: Encoder, config: NetworkConfig) -> None:
        super().__init__()
        block = partial(ResidualBlock, embedding=4 * encoder.width, groups=config.groups, dropout=config.dropout)
        skips, channels = list(encoder.skip_channels), encoder.skip_channels[-1]
        self.bottom = nn.ModuleList(block(channels, channels, attention=attention) for attention in (True, False))
        self.blocks = nn.ModuleList()
        for level, mult in reversed(list(enumerate(config.channel_mult))):
            attention = max(shape[1:]) >> level in config.attention_resolutions
            for index in range(config.blocks + 1):
                last = attention and index == config.blocks
                self.blocks.append(block(channels + skips.pop(), mult * width, attention=last))
                channels = mult * width
            if level > 0:
                self.blocks.append(block(channels, channels, how="up"))
        self.norm = group_norm(channels, config.groups)
        self.out = conv(channels, shape[0], 3, gain=1e-5)

    def forward(self, features: Features) -> Tensor:
        x, emb, skips = features.deepest, features.embedding, list(features.skips)
        for block in self.bottom:
            x = block(x, emb)
        for block in self.blocks:
            x = block(x if block.how == "up" else torch.cat([x, skips.pop()], dim=1), emb)
        return self.out(F.silu(self.norm(x)))


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
        self.decoders = nn.ModuleList(Decoder(shape, w, owner, config) for w, owner in zip(widths, owners, strict=True))

    def forward(self, x: Tensor, c_noise: Tensor, counts: Sequence[int], labels: Tensor | None = None) -> Tensor:
        """The network's output for a batch that is sorted by stage.

        Args:
            x: ``[B, C, H, W]``, the samples of stage 0 first.
            c_noise: noise labels, ``[B]``.
            counts: number of samples in each stage; they sum to B.
            labels: classes, int64 ``[B]``, if the network has any.

        Returns:
            ``[B, C, H, W]`` in the order of ``x``. A stage without samples is not evaluated and gets no gradient.
        """
        features = self._encode(x, c_noise, counts, labels)
        return torch.cat([decoder(f) for decoder, f, n in zip(self.decoders, features, counts, strict=True) if n])

    def _encode(self, x: Tensor, c_noise: Tensor, counts: Sequence[int], labels: Tensor | None) -> list[Features]:
        if len(self.encoders) == 1:
            return self.encoders[0](x, c_noise, labels).split(counts)
        sizes = list(counts)
        parts = [[None] * len(sizes) if t is None else t.split(sizes) for t in (x, c_noise, labels)]
        return [encoder(*inputs) for encoder, *inputs in zip(self.encoders, *parts, strict=True)]


def _check(shape: Sequence[int], config: NetworkConfig) -> None:
    encoders, decoders = len(config.encoder_widths), len(config.decoder_widths)
    if encoders not in (1, decoders):
        raise BadInput(f"{encoders} encoders do not fit {decoders} decoders: give one encoder, or one for each decoder.")
    factor = 2 ** (len(config.channel_mult) - 1)
    if shape[1] % factor or shape[2] % factor:
        raise BadInput(
            f"Images of {shape[1]}x{shape[2]} pixels do not fit {len(config.channel_mult)} levels: "
            f"height and width must be divisible by {factor}."
        )
