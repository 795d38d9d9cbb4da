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
from multistage_diffusion.clustering.options import FEWEST_PAIRS, ClusterOptions
from multistage_diffusion.clustering.partition import best_partition, similarity_values
from multistage_diffusion.clustering.result import Clustering
from multistage_diffusion.clustering.sums import Sums
from multistage_diffusion.clustering.two_thresholds import thresholds
from multistage_diffusion.data.images import Images
from multistage_diffusion.errors import BadInput, NoStages
from multistage_diffusion.model import Model
from multistage_diffusion.schedule import Schedule
from multistage_diffusion.stages import Stages

__all__ = ["Progress", "cluster"]

Floats = NDArray[np.float64]
Places = list[tuple[float, float]]
"""Of each boundary: the quantiles of the levels next to it, or twice the quantile of itself."""
Cut = Callable[[Floats], Places]
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
        BadInput: if the curves do not reach ``alpha``, the first and last stage overlap, or
            intervals are asked for that are narrower than the levels are apart.
    """
    if options.method in ("timestep", "snr"):
        stages = distance_stages(schedule, options.method, options.stages)
        return Clustering(stages, schedule, options, [(b, b) for b in stages.boundaries])
    sums = Sums() if sums is None else sums
    sigmas = _levels(schedule, options)
    _check_width(schedule, options, sigmas)
    find = _by_gradients if options.method == "gradient" else _by_denoiser
    target = options.pairs
    while True:
        steps = _steps(images, sigmas, options, model, sums, target)
        for _ in progress(steps, sums, target) if sums.count < target else ():
            pass
        found = find(schedule, options, sigmas, sums)
        target = _more_pairs(found)
        if target <= sums.count:
            return found


def _check_width(schedule: Schedule, options: ClusterOptions, sigmas: Tensor) -> None:
    """Refuses intervals that boundaries between two levels cannot have."""
    if options.ci_width is None or not options.between_levels:
        return
    apart = float(schedule.u(sigmas).diff().min())
    if options.ci_width <= apart:
        raise BadInput(
            f"Boundaries are between two of {options.levels} levels, whose distance is "
            f"{apart:.4f}: intervals of {options.ci_width:g} need more --levels."
        )


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

    The part of a width above the spacing of the levels shrinks with the square root of the number.
    """
    wanted = found.options.ci_width
    if wanted is None or not found.spacing < wanted < found.ci_width:
        return 0
    factor = min(4.0, max(1.1, ((found.ci_width - found.spacing) / (wanted - found.spacing)) ** 2))
    return min(found.options.most_pairs, math.ceil(found.pairs * factor))


def _by_denoiser(
    schedule: Schedule, options: ClusterOptions, sigmas: Tensor, sums: Sums
) -> Clustering:
    u = schedule.u(sigmas).numpy()

    def cut(weight: Floats) -> Places:
        mean = sums.mean(weight)
        if mean.similarity is None:
            return [(at, at) for at in thresholds(u, mean.low, mean.high, options.alpha)]
        cuts, _ = best_partition(similarity_values(mean.similarity), options.stages)
        return [(u[first - 1], u[first]) for first in cuts]

    bounds = _bounds(cut, schedule, options, sums)
    return Clustering(*bounds, pairs=sums.count, sigmas=sigmas.numpy(), agreement=sums.mean())


def _by_gradients(
    schedule: Schedule, options: ClusterOptions, sigmas: Tensor, sums: Sums
) -> Clustering:
    u, affinity = schedule.u(sigmas).numpy(), Affinity(sums)

    def cut(weight: Floats) -> Places:
        cuts = affinity.cuts(weight, options.stages)
        return [(u[first - 1], u[first]) for first in cuts]

    cosines = affinity.cosines(np.ones_like(sums.pairs))
    bounds = _bounds(cut, schedule, options, sums)
    return Clustering(*bounds, pairs=sums.count, sigmas=sigmas.numpy(), cosines=cosines)


def _bounds(
    cut: Cut, schedule: Schedule, options: ClusterOptions, sums: Sums
) -> tuple[Stages, Schedule, ClusterOptions, list[tuple[float, float]]]:
    """The stages, the schedule, the options, and the intervals of the boundaries."""
    places = cut(np.ones_like(sums.pairs))
    found = [(below + above) / 2 for below, above in places]
    _check(tuple(found), options)
    stages = Stages(tuple(schedule.sigma(torch.tensor(found, dtype=torch.float64)).tolist()))
    few = sums.count < FEWEST_PAIRS
    return stages, schedule, options, [] if few else _intervals(cut, schedule, options, sums)


def _intervals(
    cut: Cut, schedule: Schedule, options: ClusterOptions, sums: Sums
) -> list[tuple[float, float]]:
    """The percentile bootstrap over groups of pairs.

    Of boundaries between two levels, from the level below to the level above.
    """
    drawn = np.array([cut(weight) for weight in sums.replicates(options.seed, REPLICATES)])
    below, above = drawn.reshape(REPLICATES, -1, 2).transpose(2, 0, 1)
    ends = np.nanpercentile(below, 2.5, axis=0), np.nanpercentile(above, 97.5, axis=0)
    limits = schedule.sigma(torch.from_numpy(np.stack(ends)))
    return [(low, high) for low, high in limits.T.tolist()]


def _check(cut: tuple[float, ...], options: ClusterOptions) -> None:
    for value, name in zip(cut, ("smallest", "largest"), strict=False):
        if np.isnan(value):
            raise NoStages(
                f"Even at the {name} noise the agreement is below alpha = {options.alpha}: lower "
                "alpha or raise eta."
            )
    edges = (0.0, *cut, 1.0)
    if not all(low < high for low, high in pairwise(edges)):
        raise NoStages(
            "The first and last stage overlap or fill everything (quantiles "
            f"{', '.join(f'{c:.3f}' for c in cut)}): "
            f"raise --alpha (now {options.alpha}), lower --eta (now {options.eta:g}), use the "
            "schedule vp if it is another one, look for two stages (--stages 2), or train with the "
            "boundaries of a preset, without --stages."
        )
