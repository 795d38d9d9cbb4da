"""Distances between sets of images by name. To add a metric, write it here and list it below."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Literal

from torch import Tensor

from multistage_diffusion.errors import BadInput
from multistage_diffusion.evaluation.features import EXTRACTORS, Extractor
from multistage_diffusion.evaluation.frechet import Moments, frechet_distance

__all__ = ["METRICS", "Metric", "MetricName", "Progress", "feature_moments"]

Progress = Callable[[Iterable[Tensor], str, int], Iterable[Tensor]]
"""Passes batches through and may show how far they have come; it is given a label and a total."""


def no_progress(batches: Iterable[Tensor], *_: str | int) -> Iterable[Tensor]:
    """The progress that shows nothing."""
    return batches


@dataclass(frozen=True)
class Metric:
    """A distance between generated and real images, both uint8 ``[N, C, H, W]``."""

    name: str
    distance: Callable[[Tensor, Tensor, Progress], float]
    about: str
    """A sentence for the help."""

    def __call__(self, generated: Tensor, real: Tensor, progress: Progress = no_progress) -> float:
        return self.distance(generated, real, progress)


def feature_moments(
    extractor: Extractor, pixels: Tensor, label: str, progress: Progress = no_progress
) -> Moments:
    """Mean and covariance of the features of images.

    Args:
        extractor: from images to features.
        pixels: uint8 ``[N, C, H, W]``.
        label: what progress and messages call the images.
        progress: passes batches of features through.

    Raises:
        BadInput: if there are no images.
    """
    features = (extractor.features(batch) for batch in pixels.split(extractor.batch))
    moments: Moments | None = None
    for batch in progress(features, f"{label} images", len(pixels)):
        moments = moments or Moments.empty(batch.shape[1])
        moments.add(batch.numpy())
    if moments is None:
        raise BadInput(f"There are no {label} images to evaluate.")
    return moments


def _frechet(extractor_name: str, generated: Tensor, real: Tensor, progress: Progress) -> float:
    """Frechet distance over the features of an extractor."""
    extractor = EXTRACTORS[extractor_name]()
    generated_moments = feature_moments(extractor, generated, "generated", progress)
    return frechet_distance(generated_moments, feature_moments(extractor, real, "real", progress))


_FRECHET = tuple(
    Metric(f"fd-{name}", partial(_frechet, name), f"Frechet distance over the features of {name}")
    for name in EXTRACTORS
)

METRICS: dict[str, Metric] = {metric.name: metric for metric in _FRECHET}
"""The metrics by name. None of them is the FID, whose features come from Inception."""

if TYPE_CHECKING:
    MetricName = str
else:
    MetricName = Literal[tuple(METRICS)]
