"""``multistage evaluate``: how far generated images are from real ones."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import tyro
from torch import Tensor

from multistage_diffusion.cli.progress import show_progress
from multistage_diffusion.cli.reading import read
from multistage_diffusion.cli.terminal import print_line, print_settings
from multistage_diffusion.config import to_json
from multistage_diffusion.data import Images, ReadOptions
from multistage_diffusion.errors import BadInput
from multistage_diffusion.evaluation import METRICS, MetricName
from multistage_diffusion.evaluation.samples import (
    Batches,
    append_result,
    describe_samples,
    draw_images,
    evenly_spaced,
    read_images,
)
from multistage_diffusion.model import load_model
from multistage_diffusion.run import Run, find_model
from multistage_diffusion.sampling import SampleOptions

__all__ = ["COMMAND", "Evaluate"]

FEW_IMAGES = 10_000
DRAWN_IMAGES = 1000


@dataclass(frozen=True, kw_only=True)
class Evaluate:
    """Measure the distance between generated and real images, and what a model costs by stage."""

    target: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN|DIR")]
    """A run or model file, from which images are drawn, or a folder of generated images."""
    data: str
    """The real images: a folder, an archive, shards, a table, a hub id or 'digits'; read as the
    options below say."""
    metric: MetricName = "fd-efficientnet-lite0"
    """Frechet distance over which features. None of them is the FID, whose features come from
    Inception."""
    images: int | None = None
    """Generated images to use. Default: all of a folder, 1000 of a run."""
    real_images: int | None = None
    """Most real images to use, evenly spaced over the data. Default: all."""
    batch_size: int = 64
    """Images drawn at a time from a run."""
    reading: Annotated[ReadOptions, tyro.conf.OmitArgPrefixes] = field(default_factory=ReadOptions)
    sampling: Annotated[SampleOptions, tyro.conf.OmitArgPrefixes] = field(
        default_factory=SampleOptions
    )
    dry_run: bool = False
    """Print the resolved settings and stop."""

    def run(self) -> None:
        if self.dry_run:
            return print_settings(to_json(self))
        if not self.target.exists():
            raise BadInput(f"There is no run or folder {self.target} to evaluate.")
        real = read(self.data, self.reading)
        _check_count("--real-images", self.real_images)
        _check_count("--images", self.images)
        reference = real.pixels[evenly_spaced(len(real), self.real_images)]
        generated, about = self._generated(real)
        value = METRICS[self.metric](generated, reference, _show_features)
        data = {"path": self.data, "fingerprint": real.fingerprint, "images": len(reference)}
        result = {
            "metric": self.metric,
            "value": value,
            "images": len(generated),
            "samples": str(self.target),
            **about,
            "data": data,
        }
        path = Run(self.target.parent if self.target.is_file() else self.target).evaluations
        append_result(path, result)
        _print_result(result)
        print_line(f"added to {path}")

    def _generated(self, real: Images) -> tuple[Tensor, dict[str, Any]]:
        """The generated images and how they were made, as JSON."""
        if not (self.target.is_file() or Run(self.target).begun):
            return read_images(self.target, self.images, real.shape), {}
        model = load_model(find_model(self.target))
        count = DRAWN_IMAGES if self.images is None else self.images
        drawn = draw_images(model, self.sampling, count, self.batch_size, real.shape, _show_batches)
        return drawn, describe_samples(model, self.sampling)


COMMAND = Evaluate


def _check_count(option: str, count: int | None) -> None:
    if count is not None and count < 2:
        raise BadInput(f"{option} must be at least 2, not {count}.")


def _show_batches(batches: Batches, total: int) -> Batches:
    return show_progress(batches, "drawn", total, lambda batch: len(batch[0]))


def _show_features(batches: Iterable[Tensor], label: str, total: int) -> Iterable[Tensor]:
    return show_progress(batches, label, total, len)


def _print_result(result: dict[str, Any]) -> None:
    counts = f"{result['images']} generated against {result['data']['images']} real images"
    print_line(f"{result['metric']} = {result['value']:.4f}  ({counts})")
    if result["images"] < FEW_IMAGES:
        print_line(
            "Frechet distances grow as samples get fewer: compare only numbers made with as many "
            "images."
        )
    cost = result.get("cost", {"stages": [], "evaluations_per_stage": []})
    stages = zip(cost["stages"], cost["evaluations_per_stage"], strict=True)
    for number, (stage, calls) in enumerate(stages, 1):
        macs = f"{stage['macs'] / 1e6:,.1f} M MACs"
        print_line(
            f"stage {number}: {stage['parameters']:,} parameters, {macs}, {calls} evaluations"
        )
