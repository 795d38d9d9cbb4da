"""Metrics by name. To add one, write it in a file of its own and list it below."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from multistage_diffusion.errors import BadInput
from multistage_diffusion.evaluation.estimate import Estimate
from multistage_diffusion.evaluation.frechet import extrapolated_distance, frechet
from multistage_diffusion.evaluation.kernel import kernel_distance
from multistage_diffusion.evaluation.memorisation import measure_memorisation
from multistage_diffusion.evaluation.mind import mind
from multistage_diffusion.evaluation.neighbours import compare_manifolds

__all__ = ["METRICS", "SUITES", "FeatureSets", "Metric", "find_metrics"]

Estimates = Mapping[str, Estimate]


@dataclass(frozen=True)
class FeatureSets:
    """Features of the images that are compared, and how."""

    generated: Tensor
    """``[N, F]``"""
    real: Tensor
    """``[M, F]``"""
    held_out: Tensor | None = None
    """Of images that were not trained on, ``[H, F]``."""
    replicates: int = 20
    """Of the bootstrap."""
    extrapolate: bool = False
    """Whether to add the Frechet distance for infinitely many images."""


@dataclass(frozen=True)
class Metric:
    """One or several numbers from features."""

    about: str
    """A few words for the help."""
    measure: Callable[[FeatureSets], Estimates]
    """Numbers by name; the extractor's name is added to it."""
    values: Sequence[str]
    """The names."""


def _frechet(sets: FeatureSets) -> Estimates:
    found = {"fd": frechet(sets.generated, sets.real, sets.replicates)}
    if sets.extrapolate:
        found["fd-infinity"] = extrapolated_distance(sets.generated, sets.real)
    return found


def _kernel(sets: FeatureSets) -> Estimates:
    return {"kd": kernel_distance(sets.generated, sets.real)}


def _mind(sets: FeatureSets) -> Estimates:
    return {"mind": mind(sets.generated, sets.real, sets.replicates)}


def _manifolds(sets: FeatureSets) -> Estimates:
    return vars(compare_manifolds(sets.generated, sets.real))


def _memorisation(sets: FeatureSets) -> Estimates:
    found = measure_memorisation(sets.generated, sets.real, sets.held_out)
    return {"memorisation": found.share}


METRICS: dict[str, Metric] = {
    "fd": Metric("Frechet distance", _frechet, ("fd", "fd-infinity")),
    "kd": Metric("kernel distance, unbiased", _kernel, ("kd",)),
    "mind": Metric("sliced Wasserstein distance", _mind, ("mind",)),
    "prdc": Metric(
        "precision, recall, density and coverage",
        _manifolds,
        ("precision", "recall", "density", "coverage"),
    ),
    "memorisation": Metric(
        "share of images unusually close to a training image",
        _memorisation,
        ("memorisation",),
    ),
}
"""The metrics by name. Over other features than Inception's none of them is FID or KID."""

SUITES: dict[str, tuple[str, ...]] = {
    "quick": ("fd", "kd", "mind"),
    "full": tuple(METRICS),
}
"""Names of the metrics that are measured together."""


def find_metrics(names: Sequence[str]) -> dict[str, Metric]:
    """Metrics by name.

    Raises:
        BadInput: if there is none of a name.
    """
    for name in names:
        if name not in METRICS:
            raise BadInput(f"There is no metric {name}: give {', '.join(METRICS)} or denoising.")
    return {name: METRICS[name] for name in names}
