"""NCSN++ as score_sde and DPM-Solver use it (Song et al. 2021; Lu et al. 2022), and its multi-stage
version.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import count
from typing import Any

from multistage_diffusion.errors import BadInput
from multistage_diffusion.interop.releases.rules import Rule, dense, moved, renamed, stacked
from multistage_diffusion.model import ModelConfig
from multistage_diffusion.networks import StagedUNet
from multistage_diffusion.networks.config import NetworkConfig, Pyramid
from multistage_diffusion.schedule import VP

__all__ = ["model", "rules"]

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


def model(sizes: Mapping[str, Any]) -> ModelConfig:
    """The model that the sizes of a release describe.

    The release compares ``999 t``, which is what its network is told, with ``1000`` times its
    boundaries.

    Raises:
        BadInput: for a residual pyramid whose filter the release cannot run or pads on one side
            only.
    """
    fir, inward, outward = (
        sizes.get("fir", True),
        sizes.get("progressive_input", "residual"),
        sizes.get("progressive", "none"),
    )
    if inward == "residual" and not fir:
        raise BadInput(
            "A residual input pyramid without the filter pads on one side only; that is not "
            "supported."
        )
    if outward == "residual" and fir:
        raise BadInput(
            "A residual output pyramid with the filter does not run in score_sde; there are no "
            "weights of it."
        )
    network = NetworkConfig(
        encoder_widths=(sizes["encoder_channels"],),
        decoder_widths=tuple(sizes["decoder_channels"]),
        channel_mult=tuple(sizes["channel_mult"]),
        blocks=sizes["num_blocks"],
        attention_resolutions=tuple(sizes["attn_resolutions"]),
        groups=sizes.get("groups", 16),
        bottom="encoder",
        resample_filter=tuple(sizes.get("fir_kernel", (1, 3, 3, 1))) if fir else (1, 1),
        input_pyramid=PYRAMIDS[inward],
        output_pyramid=PYRAMIDS[outward],
        residual_scale=sizes.get("skip_rescale", True),
    )
    upper = [float(interval[1]) for interval in sizes["stage_intervals_t"][:-1]]
    return ModelConfig(
        shape=(sizes["channels"], sizes["img_resolution"], sizes["img_resolution"]),
        classes=0,
        boundaries=tuple(float(VP().from_clock(t * 1000 / 999)) for t in upper),
        schedule="vp",
        preconditioning="vp",
        sigma_data=0.5,
        network=network,
    )


def rules(network: StagedUNet, _: Sequence[int], __: frozenset[str]) -> Iterator[Rule]:
    """How our tensors are made of the release's, whose modules are numbered in the order of their
    use.

    Args:
        network: ours.
    """
    yield from _encoder(network.encoders[0])
    for stage, decoder in enumerate(network.decoders):
        yield from _decoder(f"decoders.{stage}", f"de_modules.{stage}", decoder)


def _encoder(encoder: Any) -> Iterator[Rule]:
    number, steps, ours, theirs = count(), count(), "encoders.0", "en_modules"
    for layer in ("embedding.layer0", "embedding.layer1", "stem"):
        yield from moved(f"{ours}.{layer}", f"{theirs}.{next(number)}")
    for index, block in enumerate(encoder.blocks):
        yield from _block(f"{ours}.blocks.{index}", theirs, number, block)
        if block.how == "down" and len(encoder.pyramid):
            step = next(steps)
            layer, other = (
                ("down.conv", "Conv2d_0") if encoder.pyramid[step].residual else ("join", "Conv")
            )
            yield from moved(f"{ours}.pyramid.{step}.{layer}", f"{theirs}.{next(number)}.{other}")
    for index, block in enumerate(encoder.bottom):
        yield from _block(f"{ours}.bottom.{index}", theirs, number, block)


def _decoder(ours: str, theirs: str, decoder: Any) -> Iterator[Rule]:
    number, steps = count(), count()
    for index, block in enumerate(decoder.blocks):
        yield from _block(f"{ours}.blocks.{index}", theirs, number, block)
        if len(decoder.pyramid) and decoder.ends_level(index):
            yield from _output_step(f"{ours}.pyramid", theirs, next(steps), number, decoder)
    for layer in ("norm", "out"):
        yield from moved(f"{ours}.{layer}", f"{theirs}.{next(number)}")


def _output_step(
    ours: str, theirs: str, step: int, number: Iterator[int], decoder: Any
) -> Iterator[Rule]:
    if decoder.adds_pyramid:
        layers = ["norm", "out"] if step < len(decoder.pyramid) - 1 else []
    else:
        layers = ["up.conv"] if step else ["norm", "up"]
    for layer in layers:
        yield from moved(
            f"{ours}.{step}.{layer}",
            f"{theirs}.{next(number)}{'.Conv_0' if layer == 'up.conv' else ''}",
        )


def _block(ours: str, theirs: str, number: Iterator[int], block: Any) -> Iterator[Rule]:
    place = f"{theirs}.{next(number)}"
    yield from renamed(ours, place, BLOCK)
    if any(True for _ in block.skip.parameters()):
        yield from moved(f"{ours}.skip", f"{place}.Conv_2")
    if block.attention is not None:
        place = f"{theirs}.{next(number)}"
        yield from moved(f"{ours}.attention.norm", f"{place}.GroupNorm_0")
        yield from stacked(
            f"{ours}.attention.qkv", (f"{place}.NIN_0", f"{place}.NIN_1", f"{place}.NIN_2")
        )
        yield from dense(f"{ours}.attention.proj", f"{place}.NIN_3")
