"""Warm starts: a multi-stage network with the weights of a unified one.

The encoder is kept, and every decoder is initialised from the unified one. A decoder of the same
width is a copy; a narrower one gets the first channels; a wider one gets additional random
channels, which are read with zero weights at first.
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
    """A multi-stage network with the weights of a unified one.

    Args:
        unified: the trained network.
        config: its configuration.
        stages: the stages of the new one.
        widths: the width of each of its decoders.

    Returns:
        The new denoiser, in evaluation mode, and its configuration.

    Raises:
        BadInput: if the first network is not unified, or stages and widths differ in number.
    """
    if len(unified.stages) > 1:
        raise BadInput(
            f"Decoders are made from that of a unified network; this one has {len(unified.stages)}."
        )
    if len(stages) != len(widths):
        raise BadInput(f"{len(stages)} stages need as many --decoder-widths, not {len(widths)}.")
    network = replace(config.network, decoder_widths=tuple(widths))
    staged = replace(config, boundaries=stages.boundaries, network=network)
    denoiser = build_denoiser(staged)
    denoiser.network.encoders.load_state_dict(unified.network.encoders.state_dict())
    encoder: Any = unified.network.encoders[0]
    for decoder in denoiser.network.decoders:
        _copy_decoder(decoder, unified.network.decoders[0], encoder.skip_channels)
    return denoiser.eval(), staged


@torch.no_grad()
def _copy_decoder(decoder: Any, source: Any, skip_channels: Sequence[int]) -> None:
    """Copies the weights of another decoder, for all parameters that both have."""
    given = source.state_dict()
    from_encoder = dict(_encoder_inputs(decoder, skip_channels))
    for name, tensor in decoder.state_dict().items():
        if name in given:
            block, layer = _block_and_layer(name)
            reads_inputs = layer == "norm0" or (layer in ("conv0", "skip") and tensor.ndim > 1)
            kept = from_encoder.get(block, 0) if reads_inputs else 0
            halves = 2 if _has_halves(name, decoder.blocks[0].adaptive) else 1
            for part, origin in zip(tensor.chunk(halves), given[name].chunk(halves), strict=True):
                _copy(part, origin, kept)


def _has_halves(name: str, adaptive: bool) -> bool:
    """Whether the outputs of a layer are two halves: scale and shift, or value and gate."""
    layer = name.rpartition(".")[0].rpartition(".")[2]
    return layer == "gate" or (layer == "affine" and adaptive)


def _block_and_layer(name: str) -> tuple[str, str]:
    """``blocks.3.conv0.weight`` is of ``blocks.3`` and ``conv0``."""
    block = ".".join(name.split(".")[:2])
    layer = name.removeprefix(f"{block}.").split(".")[0]
    return block, layer


def _encoder_inputs(decoder: Any, skip_channels: Sequence[int]) -> Iterator[tuple[str, int]]:
    """How many inputs of each block, its last ones, come from the encoder."""
    left = list(skip_channels)
    for index, block in enumerate(decoder.blocks):
        if block.how != "up":
            yield f"blocks.{index}", left.pop()


def _copy(tensor: Tensor, given: Tensor, kept: int) -> None:
    """Copies the channels that both tensors have.

    These are outputs and inputs from the first on, and the last ``kept`` inputs. The weights that
    read additional inputs become zero; additional outputs stay as they are.

    Args:
        tensor: a weight, ``[outputs, inputs, ...]``, or a bias, ``[outputs]``, which is changed.
        given: the same of another width.
        kept: how many inputs (of a vector: entries), the last ones, do not depend on the width.
    """
    inputs = 1 if tensor.ndim > 1 else 0
    shared = min(len(tensor), len(given))
    place = tensor[:shared] if inputs else tensor
    origin = given[:shared] if inputs else given
    own = tensor.shape[inputs] - kept
    theirs = given.shape[inputs] - kept
    both = min(own, theirs)
    if inputs:
        place[:, both:own] = 0
    place.narrow(inputs, 0, both).copy_(origin.narrow(inputs, 0, both))
    if kept:
        place.narrow(inputs, own, kept).copy_(origin.narrow(inputs, theirs, kept))
