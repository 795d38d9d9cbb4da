"""Weights of diffusers' U-Nets under our names."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from multistage_diffusion.interop.releases.ldm import transformer_rules
from multistage_diffusion.interop.releases.rules import (
    Rule,
    as_convolution,
    interleaved,
    layer_rules,
    module_rules,
)
from multistage_diffusion.interop.releases.translate import translated
from multistage_diffusion.model import ModelConfig, build_denoiser
from multistage_diffusion.networks import StagedUNet
from multistage_diffusion.networks.attention import SpatialTransformer

__all__ = ["unet_weights"]

BLOCK = {
    "norm0": "norm1",
    "conv0": "conv1",
    "affine": "time_emb_proj",
    "norm1": "norm2",
    "conv1": "conv2",
}
QKV = ("to_q", "to_k", "to_v")


def unet_weights(
    config: ModelConfig, settings: Mapping[str, Any], state: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """The state dict of our network from that of diffusers.

    Args:
        config: from ``unet_config``.
        settings: the configuration it was made from.
        state: the weights of diffusers.

    Raises:
        BadInput: if a tensor is missing, left over, or of another shape; names the first one.
    """
    with torch.device("meta"):
        network = build_denoiser(config).network
    cosines_first = bool(settings.get("flip_sin_to_cos", True))
    swapped = cosines_first != (config.network.embedding == "sinusoidal")
    return translated(list(_rules(network, swapped)), network, state)


def _rules(network: StagedUNet, swapped: bool) -> Iterator[Rule]:
    encoder: Any = network.encoders[0]
    decoder: Any = network.decoders[0]
    yield from _embedding_rules(encoder.embedding, swapped)
    yield from layer_rules("encoders.0.stem", "conv_in")
    yield from _half_rules("encoders.0.blocks", encoder.blocks, "down")
    for index, block in enumerate(encoder.bottom):
        yield from _block_rules(f"encoders.0.bottom.{index}", "mid_block", index, block)
    yield from _half_rules("decoders.0.blocks", decoder.blocks, "up")
    yield from layer_rules("decoders.0.norm", "conv_norm_out")
    yield from layer_rules("decoders.0.out", "conv_out")


def _embedding_rules(embedding: Any, swapped: bool) -> Iterator[Rule]:
    """The layers; the columns of the first are swapped if theirs are sines and cosines in turn."""
    ours, theirs = "encoders.0.embedding", "time_embedding"
    first, bias = layer_rules(f"{ours}.layer0", f"{theirs}.linear_1")
    yield Rule(first.ours, first.theirs, _halves_swapped) if swapped else first
    yield bias
    yield from layer_rules(f"{ours}.layer1", f"{theirs}.linear_2")
    if embedding.label is not None:
        yield Rule(f"{ours}.label.weight", ("class_embedding.weight",), lambda table: table.T)


def _halves_swapped(weight: Tensor) -> Tensor:
    return torch.cat(weight.chunk(2, dim=1)[::-1], dim=1)


def _half_rules(ours: str, blocks: Any, how: str) -> Iterator[Rule]:
    """The blocks of the way down or up, which diffusers numbers level by level."""
    level = number = 0
    for index, block in enumerate(blocks):
        theirs = f"{how}_blocks.{level}"
        if block.how == how:
            yield from _resampling_rules(f"{ours}.{index}", f"{theirs}.{how}samplers.0", block)
            level, number = level + 1, 0
        else:
            yield from _block_rules(f"{ours}.{index}", theirs, number, block)
            number += 1


def _resampling_rules(ours: str, theirs: str, block: Any) -> Iterator[Rule]:
    if hasattr(block, "conv"):
        yield from layer_rules(f"{ours}.conv", f"{theirs}.conv")
    else:
        yield from module_rules(ours, theirs, BLOCK)


def _block_rules(ours: str, theirs: str, number: int, block: Any) -> Iterator[Rule]:
    """A residual block and its attention, which diffusers keeps in two lists."""
    place, attention = f"{theirs}.resnets.{number}", f"{theirs}.attentions.{number}"
    yield from module_rules(ours, place, BLOCK)
    if list(block.skip.parameters()):
        yield from layer_rules(f"{ours}.skip", f"{place}.conv_shortcut")
    if isinstance(block.attention, SpatialTransformer):
        yield from transformer_rules(f"{ours}.attention", attention, block.attention)
    elif block.attention is not None:
        yield from _attention_rules(f"{ours}.attention", attention)


def _attention_rules(ours: str, theirs: str) -> Iterator[Rule]:
    yield from layer_rules(f"{ours}.norm", f"{theirs}.group_norm")
    weights = tuple(f"{theirs}.{name}.weight" for name in QKV)
    biases = tuple(f"{theirs}.{name}.bias" for name in QKV)
    yield Rule(f"{ours}.qkv.weight", weights, lambda *w: as_convolution(interleaved(*w)))
    yield Rule(f"{ours}.qkv.bias", biases, interleaved)
    yield Rule(f"{ours}.proj.weight", (f"{theirs}.to_out.0.weight",), as_convolution)
    yield Rule(f"{ours}.proj.bias", (f"{theirs}.to_out.0.bias",))
