"""Several metrics on the same images."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from torch import Tensor

from multistage_diffusion.config import Settings, setting
from multistage_diffusion.errors import BadInput
from multistage_diffusion.evaluation.estimate import Estimate
from multistage_diffusion.evaluation.features.extractor import (
    Extractor,
    FeaturePrecision,
    Progress,
    no_progress,
)
from multistage_diffusion.evaluation.features.inception import Inception, load_inception
from multistage_diffusion.evaluation.features.registry import find_extractor
from multistage_diffusion.evaluation.frechet import frechet
from multistage_diffusion.evaluation.inception_score import inception_score
from multistage_diffusion.evaluation.kernel import kernel_distance
from multistage_diffusion.evaluation.metrics import (
    SUITES,
    FeatureSets,
    Metric,
    find_metrics,
)
from multistage_diffusion.evaluation.reference import reference_features

__all__ = ["Reference", "Suite", "SuiteOptions"]

DEFAULT_METRIC = "fd"


@dataclass(frozen=True, kw_only=True)
class SuiteOptions(Settings):
    """What is measured between generated and real images.

    Raises:
        BadInput: if a setting is out of its range.
    """

    metric: tuple[str, ...] = ()
    """fd (Frechet distance, the default), kd (kernel distance), mind (sliced Wasserstein), prdc
    (precision, recall, density, coverage), memorisation; each over the features of --extractor, or
    of another extractor as in fd-pixels. denoising cannot be combined with others: it is the loss
    on --data by stage and level."""
    suite: Literal["quick", "full"] | None = None
    """quick: fd, kd and mind; full: all metrics, and FID, KID and Inception Score where --inception
    is given."""
    extractor: str = "efficientnet-lite0"
    """efficientnet-lite0, efficientnet-lite0-112 (a quarter of its cost), pixels, dinov2, or a
    TorchScript or ONNX file that takes uint8 images."""
    inception: Path | None = None
    """Inception's weights, for FID, KID and Inception Score: inception-2015-12-05.pt (NVIDIA), or
    pt_inception-2015-12-05-6726825d.pth (torch-fidelity)."""
    feature_precision: FeaturePrecision = "float32"
    """Precision of the extractor's network."""
    bootstrap: int = setting(20, at_least=0, at_most=10_000)
    """Replicates for the 95 % intervals of fd and mind; 0 for none."""
    extrapolate: bool = False
    """Add the Frechet distance for infinitely many images, fd-infinity."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.metric and self.suite:
            raise BadInput("Give --metric or --suite, not both.")

    @property
    def wanted(self) -> tuple[tuple[str, str], ...]:
        """The metrics, each with the name of its extractor."""
        names = SUITES[self.suite] if self.suite else self.metric or (DEFAULT_METRIC,)
        parts = (name.partition("-") for name in names)
        return tuple((kind, extractor or self.extractor) for kind, _, extractor in parts)


@dataclass(frozen=True)
class Reference:
    """The real images of a comparison, uint8 ``[N, C, H, W]``."""

    images: Tensor
    fingerprint: str
    """Of the data they are from."""


class Suite:
    """Metrics with the extractors and the features of real images that they need.

    Args:
        options: what is measured.
        real: the real images.
        held_out: images that were not trained on, for memorisation.
        progress: passes batches of features through.

    Raises:
        BadInput: if a metric or extractor is unknown or cannot be loaded.
    """

    def __init__(
        self,
        options: SuiteOptions,
        real: Reference,
        held_out: Reference | None = None,
        progress: Progress = no_progress,
    ) -> None:
        self.options = options
        self.images = real.images
        self.progress = progress
        self.metrics = find_metrics([kind for kind, _ in options.wanted])
        self.extractors = {name: find_extractor(name) for _, name in options.wanted}
        self.real = {name: self._reference(name, real, "real") for name in self.extractors}
        self.held_out: dict[str, Tensor] = {}
        if held_out and "memorisation" in self.metrics:
            self.held_out = {
                name: self._reference(name, held_out, "held-out") for name in self.extractors
            }
        self.inception: Inception | None = None
        if options.inception:
            self.inception = load_inception(options.inception)
            self.inception_real = self._features_of(self.inception.features, real, "real")
        self.skipped: list[str] = []
        """Why metrics of a suite were left out in the last call of ``measure``."""

    def measure(self, generated: Tensor) -> dict[str, Estimate]:
        """The numbers by name, such as ``fd-pixels``.

        Args:
            generated: uint8 ``[N, C, H, W]``.

        Raises:
            BadInput: if a metric that was asked for by name cannot be measured.
        """
        self.skipped.clear()
        found: dict[str, Estimate] = {}
        features = {
            name: self._extract(extractor, generated) for name, extractor in self.extractors.items()
        }
        for kind, name in self.options.wanted:
            sets = self._sets(name, features[name])
            found |= self._attempt(self.metrics[kind], sets, self.extractors[name].name)
        return found | (self._inception(generated) if self.inception else {})

    def features(self, generated: Tensor, name: str) -> Tensor:
        """The features of images by one of the suite's extractors."""
        return self._extract(self.extractors[name], generated)

    def _sets(self, name: str, generated: Tensor) -> FeatureSets:
        return FeatureSets(
            generated,
            self.real[name],
            self.held_out.get(name),
            self.options.bootstrap,
            self.options.extrapolate,
        )

    def _attempt(self, metric: Metric, sets: FeatureSets, extractor: str) -> dict[str, Estimate]:
        """A metric's numbers; of a suite, what cannot be measured is noted and left out."""
        try:
            found = metric.measure(sets)
        except BadInput as error:
            if not self.options.suite:
                raise
            self.skipped.append(str(error))
            return {}
        return {f"{name}-{extractor}": value for name, value in found.items()}

    def _inception(self, generated: Tensor) -> dict[str, Estimate]:
        assert self.inception is not None
        features = self._extract(self.inception.features, generated)
        probabilities = self._extract(self.inception.probabilities, generated)
        return {
            "fid": frechet(features, self.inception_real, self.options.bootstrap),
            "kid": kernel_distance(features, self.inception_real),
            "inception-score": inception_score(probabilities),
        }

    def _reference(self, name: str, images: Reference, label: str) -> Tensor:
        return self._features_of(self.extractors[name], images, label)

    def _features_of(self, extractor: Extractor, images: Reference, label: str) -> Tensor:
        precision = self.options.feature_precision
        return reference_features(
            extractor, images.images, images.fingerprint, label, self.progress, precision
        )

    def _extract(self, extractor: Extractor, images: Tensor) -> Tensor:
        precision = self.options.feature_precision
        return extractor.extract(images, "generated", self.progress, precision)
