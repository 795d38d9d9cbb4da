"""NCSN++ as in score_sde and DPM-Solver, and its multi-stage version.

Sources: Song et al. 2021; Lu et al. 2022. The release numbers the modules of an encoder and of each
decoder in the order of their use.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import count
from typing import Any

from multistage_diffusion.errors import BadInput
from multistage_diffusion.interop.releases.rules import (
    Rule,
    dense_rules,
    layer_rules,
    module_rules,
    separate_qkv_rules,
)
from multistage_diffusion.model import ModelConfig
from multistage_diffusion.networks import NetworkConfig, StagedUNet
from multistage_diffusion.networks.config import Pyramid
from multistage_diffusion.schedule import VP

__all__ = ["model_config", "rules"]

BLOCK = {
    "norm0": "GroupNorm_0",
    "conv0": "Conv_0",
    "affine": "Dense_0",
    "norm1": "GroupNorm_1",
    "conv1": "Conv_1",
}
PYRAMIDS: dict[str, Pyramid] = {
    "none": "none",
    "input_skip": "skip",
    "output_skip": "skip",
    "residual": "residual",
}


def model_config(sizes: Mapping[str, Any]) -> ModelConfig:
    """The model that the sizes of a release describe.

    The release compares ``999 t``, which its network receives, with ``1000`` times its boundaries.

    Raises:
        BadInput: for a residual pyramid whose filter the release cannot run or pads on one side
            only.
    """
    upper = [float(interval[1]) for interval in sizes["stage_intervals_t"][:-1]]
    return ModelConfig(
        shape=(sizes["channels"], sizes["img_resolution"], sizes["img_resolution"]),
        classes=0,
        boundaries=tuple(float(VP().from_clock(t * 1000 / 999)) for t in upper),
        schedule="vp",
        preconditioning="vp",
        sigma_data=0.5,
        network=_network_config(sizes),
    )


def _network_config(sizes: Mapping[str, Any]) -> NetworkConfig:
    filtered = sizes.get("fir", True)
    inward = sizes.get("progressive_input", "residual")
    outward = sizes.get("progressive", "none")
    if inward == "residual" and not filtered:
        raise BadInput(
            "A residual input pyramid without the filter pads on one side only; "
            "that is not supported."
        )
    if outward == "residual" and filtered:
        raise BadInput(
            "A residual output pyramid with the filter does not run in score_sde; "
            "there are no weights of it."
        )
    return NetworkConfig(
        encoder_widths=(sizes["encoder_channels"],),
        decoder_widths=tuple(sizes["decoder_channels"]),
        channel_mult=tuple(sizes["channel_mult"]),
        blocks=sizes["num_blocks"],
        attention_resolutions=tuple(sizes["attn_resolutions"]),
        groups=sizes.get("groups", 16),
        bottom="encoder",
        resample_filter=tuple(sizes.get("fir_kernel", (1, 3, 3, 1))) if filtered else (1, 1),
        input_pyramid=PYRAMIDS[inward],
        output_pyramid=PYRAMIDS[outward],
        residual_scale=sizes.get("skip_rescale", True),
    )


def rules(network: StagedUNet, _: Sequence[int], __: frozenset[str]) -> Iterator[Rule]:
    """How our tensors are made from the release's.

    Args:
        network: ours; neither image shape nor the release's names are needed.
    """
    yield from _encoder_rules(network.encoders[0])
    for stage, decoder in enumerate(network.decoders):
        yield from _decoder_rules(f"decoders.{stage}", f"de_modules.{stage}", decoder)


def _encoder_rules(encoder: Any) -> Iterator[Rule]:
    ours = "encoders.0"
    theirs = "en_modules"
    number = count()
    steps = count()
    for layer in ("embedding.layer0", "embedding.layer1", "stem"):
        yield from layer_rules(f"{ours}.{layer}", f"{theirs}.{next(number)}")
    for index, block in enumerate(encoder.blocks):
        yield from _block_rules(f"{ours}.blocks.{index}", theirs, number, block)
        if block.how == "down" and len(encoder.pyramid):
            step = next(steps)
            residual = encoder.pyramid[step].residual
            layer, other = ("down.conv", "Conv2d_0") if residual else ("join", "Conv")
            place = f"{theirs}.{next(number)}"
            yield from layer_rules(f"{ours}.pyramid.{step}.{layer}", f"{place}.{other}")
    for index, block in enumerate(encoder.bottom):
        yield from _block_rules(f"{ours}.bottom.{index}", theirs, number, block)


def _decoder_rules(ours: str, theirs: str, decoder: Any) -> Iterator[Rule]:
    number = count()
    steps = count()
    for index, block in enumerate(decoder.blocks):
        yield from _block_rules(f"{ours}.blocks.{index}", theirs, number, block)
        if len(decoder.pyramid) and decoder.ends_level(index):
            yield from _output_step_rules(ours, theirs, next(steps), number, decoder)
    for layer in ("norm", "out"):
        yield from layer_rules(f"{ours}.{layer}", f"{theirs}.{next(number)}")


def _output_step_rules(
    ours: str, theirs: str, step: int, number: Iterator[int], decoder: Any
) -> Iterator[Rule]:
    if decoder.adds_pyramid:
        last = step == len(decoder.pyramid) - 1
        layers = [] if last else ["norm", "out"]
    else:
        layers = ["up.conv"] if step else ["norm", "up"]
    for layer in layers:
        place = f"{theirs}.{next(number)}"
        other = f"{place}.Conv_0" if layer == "up.conv" else place
        yield from layer_rules(f"{ours}.pyramid.{step}.{layer}", other)


def _block_rules(ours: str, theirs: str, number: Iterator[int], block: Any) -> Iterator[Rule]:
    """A block and its attention, which the release numbers as a module of its own."""
    place = f"{theirs}.{next(number)}"
    yield from module_rules(ours, place, BLOCK)
    if list(block.skip.parameters()):
        yield from layer_rules(f"{ours}.skip", f"{place}.Conv_2")
    if block.attention is not None:
        place = f"{theirs}.{next(number)}"
        qkv = (f"{place}.NIN_0", f"{place}.NIN_1", f"{place}.NIN_2")
        yield from layer_rules(f"{ours}.attention.norm", f"{place}.GroupNorm_0")
        yield from separate_qkv_rules(f"{ours}.attention.qkv", qkv)
        yield from dense_rules(f"{ours}.attention.proj", f"{place}.NIN_3")
