"""Stages of a data set by each of the methods, with bootstrap intervals."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from multistage_diffusion.clustering.curves import Agreement, agreement
from multistage_diffusion.clustering.distance import distance_stages
from multistage_diffusion.clustering.options import ClusterOptions
from multistage_diffusion.clustering.partition import best_partition, similarity_values
from multistage_diffusion.clustering.two_thresholds import thresholds
from multistage_diffusion.data.images import Images
from multistage_diffusion.errors import BadInput
from multistage_diffusion.schedule import SCHEDULES, Schedule
from multistage_diffusion.stages import Stages

__all__ = ["Clustering", "cluster", "identity"]

Floats = NDArray[np.float64]
REPLICATES = 500


@dataclass(frozen=True)
class Clustering:
    """Stages and what they were found from."""

    stages: Stages
    schedule: Schedule
    options: ClusterOptions
    ci95: list[tuple[float, float]]
    """Bootstrap 95 % interval of each boundary, in sigma; without width where nothing was sampled."""
    sigmas: Floats | None = None
    """Levels of the curves; None for the methods that look at no data."""
    agreement: Agreement | None = None

    def within_stage_similarity(self, most: int = 8) -> list[float]:
        """Similarity of a random level to a random one of its stage, in the best partition into 1, 2, ... ``most`` stages.

        Empty for three stages by two thresholds, which compare no levels with each other.
        """
        if self.agreement is None or self.agreement.similarity is None:
            return []
        value = similarity_values(self.agreement.similarity.mean(0))
        levels = len(value) - 1
        return [best_partition(value, stages)[1] / levels for stages in range(1, min(most, levels) + 1)]

    def to_json(self, images: Images, schedule_name: str) -> dict[str, Any]:
        """The contents of a stages file."""
        boundaries = list(self.stages.boundaries)
        return {
            "boundaries": boundaries,
            "clock": self.schedule.clock,
            "boundaries_in_clock": [float(self.schedule.to_clock(b)) for b in boundaries],
            "ci95": self.ci95,
            **identity(images, schedule_name, self.options),
            "curves": self._curves(),
        }

    def _curves(self) -> dict[str, list[float]]:
        if self.agreement is None or self.sigmas is None:
            return {}
        return {
            "sigma": self.sigmas.tolist(),
            "u": self.schedule.u(torch.from_numpy(self.sigmas)).tolist(),
            "low_noise_agreement": self.agreement.low.mean(0).tolist(),
            "high_noise_agreement": self.agreement.high.mean(0).tolist(),
            "within_stage_similarity": self.within_stage_similarity(),
        }


def identity(images: Images, schedule_name: str, options: ClusterOptions) -> dict[str, Any]:
    """The part of a stages file that determines the rest: method, parameters and data."""
    schedule: Any = SCHEDULES[schedule_name]
    return {
        "method": options.method,
        "parameters": {**asdict(options), "schedule": {"name": schedule_name, **asdict(schedule)}},
        "data": {"fingerprint": images.fingerprint, "images": len(images), "shape": list(images.shape)},
    }


def cluster(images: Images, schedule: Schedule, options: ClusterOptions, parts: Iterable[Agreement] | None = None) -> Clustering:
    """The stages of a data set.

    Args:
        images: the data set.
        schedule: the density of noise levels over which means are taken.
        options: method and settings.
        parts: what ``agreement(images, schedule.levels(options.levels), options)`` yields, if it is to be watched on its way.

    Raises:
        BadInput: if the curves do not reach ``alpha``, or the first and last stage overlap.
    """
    if options.method != "optimal-denoiser":
        stages = distance_stages(schedule, options.method, options.stages)
        return Clustering(stages, schedule, options, [(b, b) for b in stages.boundaries])
    sigmas = schedule.levels(options.levels)
    whole = _joined(list(agreement(images, sigmas, options) if parts is None else parts))
    u = schedule.u(sigmas).numpy()
    cut = _cut(u, _mean(whole), options)
    _check(cut, options)
    stages = Stages(tuple(schedule.sigma(torch.tensor(cut, dtype=torch.float64)).tolist()))
    return Clustering(stages, schedule, options, _intervals(u, whole, schedule, options), sigmas.numpy(), whole)


def _joined(parts: list[Agreement]) -> Agreement:
    """All pairs as one."""
    similarities = [part.similarity for part in parts if part.similarity is not None]
    low, high = (np.concatenate(arrays) for arrays in zip(*((part.low, part.high) for part in parts), strict=True))
    return Agreement(low, high, np.concatenate(similarities) if similarities else None)


def _mean(whole: Agreement, weights: Floats | None = None) -> Agreement:
    """Means over pairs, weighted if so asked."""
    low, high = (np.average(values, axis=0, weights=weights) for values in (whole.low, whole.high))
    similar = None if whole.similarity is None else np.average(whole.similarity, axis=0, weights=weights)
    return Agreement(low, high, similar)


def _cut(u: Floats, mean: Agreement, options: ClusterOptions) -> tuple[float, ...]:
    """Quantiles of the boundaries."""
    if mean.similarity is None:
        return thresholds(u, mean.low, mean.high, options.alpha)
    cuts, _ = best_partition(similarity_values(mean.similarity), options.stages)
    return tuple((u[cut - 1] + u[cut]) / 2 for cut in cuts)


def _check(cut: tuple[float, ...], options: ClusterOptions) -> None:
    for value, name in zip(cut, ("smallest", "largest"), strict=False):
        if np.isnan(value):
            raise BadInput(f"Even at the {name} noise the agreement is below alpha = {options.alpha}: lower alpha or raise eta.")
    edges = (0.0, *cut, 1.0)
    if not all(low < high for low, high in pairwise(edges)):
        raise BadInput(
            f"The first and last stage overlap or fill everything (quantiles {', '.join(f'{c:.3f}' for c in cut)}): "
            f"raise alpha (now {options.alpha}), lower eta (now {options.eta:g}) or use the schedule vp."
        )


def _intervals(u: Floats, whole: Agreement, schedule: Schedule, options: ClusterOptions) -> list[tuple[float, float]]:
    """Percentile bootstrap over pairs."""
    if options.stages == 1:
        return []
    rng, pairs = np.random.default_rng(options.seed), len(whole.low)
    weights = rng.multinomial(pairs, np.full(pairs, 1 / pairs), REPLICATES)
    cuts = np.array([_cut(u, _mean(whole, weight), options) for weight in weights])
    limits = schedule.sigma(torch.from_numpy(np.nanpercentile(cuts, [2.5, 97.5], axis=0)))
    return [(low, high) for low, high in limits.T.tolist()]
