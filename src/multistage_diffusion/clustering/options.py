"""Settings of clustering."""

from dataclasses import dataclass
from typing import Literal

from multistage_diffusion.config import Settings, setting
from multistage_diffusion.errors import BadInput

__all__ = ["FEWEST_PAIRS", "ClusterOptions"]

FEWEST_PAIRS = 16  # from which intervals are computed


@dataclass(frozen=True, kw_only=True)
class ClusterOptions(Settings):
    """Settings of clustering.

    Raises:
        BadInput: if a setting is out of its range.
    """

    method: Literal["optimal-denoiser", "timestep", "snr", "gradient"] = "optimal-denoiser"
    """Cut by the behaviour of the optimal denoiser on the data; by distance in time or in log SNR
    alone; or by the cosine similarity of a trained model's gradients (Go et al. 2023)."""
    stages: int = setting(3, at_least=1, at_most=16)
    """Number of stages.

    The method optimal-denoiser cuts 3 stages by the agreement with the two limits of the denoiser,
    any other number by the similarity of noise levels to each other.
    """
    alpha: float = setting(0.9, above=0, at_most=1)
    """Least mean agreement within a stage."""
    eta: float = setting(2 / 256, above=0)
    """Largest difference at which pixels agree, divided by sigma; pixels range over [0, 1]."""
    pairs: int = setting(256, at_least=1, at_most=500_000)
    """Pairs of image and noise, each evaluated at every level."""
    levels: int = setting(33, at_least=3, at_most=1000)
    """Number of noise levels."""
    ci_width: float | None = setting(None, at_least=1e-6, at_most=1)
    """Draw more pairs until every boundary's 95 % interval is at most this wide, as a share of the
    levels (for vp, in t)."""
    most_pairs: int = setting(16384, at_least=1, at_most=500_000)
    """Most pairs that --ci-width may draw, even if an interval is still wider."""
    seed: int = setting(0, at_least=0)
    """Seed of the pairs."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.levels < self.stages:
            raise BadInput(f"{self.stages} stages need as many --levels, not {self.levels}.")
        if self.ci_width is not None and self.pairs < FEWEST_PAIRS:
            raise BadInput(
                f"Intervals need at least {FEWEST_PAIRS} pairs, not {self.pairs}: raise --pairs."
            )

    @property
    def between_levels(self) -> bool:
        """Whether boundaries are between two of the levels, and not interpolated."""
        return self.method == "gradient" or (self.method == "optimal-denoiser" and self.stages != 3)
