"""Decoder widths under a budget of multiply-accumulates."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache

from multistage_diffusion.cost import stage_costs, unified
from multistage_diffusion.errors import BadInput
from multistage_diffusion.model import ModelConfig

__all__ = ["propose_widths"]

WIDTH_STEP = 8
SCALE_STEPS = 64  # in which proportional widths are tried, for each factor of one


def propose_widths(config: ModelConfig, share: Sequence[float], ratio: float) -> tuple[int, ...]:
    """Decoder widths that cost at most, and nearly, a given amount.

    They are multiples of 8 in the proportions of the present ones.

    Args:
        config: a network with one encoder.
        share: how often each stage is evaluated; the cost is the mean of the stages' MACs with
            these weights.
        ratio: the largest cost, as a multiple of the unified twin's.

    Raises:
        BadInput: if there are several encoders, or even the narrowest decoders cost more.
    """
    if len(config.network.encoder_widths) > 1:
        raise BadInput(
            "Widths are proposed for networks with one shared encoder, not for separate ones: "
            "leave out --budget."
        )
    twin = unified(config)
    limit = ratio * _macs(twin, twin.network.decoder_widths[0])

    def fits(scale: int) -> bool:
        return _mean_macs(config, share, _scaled(config, scale)) <= limit

    if not fits(0):
        narrowest = _mean_macs(config, share, [WIDTH_STEP] * len(share)) * ratio / limit
        raise BadInput(
            f"Even decoders of width {WIDTH_STEP} cost {narrowest:.3f} times the unified network; "
            f"give a --budget above {ratio:g}."
        )
    return _scaled(config, _largest(fits))


def _largest(fits: Callable[[int], bool]) -> int:
    """The largest number that fits, where 0 does and all below a fitting one do; by bisection."""
    low = 0
    high = 1
    while fits(high):
        low = high
        high = 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        if fits(middle):
            low = middle
        else:
            high = middle
    return low


def _scaled(config: ModelConfig, scale: int) -> tuple[int, ...]:
    """The present widths times ``scale / SCALE_STEPS``, rounded to multiples of the step."""
    widths = (scale * width / SCALE_STEPS / WIDTH_STEP for width in config.network.decoder_widths)
    return tuple(WIDTH_STEP * max(1, round(width)) for width in widths)


def _mean_macs(config: ModelConfig, share: Sequence[float], widths: Sequence[int]) -> float:
    macs = (_macs(config, width) for width in widths)
    return sum(weight * cost for weight, cost in zip(share, macs, strict=True))


@lru_cache(maxsize=256)
def _macs(config: ModelConfig, width: int) -> int:
    """Multiply-accumulates forward with a single decoder of this width."""
    network = replace(config.network, decoder_widths=(width,))
    return stage_costs(replace(config, boundaries=(), network=network))[0].macs
