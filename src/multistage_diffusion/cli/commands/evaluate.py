"""``multistage evaluate``: how far generated images are from real ones."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import tyro
from torch import Tensor

from multistage_diffusion.cli.evaluation import (
    print_cost,
    print_denoising,
    print_values,
    write_pairs,
)
from multistage_diffusion.cli.progress import show_progress
from multistage_diffusion.cli.reading import read
from multistage_diffusion.cli.terminal import print_line, print_settings, print_warning
from multistage_diffusion.config import to_json
from multistage_diffusion.data import Images, ReadOptions
from multistage_diffusion.errors import BadInput
from multistage_diffusion.evaluation.denoising import measure_denoising
from multistage_diffusion.evaluation.estimate import Estimate, over_seeds
from multistage_diffusion.evaluation.samples import (
    Batches,
    append_results,
    check_shapes,
    describe_samples,
    draw_images,
    evenly_spaced,
    read_images,
    read_results,
)
from multistage_diffusion.evaluation.suite import Reference, Suite, SuiteOptions
from multistage_diffusion.model import Model, load_model
from multistage_diffusion.run import Run, find_model
from multistage_diffusion.sampling import SampleOptions
from multistage_diffusion.training.config import reported_stages

__all__ = ["COMMAND", "Evaluate"]

FEW_IMAGES = 2000
DRAWN_IMAGES = 1000
DENOISING = ("denoising",)


@dataclass(frozen=True, kw_only=True)
class Evaluate:
    """Measure how far generated images are from real ones, and what a model costs by stage."""

    target: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN|DIR")]
    """A run or model file, from which images are drawn, or a folder of generated images."""
    data: str
    """The real images: a folder, an archive, shards, a table, a hub id or 'digits'; read as the
    options below say."""
    held_out_data: str | None = None
    """Images of the same kind that were not trained on, for memorisation."""
    images: int | None = None
    """Generated images to use. Default: all of a folder, 1000 of a run. For denoising: noisy
    images in each stage."""
    real_images: int | None = None
    """Most real images to use, evenly spaced over the data. Default: all."""
    seeds: tuple[int, ...] = ()
    """Draw the images once for each of these seeds, and give mean and interval over them."""
    batch_size: int = 64
    """Images drawn at a time from a run."""
    suite: Annotated[SuiteOptions, tyro.conf.OmitArgPrefixes] = field(default_factory=SuiteOptions)
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
        _check_count("--real-images", self.real_images)
        _check_count("--images", self.images)
        read_results(self._run.evaluations)
        real = read(self.data, self.reading)
        model = load_model(find_model(self.target)) if self._has_model else None
        if self.suite.metric == DENOISING:
            self._denoising(model, real)
        else:
            self._distances(model, real)

    def _denoising(self, model: Model | None, images: Images) -> None:
        """Measures the denoising loss."""
        if model is None:
            raise BadInput(f"The denoising loss is that of a model: {self.target} is a folder.")
        count = DRAWN_IMAGES if self.images is None else self.images
        found = measure_denoising(model, images, reported_stages(model), count, self.sampling.seed)
        print_denoising(found, reported_stages(model))
        mean = _summary([found.mean])
        about = {"samples": str(self.target), "trained_images": model.images}
        counts = {"images": count * len(found.stages), "seeds": [self.sampling.seed]}
        data = self._describe(images, len(images))
        result = {"metric": "denoising", **mean, **counts, **about, "data": data}
        self._write([{**result, **to_json(found)}])

    def _distances(self, model: Model | None, real: Images) -> None:
        """Measures distances between generated and real images."""
        if model is not None:
            check_shapes(model.config.shape, real.shape)
        chosen = real.pixels[evenly_spaced(len(real), self.real_images)]
        suite = Suite(
            self.suite, Reference(chosen, real.fingerprint), self._held_out(), _show_features
        )
        sets, about = self._generated(model, real)
        values = [suite.measure(images) for images in sets]
        self._warn(suite, len(sets[0]))
        found = {name: [value[name] for value in values] for name in values[0]}
        data = self._describe(real, len(chosen))
        results = [
            {"metric": name, **_summary(estimates), "images": len(sets[0]), **about, "data": data}
            for name, estimates in found.items()
        ]
        print_values(results)
        print_cost(about)
        self._write_pairs(suite, sets[0], chosen)
        self._write(results)

    @property
    def _has_model(self) -> bool:
        return self.target.is_file() or Run(self.target).begun

    @property
    def _run(self) -> Run:
        return Run(self.target.parent if self.target.is_file() else self.target)

    def _held_out(self) -> Reference | None:
        if self.held_out_data is None:
            return None
        images = read(self.held_out_data, self.reading)
        return Reference(images.pixels[:], images.fingerprint)

    def _generated(self, model: Model | None, real: Images) -> tuple[list[Tensor], dict[str, Any]]:
        """The generated images, a set for each seed, and how they were made, as JSON."""
        if model is None:
            images = read_images(self.target, self.images, real.shape)
            return [images], {"samples": str(self.target)}
        seeds = self.seeds or (self.sampling.seed,)
        sets = [self._draw(model, replace(self.sampling, seed=seed)) for seed in seeds]
        about = {"samples": str(self.target), "seeds": list(seeds)}
        return sets, {**about, **describe_samples(model, self.sampling)}

    def _draw(self, model: Model, sampling: SampleOptions) -> Tensor:
        count = DRAWN_IMAGES if self.images is None else self.images
        return draw_images(model, sampling, count, self.batch_size, _show_batches)

    def _describe(self, images: Images, count: int) -> dict[str, Any]:
        return {"path": self.data, "fingerprint": images.fingerprint, "images": count}

    def _warn(self, suite: Suite, count: int) -> None:
        for reason in suite.skipped:
            print_warning(f"left out: {reason}")
        if self.suite.suite == "full" and self.suite.inception is None:
            print_warning(
                "left out: FID, KID and Inception Score need Inception's weights, --inception FILE"
            )
        if count < FEW_IMAGES:
            print_warning(
                f"{count} images are few: Frechet distances and MIND grow as images get fewer; "
                "compare only numbers made with as many"
            )

    def _write_pairs(self, suite: Suite, generated: Tensor, real: Tensor) -> None:
        if "memorisation" in suite.metrics:
            print_line(f"nearest pairs: {write_pairs(self._run, suite, generated, real)}")

    def _write(self, results: list[dict[str, Any]]) -> None:
        append_results(self._run.evaluations, results)
        print_line(f"added to {self._run.evaluations}")


COMMAND = Evaluate


def _summary(estimates: list[Estimate]) -> dict[str, Any]:
    """Value and interval: over seeds if there are several, else over images."""
    values = [estimate.value for estimate in estimates]
    found = over_seeds(values) if len(values) > 1 else estimates[0]
    interval = list(found.interval) if found.interval else None
    return {
        "value": found.value,
        "interval": interval,
        "interval_over": "seeds" if len(values) > 1 else "images",
        **({"values": values} if len(values) > 1 else {}),
    }


def _check_count(option: str, count: int | None) -> None:
    if count is not None and count < 2:
        raise BadInput(f"{option} must be at least 2, not {count}.")


def _show_batches(batches: Batches, total: int) -> Batches:
    return show_progress(batches, "drawn", total, lambda batch: len(batch[0]))


def _show_features(batches: Iterable[Tensor], label: str, total: int) -> Iterable[Tensor]:
    return show_progress(batches, label, total, len)
