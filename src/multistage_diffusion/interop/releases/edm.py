"""EDM's networks (Karras et al. 2022) and their multi-stage version."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from multistage_diffusion.interop.releases.rules import Rule, layer_rules, module_rules
from multistage_diffusion.interop.releases.sizes import check_supported, pyramid
from multistage_diffusion.model import ModelConfig
from multistage_diffusion.networks import NetworkConfig, StagedUNet
from multistage_diffusion.networks.config import Pyramid

__all__ = ["model_config", "rules"]

LAYERS = ("norm0", "conv0", "affine", "norm1", "conv1", "skip")
ATTENTION = {"norm": "norm2", "qkv": "qkv", "proj": "proj"}
PYRAMIDS: dict[str, Pyramid] = {"standard": "none", "skip": "skip", "residual": "residual"}
SUPPORTED = {"model_type": "SongUNet", "channel_mult_emb": 4}


def model_config(sizes: Mapping[str, Any]) -> ModelConfig:
    """The model that the sizes of a release describe.

    Raises:
        BadInput: for networks other than DDPM++ and NCSN++.
    """
    check_supported(sizes, SUPPORTED)
    upper = [float(interval[1]) for interval in sizes["stage_intervals_sigma"][:-1]]
    return ModelConfig(
        shape=(sizes["channels"], sizes["img_resolution"], sizes["img_resolution"]),
        classes=sizes.get("label_dim", 0),
        boundaries=tuple(upper),
        schedule="edm",
        preconditioning="edm",
        sigma_data=sizes.get("sigma_data", 0.5),
        network=_network_config(sizes),
    )


def _network_config(sizes: Mapping[str, Any]) -> NetworkConfig:
    return NetworkConfig(
        encoder_widths=(sizes["encoder_channels"],),
        decoder_widths=tuple(sizes["decoder_channels"]),
        channel_mult=tuple(sizes["channel_mult"]),
        blocks=sizes["num_blocks"],
        attention_resolutions=tuple(sizes["attn_resolutions"]),
        groups=sizes.get("groups", 16),
        embedding=sizes.get("embedding_type", "positional"),
        embedding_mult=sizes.get("channel_mult_noise", 1),
        augment_channels=sizes.get("augment_dim", 0),
        input_pyramid=pyramid(sizes, "encoder_type", PYRAMIDS),
        output_pyramid=pyramid(sizes, "decoder_type", PYRAMIDS),
        resample_filter=tuple(sizes.get("resample_filter", (1, 1))),
    )


def rules(network: StagedUNet, shape: Sequence[int], names: frozenset[str]) -> Iterator[Rule]:
    """How our tensors are made from the release's.

    Args:
        network: ours.
        shape: channels, height, width of an image.
        names: the names of the release's tensors.
    """
    encoder: Any = network.encoders[0]
    size = shape[1]
    root = "model." if any(name.startswith("model.") for name in names) else ""
    yield from _embedding_rules(encoder.embedding, root)
    yield from _encoder_rules(encoder, f"{root}enc", size)
    staged = len(network.decoders) > 1 or any(".decs." in name for name in names)
    adm = any(name.endswith("out_conv.weight") for name in names)
    for stage, decoder in enumerate(network.decoders):
        ours = f"decoders.{stage}"
        theirs = f"{root}decs.{stage}" if staged else f"{root}dec"
        yield from _decoder_rules(ours, theirs, decoder, size)
        if adm:
            out = f"{root}decs.{stage}.out" if staged else f"{root}out"
        else:
            out = f"{theirs}.{_at(size, 0)}_aux"
        yield from layer_rules(f"{ours}.norm", f"{out}_norm")
        yield from layer_rules(f"{ours}.out", f"{out}_conv")


def _embedding_rules(embedding: Any, root: str) -> Iterator[Rule]:
    ours = "encoders.0.embedding"
    if embedding.kind == "fourier":
        yield Rule(f"{ours}.frequencies", (f"{root}map_noise.freqs",))
    for name in ("label", "augment", "layer0", "layer1"):
        layer = getattr(embedding, name)
        if layer is not None:
            yield from layer_rules(f"{ours}.{name}", f"{root}map_{name}", layer.bias is not None)


def _encoder_rules(encoder: Any, theirs: str, size: int) -> Iterator[Rule]:
    ours = "encoders.0"
    yield from layer_rules(f"{ours}.stem", f"{theirs}.{_at(size, 0)}_conv")
    for index, step in enumerate(encoder.pyramid):
        place = f"{theirs}.{_at(size, index + 1)}"
        yield from _input_step_rules(f"{ours}.pyramid.{index}", place, step)
    names = _block_names(encoder.blocks, size, level=0)
    for index, (block, name) in enumerate(zip(encoder.blocks, names, strict=True)):
        yield from _block_rules(f"{ours}.blocks.{index}", f"{theirs}.{name}", block)


def _decoder_rules(ours: str, theirs: str, decoder: Any, size: int) -> Iterator[Rule]:
    """All layers of a decoder except those of its output."""
    deepest = sum(block.how == "up" for block in decoder.blocks)
    for index, block in enumerate(decoder.bottom):
        name = f"{_at(size, deepest)}_in{index}"
        yield from _block_rules(f"{ours}.bottom.{index}", f"{theirs}.{name}", block)
    names = _block_names(decoder.blocks, size, deepest)
    for index, (block, name) in enumerate(zip(decoder.blocks, names, strict=True)):
        yield from _block_rules(f"{ours}.blocks.{index}", f"{theirs}.{name}", block)
    for step in range(len(decoder.pyramid) - 1):
        place = f"{theirs}.{_at(size, deepest - step)}_aux"
        yield from layer_rules(f"{ours}.pyramid.{step}.norm", f"{place}_norm")
        yield from layer_rules(f"{ours}.pyramid.{step}.out", f"{place}_conv")


def _at(size: int, level: int) -> str:
    """How names begin at a level."""
    return f"{size >> level}x{size >> level}"


def _block_names(blocks: Iterable[Any], size: int, level: int) -> Iterator[str]:
    """EDM's names of consecutive blocks, the first of them at a level."""
    index = 0
    for block in blocks:
        if block.how == "none":
            yield f"{_at(size, level)}_block{index}"
            index += 1
        else:
            level += 1 if block.how == "down" else -1
            index = 0
            yield f"{_at(size, level)}_{block.how}"


def _block_rules(ours: str, theirs: str, block: Any) -> Iterator[Rule]:
    for layer in LAYERS:
        if list(getattr(block, layer).parameters()):
            yield from layer_rules(f"{ours}.{layer}", f"{theirs}.{layer}")
    if block.attention is not None:
        yield from module_rules(f"{ours}.attention", theirs, ATTENTION)


def _input_step_rules(ours: str, theirs: str, step: Any) -> Iterator[Rule]:
    if step.residual:
        yield from layer_rules(f"{ours}.down.conv", f"{theirs}_aux_residual")
    else:
        yield from layer_rules(f"{ours}.join", f"{theirs}_aux_skip")
