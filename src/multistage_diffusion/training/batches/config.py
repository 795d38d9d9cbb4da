"""Settings of what is drawn for a batch."""

import math
from dataclasses import dataclass
from typing import Literal

from multistage_diffusion.config import Settings, setting
from multistage_diffusion.errors import BadInput

__all__ = ["DrawConfig"]


@dataclass(frozen=True, kw_only=True)
class DrawConfig(Settings):
    """Which images and noise levels are drawn, and how images are augmented."""

    shares: Literal["natural", "uniform"] | tuple[float, ...] = setting("natural", above=0)
    """Share of each stage in the training images: natural for the shares under the schedule,
    uniform for equal shares, or numbers."""
    share_boundaries: tuple[float, ...] = setting((), above=0)
    """Noise levels that separate the intervals of --shares, where these are not the network's
    stages: gives a unified network the density of a multi-stage one."""
    batches: Literal["mixed", "single-stage"] = "mixed"
    """Mix the stages in every batch, or give each batch to one stage, drawn by the shares (as the
    paper does)."""
    importance: bool = False
    """Weight the loss (importance sampling) so that other shares do not change the objective."""
    noise_candidates: int = setting(1, at_least=1, at_most=1024)
    """Draw this many noise samples for each image and use the nearest one (Immiscible Diffusion);
    not with --augment."""
    flip: bool = True
    """Mirror images left-right at random. Turn off for letters and digits."""
    augment: float = setting(0.0, at_least=0, at_most=1)
    """Probability of each geometric augmentation, which the network is conditioned on (EDM's
    pipeline); needs --augment-channels 9."""
    held_out: float = setting(0.0, at_least=0, below=1)
    """Share of the images that is held out of training; the loss on it is recorded, and overfitting
    is reported."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.noise_candidates > 1 and self.augment:
            raise BadInput(
                "The setting noise_candidates is for training without augment: give one of them."
            )
        shares = self.shares
        if isinstance(shares, tuple) and not _all_positive(shares):
            raise BadInput(
                f"The setting shares needs a positive number for each stage, not {list(shares)}."
            )


def _all_positive(shares: tuple[float, ...]) -> bool:
    return bool(shares) and min(shares) > 0 and math.isfinite(sum(shares))
