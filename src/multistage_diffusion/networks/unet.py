"""The U-Net with one decoder per stage (paper, section 4.2).

The encoder sees every noise level; its features and skips go to the decoder of each sample's stage.
Unified, multistage and separate networks are settings of one class:

- unified: one encoder, one decoder;
- multistage: one encoder, and for each stage a decoder with its own width;
- separate: an encoder and a decoder for each stage;
- decoder shared: an encoder for each stage, all of one width, and one decoder.
"""

from collections.abc import Collection, Sequence
from itertools import accumulate, pairwise

import torch
from torch import Tensor, nn

from multistage_diffusion.conditions import NO_CONDITIONS, Conditions
from multistage_diffusion.errors import BadInput
from multistage_diffusion.networks.config import NetworkConfig
from multistage_diffusion.networks.decoder import Decoder, decoder_attention
from multistage_diffusion.networks.encoder import Encoder, Features
from multistage_diffusion.networks.layers import dropout_from, generators, group_norm

__all__ = ["StagedUNet"]


class StagedUNet(nn.Module):
    """A U-Net whose decoder, and encoder if there are several, is that of each sample's stage.

    Args:
        shape: channels, height, width of an image.
        classes: number of classes, 0 for an unconditional network.
        config: widths and depth.

    Raises:
        BadInput: if encoders and decoders do not fit each other, or if the levels cannot halve the
            image size.
    """

    def __init__(self, shape: Sequence[int], classes: int, config: NetworkConfig) -> None:
        super().__init__()
        _check(shape, config)
        self.dropout = config.dropout
        encoders = [Encoder(shape, width, classes, config) for width in config.encoder_widths]
        widths = config.decoder_widths
        self.encoders = nn.ModuleList(encoders)
        sources = encoders * len(widths) if len(encoders) == 1 else encoders[: len(widths)]
        self.decoders = nn.ModuleList()
        for stage, (width, encoder) in enumerate(zip(widths, sources, strict=True)):
            attention = decoder_attention(shape, config, stage)
            self.decoders.append(Decoder(shape, width, encoder, config, attention))

    def encoder(self, stage: int) -> nn.Module:
        """The encoder of a stage."""
        return self.encoders[stage if len(self.encoders) > 1 else 0]

    def decoder(self, stage: int) -> nn.Module:
        """The decoder of a stage."""
        return self.decoders[stage if len(self.decoders) > 1 else 0]

    @property
    def parts(self) -> tuple[nn.Module, ...]:
        """Each encoder, then each decoder."""
        return (*self.encoders, *self.decoders)

    def forward(
        self,
        x: Tensor,
        c_noise: Tensor,
        counts: Sequence[int],
        conditions: Conditions = NO_CONDITIONS,
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
            ``[B, C, H, W]`` in the order of ``x``. The decoder of a stage that has no samples and
            is not forced is not evaluated and gets no gradient.
        """
        sources = self._sources(conditions.seeds)
        edges = list(accumulate(counts, initial=0))
        by_stage = [sources[start:stop] for start, stop in pairwise(edges)]
        features = self._encode(x, c_noise, conditions, counts, sources)
        decoded = []
        for stage, count in enumerate(counts):
            if count or stage in force_stages:
                with dropout_from(by_stage[stage]):
                    decoded.append(self.decoder(stage)(features[stage]))
        return torch.cat(decoded) if decoded else torch.empty_like(x)

    def _sources(self, seeds: Tensor | None) -> list[torch.Generator]:
        """Where the dropout of each sample is drawn from."""
        return generators(seeds) if seeds is not None and self.training and self.dropout else []

    def _encode(
        self,
        x: Tensor,
        c_noise: Tensor,
        conditions: Conditions,
        counts: Sequence[int],
        sources: Sequence[torch.Generator],
    ) -> list[Features]:
        """The features of the samples of each stage."""
        if len(self.encoders) == 1:
            with dropout_from(sources):
                return self.encoders[0](x, c_noise, conditions).split(counts)
        sizes = list(counts)
        parts = zip(x.split(sizes), c_noise.split(sizes), conditions.split(sizes), strict=True)
        encoded = []
        start = 0
        for encoder, part in zip(self.encoders, parts, strict=True):
            with dropout_from(sources[start : start + len(part[0])]):
                encoded.append(encoder(*part))
            start += len(part[0])
        return encoded


def _check(shape: Sequence[int], config: NetworkConfig) -> None:
    encoders = len(config.encoder_widths)
    decoders = len(config.decoder_widths)
    if encoders > 1 < decoders and encoders != decoders:
        raise BadInput(
            f"{encoders} encoders do not fit {decoders} decoders: "
            "give one encoder, or one for each decoder."
        )
    if decoders == 1 and len(set(config.encoder_widths)) > 1:
        raise BadInput(
            f"Encoders that share a decoder need one width, not {list(config.encoder_widths)}."
        )
    height, width = shape[1:]
    levels = len(config.channel_mult)
    factor = 2 ** (levels - 1)
    if height % factor or width % factor:
        raise BadInput(
            f"Images of {height}x{width} pixels do not fit {levels} levels: "
            f"height and width must be divisible by {factor}."
        )
    if (height, width) == (factor, factor):
        _check_single_pixels(config, levels)


def _check_single_pixels(config: NetworkConfig, levels: int) -> None:
    """Raises BadInput if a normalisation sees single values, of which it would leave nothing."""
    for width in (*config.encoder_widths, *config.decoder_widths):
        channels = width * config.channel_mult[-1]
        if group_norm(channels, config).num_groups == channels:
            raise BadInput(
                f"At the lowest of {levels} levels images are a single pixel, and each of its "
                f"{channels} channels would be normalised alone: give larger images, fewer "
                "--channel-mult or a larger --group-channels."
            )
