"""Settings of clustering."""

from dataclasses import dataclass
from typing import Literal

from multistage_diffusion.errors import BadInput

__all__ = ["FEWEST_PAIRS", "ClusterOptions"]

MOST_STAGES = 16
FEWEST_PAIRS = 16  # from which intervals are computed


@dataclass(frozen=True, kw_only=True)
class ClusterOptions:
    """Settings of clustering.

    Raises:
        BadInput: if a setting is out of its range.
    """

    method: Literal["optimal-denoiser", "timestep", "snr", "gradient"] = "optimal-denoiser"
    """By the behaviour of the optimal denoiser on the data; by distance in time or in log SNR
    alone; or by the cosine of the gradients of a trained model (Go et al. 2023)."""
    stages: int = 3
    """Number of stages.

    The optimal denoiser gives 3 by its agreement with its two limits, any other number by the
    similarity of noise levels to each other.
    """
    alpha: float = 0.9
    """Mean agreement that a stage must keep."""
    eta: float = 2 / 256
    """Tolerated difference of a pixel, in units of sigma and of the range [0, 1]."""
    pairs: int = 256
    """Pairs of image and noise, each evaluated at every level."""
    levels: int = 33
    """Noise levels."""
    ci_width: float | None = None
    """Draw more pairs until every boundary's 95 % interval is at most this wide, as a share of the
    levels (for vp, in t)."""
    most_pairs: int = 16384
    """No more pairs than this, even if an interval stays wider."""
    seed: int = 0
    """The pairs are a function of it."""

    def __post_init__(self) -> None:
        if not 1 <= self.stages <= MOST_STAGES:
            raise BadInput(
                f"The number of stages must be between 1 and {MOST_STAGES}, not {self.stages}."
            )
        if not 0 < self.alpha <= 1:
            raise BadInput(f"alpha is a mean agreement between 0 and 1, not {self.alpha}.")
        if self.seed < 0:
            raise BadInput(f"The seed must not be negative, not {self.seed}.")
        if not self.eta > 0:
            raise BadInput(f"eta must be positive, not {self.eta}.")
        if self.ci_width is not None and not self.ci_width > 0:
            raise BadInput(f"The width of an interval must be positive, not {self.ci_width}.")
        if self.ci_width is not None and self.pairs < FEWEST_PAIRS:
            raise BadInput(f"Intervals need at least {FEWEST_PAIRS} pairs, not {self.pairs}.")
        least = max(3, self.stages)
        if self.pairs < 1 or self.levels < least:
            raise BadInput(
                f"Clustering needs at least 1 pair and {least} levels, not {self.pairs} and "
                f"{self.levels}."
            )

    @property
    def between_levels(self) -> bool:
        """Whether boundaries are between two of the levels, and not interpolated."""
        return self.method == "gradient" or (self.method == "optimal-denoiser" and self.stages != 3)
