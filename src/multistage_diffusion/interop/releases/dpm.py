"""NCSN++ as in score_sde and DPM-Solver, and its multi-stage version.

Sources: Song et al. 2021; Lu et al. 2022. The release numbers the modules of an encoder and of each
decoder in the order of their use, score_sde all modules of a network.
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
from multistage_diffusion.interop.releases.sizes import check_supported, pyramid, schedule_settings
from multistage_diffusion.model import ModelConfig
from multistage_diffusion.networks import NetworkConfig, StagedUNet
from multistage_diffusion.networks.config import Pyramid
from multistage_diffusion.schedule import VP, make_schedule

__all__ = ["model_config", "rules"]

BLOCK = {
    "norm0": "GroupNorm_0",
    "conv0": "Conv_0",
    "affine": "Dense_0",
    "norm1": "GroupNorm_1",
    "conv1": "Conv_1",
}
INPUT_PYRAMIDS: dict[str, Pyramid] = {"residual": "residual", "none": "none", "input_skip": "skip"}
OUTPUT_PYRAMIDS: dict[str, Pyramid] = {
    "none": "none",
    "output_skip": "skip",
    "residual": "residual",
}
SCHEDULE = {"beta_min": "beta_min", "beta_max": "beta_max"}
SUPPORTED = {
    "sde": "vpsde",
    "resblock_type": "biggan",
    "embedding_type": "positional",
    "conditional": True,
    "progressive_combine": "sum",
    "nonlinearity": "swish",
    "normalization": "GroupNorm",
    "scale_by_sigma": False,
    "centered": True,
}


def model_config(sizes: Mapping[str, Any]) -> ModelConfig:
    """The model that the sizes of a release describe.

    The release compares ``999 t``, which its network receives, with ``1000`` times its boundaries.

    Raises:
        BadInput: for networks other than NCSN++ and DDPM++ of the VP schedule, and for a residual
            pyramid whose filter the release cannot run or pads on one side only.
    """
    check_supported(sizes, SUPPORTED)
    settings = schedule_settings(sizes, VP(), SCHEDULE)
    schedule = make_schedule("vp", settings)
    upper = [float(interval[1]) for interval in sizes["stage_intervals_t"][:-1]]
    return ModelConfig(
        shape=(sizes["channels"], sizes["img_resolution"], sizes["img_resolution"]),
        classes=0,
        boundaries=tuple(float(schedule.from_clock(t * 1000 / 999)) for t in upper),
        schedule="vp",
        schedule_settings=settings,
        preconditioning="vp",
        sigma_data=0.5,
        network=_network_config(sizes),
    )


def _network_config(sizes: Mapping[str, Any]) -> NetworkConfig:
    filtered = sizes.get("fir", True)
    taps = tuple(sizes.get("fir_kernel", (1, 3, 3, 1))) if filtered else (1, 1)
    inward = pyramid(sizes, "progressive_input", INPUT_PYRAMIDS)
    outward = pyramid(sizes, "progressive", OUTPUT_PYRAMIDS)
    if taps != taps[::-1]:
        raise BadInput(f"Networks with fir_kernel {list(taps)} cannot be read: it is asymmetric.")
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
        resample_filter=taps,
        input_pyramid=inward,
        output_pyramid=outward,
        residual_scale=sizes.get("skip_rescale", True),
    )


def rules(network: StagedUNet, _: Sequence[int], names: frozenset[str]) -> Iterator[Rule]:
    """How our tensors are made from the release's.

    Args:
        network: ours; the image shape is not needed.
        names: the names of the release's tensors.
    """
    number = count()
    if any(name.startswith("all_modules.") for name in names):  # score_sde's, with one decoder
        yield from _encoder_rules("all_modules", number, network.encoders[0])
        yield from _decoder_rules("decoders.0", "all_modules", number, network.decoders[0])
        return
    yield from _encoder_rules("en_modules", number, network.encoders[0])
    for stage, decoder in enumerate(network.decoders):
        yield from _decoder_rules(f"decoders.{stage}", f"de_modules.{stage}", count(), decoder)


def _encoder_rules(theirs: str, number: Iterator[int], encoder: Any) -> Iterator[Rule]:
    ours = "encoders.0"
    steps = count()
    for layer in ("embedding.layer0", "embedding.layer1", "stem"):
        yield from layer_rules(f"{ours}.{layer}", f"{theirs}.{next(number)}")
    for index, block in enumerate(encoder.blocks):
        yield from _block_rules(f"{ours}.blocks.{index}", theirs, number, block)
        if block.how == "down" and len(encoder.pyramid):
            step = next(steps)
            residual = encoder.pyramid[step].residual
            layer, other = ("down.conv", "Conv2d_0") if residual else ("join", "Conv_0")
            place = f"{theirs}.{next(number)}"
            yield from layer_rules(f"{ours}.pyramid.{step}.{layer}", f"{place}.{other}")
    for index, block in enumerate(encoder.bottom):
        yield from _block_rules(f"{ours}.bottom.{index}", theirs, number, block)


def _decoder_rules(ours: str, theirs: str, number: Iterator[int], decoder: Any) -> Iterator[Rule]:
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
