"""EDM's networks (Karras et al. 2022) and their multi-stage version."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from multistage_diffusion.interop.releases.rules import Rule, moved
from multistage_diffusion.model import ModelConfig
from multistage_diffusion.networks import StagedUNet
from multistage_diffusion.networks.config import NetworkConfig, Pyramid

__all__ = ["model", "rules"]

LAYERS = ("norm0", "conv0", "affine", "norm1", "conv1", "skip")
PYRAMIDS: dict[str, Pyramid] = {"standard": "none", "skip": "skip", "residual": "residual"}


def model(sizes: Mapping[str, Any]) -> ModelConfig:
    """The model that the sizes of a release describe."""
    network = NetworkConfig(
        encoder_widths=(sizes["encoder_channels"],),
        decoder_widths=tuple(sizes["decoder_channels"]),
        channel_mult=tuple(sizes["channel_mult"]),
        blocks=sizes["num_blocks"],
        attention_resolutions=tuple(sizes["attn_resolutions"]),
        groups=sizes.get("groups", 16),
        embedding=sizes.get("embedding_type", "positional"),
        embedding_mult=sizes.get("channel_mult_noise", 1),
        augment_channels=sizes.get("augment_dim", 0),
        input_pyramid=PYRAMIDS[sizes.get("encoder_type", "standard")],
        output_pyramid=PYRAMIDS[sizes.get("decoder_type", "standard")],
        resample_filter=tuple(sizes.get("resample_filter", (1, 1))),
    )
    return ModelConfig(
        shape=(sizes["channels"], sizes["img_resolution"], sizes["img_resolution"]),
        classes=sizes.get("label_dim", 0),
        boundaries=tuple(
            float(upper)
            for _, upper in sizes["stage_intervals_sigma"]
            if math.isfinite(float(upper))
        ),
        schedule="edm",
        preconditioning="edm",
        sigma_data=sizes.get("sigma_data", 0.5),
        network=network,
    )


def rules(network: StagedUNet, shape: Sequence[int], names: frozenset[str]) -> Iterator[Rule]:
    """How our tensors are made of the release's.

    Args:
        network: ours.
        shape: channels, height, width of an image.
        names: what the release's tensors are called.
    """
    encoder: Any = network.encoders[0]
    size, root = shape[1], "model." if any(n.startswith("model.") for n in names) else ""
    ours = "encoders.0"
    if encoder.embedding.kind == "fourier":
        yield Rule(f"{ours}.embedding.frequencies", (f"{root}map_noise.freqs",))
    for layer in ("label", "augment", "layer0", "layer1"):
        if getattr(encoder.embedding, layer) is not None:
            bias = getattr(encoder.embedding, layer).bias is not None
            yield from moved(f"{ours}.embedding.{layer}", f"{root}map_{layer}", bias)
    yield from moved(f"{ours}.stem", f"{root}enc.{size}x{size}_conv")
    level = index = 0
    for number, block in enumerate(encoder.blocks):
        if block.how == "down":
            level, index = level + 1, 0
            if len(encoder.pyramid):
                yield from _pyramid_rules(
                    f"{ours}.pyramid.{level - 1}",
                    f"{root}enc.{_at(size, level)}",
                    encoder.pyramid[level - 1],
                )
        name = f"{_at(size, level)}_{'down' if block.how == 'down' else f'block{index}'}"
        index += block.how != "down"
        yield from _block(f"{ours}.blocks.{number}", f"{root}enc.{name}", block)
    for stage, decoder in enumerate(network.decoders):
        theirs = (
            f"{root}dec."
            if len(network.decoders) == 1 and not any(".decs." in n for n in names)
            else f"{root}decs.{stage}."
        )
        yield from _decoder(f"decoders.{stage}", theirs, decoder, size, level, names)


def _at(size: int, level: int) -> str:
    return f"{size >> level}x{size >> level}"


def _decoder(
    ours: str, theirs: str, decoder: Any, size: int, level: int, names: frozenset[str]
) -> Iterator[Rule]:
    for number, block in enumerate(decoder.bottom):
        yield from _block(
            f"{ours}.bottom.{number}", f"{theirs}{_at(size, level)}_in{number}", block
        )
    index, deepest = 0, level
    for number, block in enumerate(decoder.blocks):
        if block.how == "up":
            level, index = level - 1, 0
        name = f"{_at(size, level)}_{'up' if block.how == 'up' else f'block{index}'}"
        index += block.how != "up"
        yield from _block(f"{ours}.blocks.{number}", f"{theirs}{name}", block)
    for step in range(len(decoder.pyramid) - 1):
        for layer, other in (("norm", "aux_norm"), ("out", "aux_conv")):
            yield from moved(
                f"{ours}.pyramid.{step}.{layer}", f"{theirs}{_at(size, deepest - step)}_{other}"
            )
    adm = any(name.endswith("out_conv.weight") for name in names)
    for layer, other in (("norm", "norm"), ("out", "conv")):
        yield from moved(
            f"{ours}.{layer}",
            f"{theirs.removesuffix('dec.')}out_{other}"
            if adm
            else f"{theirs}{_at(size, 0)}_aux_{other}",
        )


def _block(ours: str, theirs: str, block: Any) -> Iterator[Rule]:
    for layer in LAYERS:
        if any(True for _ in getattr(block, layer).parameters()):
            yield from moved(f"{ours}.{layer}", f"{theirs}.{layer}")
    if block.attention is not None:
        for layer, other in (("norm", "norm2"), ("qkv", "qkv"), ("proj", "proj")):
            yield from moved(f"{ours}.attention.{layer}", f"{theirs}.{other}")


def _pyramid_rules(ours: str, theirs: str, step: Any) -> Iterator[Rule]:
    if step.residual:
        yield from moved(f"{ours}.down.conv", f"{theirs}_aux_residual")
    else:
        yield from moved(f"{ours}.join", f"{theirs}_aux_skip")
