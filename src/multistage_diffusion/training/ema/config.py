"""Settings of the averaged weights."""

from dataclasses import dataclass
from typing import Literal

from multistage_diffusion.config import Settings, setting
from multistage_diffusion.errors import BadInput
from multistage_diffusion.training.ema.profiles import NARROWEST_AVERAGE, WIDEST_AVERAGE

__all__ = ["AveragingConfig"]


@dataclass(frozen=True, kw_only=True)
class AveragingConfig(Settings):
    """Averages of the weights over training."""

    ema_half_life: int = setting(50_000, above=0)
    """Half-life of the averaged weights, in images."""
    ema_rampup: float = setting(0.05, above=0)
    """The half-life is at most this fraction of the images seen, so that a short run does not
    average its random start."""
    ema_clock: Literal["common", "own"] = "own"
    """Which images the half-life of a decoder counts: all, or only those of its own stage."""
    posthoc_ema: tuple[float, ...] = setting((), at_least=NARROWEST_AVERAGE)
    """Also keep averages of these relative widths (for example 0.05 0.1), from which multistage ema
    makes any other width."""
    snapshot_images: int = setting(50_000, above=0, may_change=True)
    """Images between snapshots of the averages of --posthoc-ema."""

    def __post_init__(self) -> None:
        super().__post_init__()
        widths = self.posthoc_ema
        valid = all(width <= WIDEST_AVERAGE for width in widths)
        if not valid or len(set(widths)) < len(widths):
            raise BadInput(
                f"The setting posthoc_ema needs different widths from {NARROWEST_AVERAGE:g} to "
                f"{WIDEST_AVERAGE:.4f}, not {list(widths)}."
            )
