"""The result of clustering, and the stages file that holds it."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from multistage_diffusion.clustering.curves import Agreement
from multistage_diffusion.clustering.options import ClusterOptions
from multistage_diffusion.clustering.partition import best_partition, similarity_values
from multistage_diffusion.data.images import Images
from multistage_diffusion.schedule import SCHEDULES, Schedule
from multistage_diffusion.stages import Stages

__all__ = ["Clustering", "identity"]

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Clustering:
    """Stages and what they were found from."""

    stages: Stages
    schedule: Schedule
    options: ClusterOptions
    ci95: list[tuple[float, float]]
    """Bootstrap 95 % interval of each boundary, in sigma; without width where nothing was
    sampled, and none from fewer than 16 pairs."""
    pairs: int = 0
    """Pairs of image and noise that were drawn."""
    sigmas: Floats | None = None
    """Levels of the curves; None for the methods that look at no data."""
    agreement: Agreement | None = None
    """Mean agreement at each level."""
    cosines: Floats | None = None
    """Cosines between the gradients of the levels, ``[levels, levels]``."""

    @property
    def ci_width(self) -> float:
        """Width of the widest interval, as a share of the levels."""
        widths = [float(self.schedule.u(high) - self.schedule.u(low)) for low, high in self.ci95]
        return max(widths, default=0.0)

    @property
    def spacing(self) -> float:
        """Largest distance between the two levels around a boundary, as a share of all levels.

        0 where boundaries are interpolated.
        """
        if self.sigmas is None or not self.options.between_levels or not self.stages.boundaries:
            return 0.0
        u = self.schedule.u(torch.from_numpy(self.sigmas))
        above = torch.searchsorted(u, self.schedule.u(torch.tensor(self.stages.boundaries)))
        return float((u[above] - u[above - 1]).max())

    def within_stage_similarity(self, most: int = 8) -> list[float]:
        """Similarity of a random level to a random one of its stage, for 1, 2, ... stages.

        The stages are the best partition into that number, up to ``most``. Empty for three stages
        by two thresholds, which compare no levels with each other.
        """
        if self.agreement is None or self.agreement.similarity is None:
            return []
        value = similarity_values(self.agreement.similarity)
        levels = len(value) - 1
        numbers = range(1, min(most, levels) + 1)
        return [best_partition(value, stages)[1] / levels for stages in numbers]

    def to_json(
        self, images: Images, schedule_name: str, checkpoint: str | None = None
    ) -> dict[str, Any]:
        """The contents of a stages file."""
        boundaries = list(self.stages.boundaries)
        return {
            "boundaries": boundaries,
            "clock": self.schedule.clock,
            "boundaries_in_clock": [float(self.schedule.to_clock(b)) for b in boundaries],
            "ci95": self.ci95,
            **identity(images, schedule_name, self.options, checkpoint),
            "curves": self._curves(),
        }

    def _curves(self) -> dict[str, Any]:
        if self.sigmas is None:
            return {}
        curves = {"pairs": self.pairs, "sigma": self.sigmas.tolist()}
        curves["u"] = self.schedule.u(torch.from_numpy(self.sigmas)).tolist()
        if self.cosines is not None:
            curves["cosines"] = self.cosines.tolist()
        if self.agreement is not None:
            curves["low_noise_agreement"] = self.agreement.low.tolist()
            curves["high_noise_agreement"] = self.agreement.high.tolist()
            curves["within_stage_similarity"] = self.within_stage_similarity()
        return curves


def identity(
    images: Images, schedule_name: str, options: ClusterOptions, checkpoint: str | None = None
) -> dict[str, Any]:
    """The part of a stages file that determines the rest: method, parameters and data.

    Args:
        images: the data set.
        schedule_name, options: the settings.
        checkpoint: fingerprint of the model whose gradients are compared.
    """
    schedule: Any = SCHEDULES[schedule_name]
    parameters = {**asdict(options), "schedule": {"name": schedule_name, **asdict(schedule)}}
    if checkpoint is not None:
        parameters["checkpoint"] = checkpoint
    data: dict[str, Any] = {
        "fingerprint": images.fingerprint,
        "images": len(images),
        "shape": list(images.shape),
    }
    if images.latents is not None:
        data["deviation"] = images.latents.deviation
        data["autoencoder"] = images.latents.autoencoder.fingerprint
    return {"method": options.method, "parameters": parameters, "data": data}
