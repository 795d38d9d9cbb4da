"""From a unified network to a multi-stage one, so that training does not begin anew.

The encoder is kept. Every decoder is made of the unified one: of the same width, it is the same; a
narrower one gets the first channels; in a wider one the additional channels are fresh and are not
listened to at first.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from multistage_diffusion.denoiser import NetworkDenoiser
from multistage_diffusion.errors import BadInput
from multistage_diffusion.model import ModelConfig, build_denoiser
from multistage_diffusion.stages import Stages

__all__ = ["warm_start"]


def warm_start(
    unified: NetworkDenoiser, config: ModelConfig, stages: Stages, widths: Sequence[int]
) -> tuple[NetworkDenoiser, ModelConfig]:
    """A multi-stage network that begins where a unified one is.

    Args:
        unified: the trained network.
        config: its configuration.
        stages: the stages of the new one.
        widths: the width of each of its decoders.

    Raises:
        BadInput: if the first network is not unified, or stages and widths differ in number.
    """
    if len(unified.stages) > 1:
        raise BadInput(
            f"Decoders are made from that of a unified network; this one has {len(unified.stages)}."
        )
    if len(stages) != len(widths):
        raise BadInput(f"{len(stages)} stages need as many decoder widths, not {len(widths)}.")
    made = replace(
        config,
        boundaries=stages.boundaries,
        network=replace(config.network, decoder_widths=tuple(widths)),
    )
    denoiser = build_denoiser(made)
    denoiser.network.encoders.load_state_dict(unified.network.encoders.state_dict())
    encoder: Any = unified.network.encoders[0]
    for decoder in denoiser.network.decoders:
        _fill(decoder, unified.network.decoders[0], encoder.skip_channels)
    return denoiser.eval(), made


@torch.no_grad()
def _fill(decoder: Any, source: Any, skips: Sequence[int]) -> None:
    """Puts the weights of ``source`` into a decoder, wherever both have a layer."""
    given = source.state_dict()
    kept = dict(_kept_inputs(decoder, skips))
    for name, tensor in decoder.state_dict().items():
        if name in given:
            block = ".".join(name.split(".")[:2])
            layer = name.removeprefix(f"{block}.").split(".")[0]
            halves = 2 if layer == "affine" and decoder.blocks[0].adaptive else 1  # scale and shift
            for part, origin in zip(tensor.chunk(halves), given[name].chunk(halves), strict=True):
                reads = layer == "norm0" or (layer in ("conv0", "skip") and tensor.ndim > 1)
                _copy(part, origin, kept.get(block, 0) if reads else 0)


def _kept_inputs(decoder: Any, skips: Sequence[int]) -> Iterator[tuple[str, int]]:
    """How many of a block's inputs, the last ones, come from the encoder."""
    left = list(skips)
    for index, block in enumerate(decoder.blocks):
        if block.how != "up":
            yield f"blocks.{index}", left.pop()


def _copy(tensor: Tensor, given: Tensor, kept: int) -> None:
    """Copies what fits: outputs and inputs from the first on, and the last ``kept`` inputs as they
    are.

    Additional inputs are not listened to; additional outputs stay as they are.
    """
    inputs = 1 if tensor.ndim > 1 else 0
    fresh = min(tensor.shape[0], given.shape[0])
    rows = slice(None) if inputs == 0 else slice(fresh)
    own, theirs = tensor.shape[inputs] - kept, given.shape[inputs] - kept
    both = min(own, theirs)
    place, origin = tensor[rows], given[rows]
    if inputs == 1:
        place[:, both:own] = 0
    place.narrow(inputs, 0, both).copy_(origin.narrow(inputs, 0, both))
    if kept:
        place.narrow(inputs, own, kept).copy_(origin.narrow(inputs, theirs, kept))
