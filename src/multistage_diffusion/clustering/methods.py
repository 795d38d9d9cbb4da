"""Stages of a data set by each of the methods, with bootstrap intervals."""

import math
from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from multistage_diffusion.clustering.curves import agreement
from multistage_diffusion.clustering.distance import distance_stages
from multistage_diffusion.clustering.gradient import Affinity, add_gradients
from multistage_diffusion.clustering.options import ClusterOptions
from multistage_diffusion.clustering.partition import best_partition, similarity_values
from multistage_diffusion.clustering.result import Clustering
from multistage_diffusion.clustering.sums import Sums
from multistage_diffusion.clustering.two_thresholds import thresholds
from multistage_diffusion.data.images import Images
from multistage_diffusion.errors import BadInput
from multistage_diffusion.model import Model
from multistage_diffusion.schedule import Schedule
from multistage_diffusion.stages import Stages

__all__ = ["Progress", "cluster"]

Floats = NDArray[np.float64]
Cut = Callable[[Floats], tuple[float, ...]]
Progress = Callable[[Iterator[int], Sums, int], Iterable[int]]
"""Passes on the steps of a computation, each a number of pairs, while the sums grow to a number."""
REPLICATES = 500


def _no_progress(steps: Iterator[int], _: Sums, __: int) -> Iterator[int]:
    return steps


def cluster(
    images: Images,
    schedule: Schedule,
    options: ClusterOptions,
    model: Model | None = None,
    sums: Sums | None = None,
    progress: Progress = _no_progress,
) -> Clustering:
    """The stages of a data set.

    Args:
        images: the data set.
        schedule: the density of noise levels over which means are taken.
        options: method and settings.
        model: a trained model, for the method ``gradient``.
        sums: what an interrupted call with the same data and settings had summed; this call adds to
            it.
        progress: passes on the steps of the computation, each a number of pairs, while the sums
            grow to the given number of pairs.

    Raises:
        BadInput: if the curves do not reach ``alpha``, or the first and last stage overlap.
    """
    if options.method in ("timestep", "snr"):
        stages = distance_stages(schedule, options.method, options.stages)
        return Clustering(stages, schedule, options, [(b, b) for b in stages.boundaries])
    sums = Sums() if sums is None else sums
    find = _by_gradients if options.method == "gradient" else _by_denoiser
    sigmas = _levels(schedule, options)
    target = options.pairs
    while True:
        steps = _steps(images, sigmas, options, model, sums, target)
        for _ in progress(steps, sums, target) if sums.count < target else ():
            pass
        found = find(schedule, options, sigmas, sums)
        target = _more_pairs(found)
        if target <= sums.count:
            return found


def _levels(schedule: Schedule, options: ClusterOptions) -> Tensor:
    """The levels of the curves.

    Gradients are compared at equal quantiles, because each level counts as much as another.
    """
    if options.method == "gradient":
        u = (torch.arange(options.levels, dtype=torch.float64) + 0.5) / options.levels
        return schedule.sigma(u)
    return schedule.levels(options.levels)


def _steps(
    images: Images,
    sigmas: Tensor,
    options: ClusterOptions,
    model: Model | None,
    sums: Sums,
    target: int,
) -> Iterator[int]:
    """Grows the sums to ``target`` pairs; yields how many were added."""
    if options.method == "gradient":
        if model is None:
            raise BadInput("The method gradient needs a trained model (--checkpoint RUN).")
        yield from add_gradients(model, images, sigmas, options, sums, target)
        return
    for part in agreement(images, sigmas, options, sums.count, target):
        sums.add(part)
        yield len(part.low)


def _more_pairs(found: Clustering) -> int:
    """How many pairs the intervals need to be as narrow as asked for; 0 if they are.

    They shrink with the square root of the number.
    """
    wanted = found.options.ci_width
    if wanted is None or found.ci_width <= wanted:
        return 0
    factor = min(4.0, max(1.1, (found.ci_width / wanted) ** 2))
    return min(found.options.most_pairs, math.ceil(found.pairs * factor))


def _by_denoiser(
    schedule: Schedule, options: ClusterOptions, sigmas: Tensor, sums: Sums
) -> Clustering:
    u = schedule.u(sigmas).numpy()

    def cut(weight: Floats) -> tuple[float, ...]:
        mean = sums.mean(weight)
        if mean.similarity is None:
            return thresholds(u, mean.low, mean.high, options.alpha)
        cuts, _ = best_partition(similarity_values(mean.similarity), options.stages)
        return tuple((u[first - 1] + u[first]) / 2 for first in cuts)

    stages, ci95 = _stages_and_intervals(cut, schedule, options, sums)
    return Clustering(stages, schedule, options, ci95, sums.count, sigmas.numpy(), sums.mean())


def _by_gradients(
    schedule: Schedule, options: ClusterOptions, sigmas: Tensor, sums: Sums
) -> Clustering:
    u, affinity = schedule.u(sigmas).numpy(), Affinity(sums)
    stages, ci95 = _stages_and_intervals(
        lambda weight: affinity.cut(u, weight, options.stages), schedule, options, sums
    )
    cosines = affinity.cosines(np.ones_like(sums.pairs))
    return Clustering(stages, schedule, options, ci95, sums.count, sigmas.numpy(), cosines=cosines)


def _stages_and_intervals(
    cut: Cut, schedule: Schedule, options: ClusterOptions, sums: Sums
) -> tuple[Stages, list[tuple[float, float]]]:
    """The stages, and the percentile bootstrap of their boundaries over groups of pairs."""
    found = cut(np.ones_like(sums.pairs))
    _check(found, options)
    stages = Stages(tuple(schedule.sigma(torch.tensor(found, dtype=torch.float64)).tolist()))
    if not found:
        return stages, []
    drawn = np.array([cut(weight) for weight in sums.replicates(options.seed, REPLICATES)])
    limits = schedule.sigma(torch.from_numpy(np.nanpercentile(drawn, [2.5, 97.5], axis=0)))
    return stages, [(low, high) for low, high in limits.T.tolist()]


def _check(cut: tuple[float, ...], options: ClusterOptions) -> None:
    for value, name in zip(cut, ("smallest", "largest"), strict=False):
        if np.isnan(value):
            raise BadInput(
                f"Even at the {name} noise the agreement is below alpha = {options.alpha}: lower "
                "alpha or raise eta."
            )
    edges = (0.0, *cut, 1.0)
    if not all(low < high for low, high in pairwise(edges)):
        raise BadInput(
            "The first and last stage overlap or fill everything (quantiles "
            f"{', '.join(f'{c:.3f}' for c in cut)}): "
            f"raise alpha (now {options.alpha}), lower eta (now {options.eta:g}), use the "
            "schedule vp, or train with the "
            "boundaries of a preset, without --stages."
        )
