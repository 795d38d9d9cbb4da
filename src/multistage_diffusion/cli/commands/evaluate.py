"""``multistage evaluate``: how far generated images are from real ones."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import tyro
from torch import Tensor

from multistage_diffusion.cli.evaluation import (
    print_caveats,
    print_cost,
    print_denoising,
    print_reading,
    print_values,
    summary,
    write_pairs,
)
from multistage_diffusion.cli.holding import holding
from multistage_diffusion.cli.plans import with_plan
from multistage_diffusion.cli.progress import show_progress
from multistage_diffusion.cli.reading import read
from multistage_diffusion.cli.terminal import print_line, print_settings, print_warning
from multistage_diffusion.config import Settings, changed, setting, to_json
from multistage_diffusion.data import Images, ReadOptions
from multistage_diffusion.data.images import evenly_spaced
from multistage_diffusion.distributed import default_device
from multistage_diffusion.errors import BadInput
from multistage_diffusion.evaluation.denoising import measure_denoising
from multistage_diffusion.evaluation.estimate import mean_of_values
from multistage_diffusion.evaluation.samples import (
    Batches,
    append_results,
    check_shapes,
    describe_samples,
    draw_images,
    read_images,
    read_results,
)
from multistage_diffusion.evaluation.suite import Reference, Suite, SuiteOptions
from multistage_diffusion.files import json_fingerprint
from multistage_diffusion.latents.find import find_autoencoder, is_autoencoder
from multistage_diffusion.latents.prepared import as_model_sees
from multistage_diffusion.latents.quality import HIGHEST_PSNR, image_psnr, reconstruct
from multistage_diffusion.model import Model, load_model
from multistage_diffusion.run import Run, checkpoint_model, find_model, run_of
from multistage_diffusion.sampling import SampleOptions
from multistage_diffusion.sampling.plan import load_plan
from multistage_diffusion.tensorfile import read_metadata
from multistage_diffusion.training.config import reported_stages

__all__ = ["COMMAND", "Evaluate"]

DRAWN_IMAGES = 1000
DENOISING = ("denoising",)
DECISIVE = (
    "held_out_data",
    "images",
    "real_images",
    "seeds",
    "suite",
    "reading",
    "sampling",
    "tag",
)
"""Settings that decide what is measured."""


@dataclass(frozen=True, kw_only=True)
class Evaluate(Settings):
    """Measure how far generated images are from real ones, and what a model costs by stage."""

    target: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN|DIR")]
    """A run or model file, from which images are drawn, or a folder of generated images. Or an
    autoencoder, as a folder or a name such as pca-f2c6: its reconstructions of --data are compared
    with their originals."""
    data: str
    """The real images: a folder, an archive, shards, a table, a hub id or 'digits'; see the reading
    options below."""
    held_out_data: str | None = None
    """Images of the same kind that were not used for training, for memorisation."""
    images: int | None = setting(None, at_least=2, at_most=10_000_000)
    """Generated images to use. Default: all of a folder, 1000 of a run. For denoising: noisy
    images in each stage."""
    real_images: int | None = setting(None, at_least=2)
    """Largest number of real images to use, evenly spaced over the data. Default: all."""
    seeds: tuple[int, ...] = setting((), at_least=0)
    """Draw the images once for each of these seeds, and report mean and interval over the seeds."""
    checkpoints: int = setting(0, at_least=0)
    """Evaluate this many of a run's checkpoints, evenly spaced, the last one among them; 0 for the
    model alone."""
    missing_only: bool = False
    """Measure only what evaluations.json does not hold yet."""
    tag: str = ""
    """A label that is stored with the results."""
    batch_size: int = setting(64, at_least=1)
    """Images drawn at a time from a run."""
    suite: Annotated[SuiteOptions, tyro.conf.OmitArgPrefixes] = field(default_factory=SuiteOptions)
    reading: Annotated[ReadOptions, tyro.conf.OmitArgPrefixes] = field(default_factory=ReadOptions)
    sampling: Annotated[SampleOptions, tyro.conf.OmitArgPrefixes] = field(
        default_factory=SampleOptions
    )
    plan: Path | None = None
    """Solver and noise levels from multistage schedule."""
    dry_run: bool = False
    """Print the resolved settings and stop."""

    def run(self) -> None:
        if self.dry_run:
            return print_settings(to_json(self))
        if self.target.exists():
            with holding(self._run.path, "evaluate"):
                return self._evaluate()
        if not is_autoencoder(str(self.target)):
            raise BadInput(f"There is no run or folder {self.target} to evaluate.")
        self._evaluate()

    def _evaluate(self) -> None:
        self._results()
        real = read(self.data, self.reading)
        if is_autoencoder(str(self.target)):
            return self._reconstructions(real)
        files = self._models(self._request(real))
        if self._has_model and not files:
            return print_line(f"all of it is in {self._run.evaluations} already")
        models: Iterator[Model | None] = map(load_model, files) if files else iter([None])
        if self.suite.metric == DENOISING:
            for model in models:
                self._denoising(model, real)
        else:
            self._all_distances(models, real)

    def _reconstructions(self, real: Images) -> None:
        """Measures what an autoencoder loses."""
        suite = self._suite(real)
        device = default_device()
        autoencoder = find_autoencoder(str(self.target), real).to(device)
        images = reconstruct(autoencoder, suite.images, device)
        psnr = image_psnr(images, suite.images).clamp(max=HIGHEST_PSNR)
        found = {"psnr": mean_of_values(psnr), **suite.measure(images)}
        about = {"autoencoder": str(self.target), "images": len(images)}
        about |= self._origin(real, len(images))
        results = [{"metric": name, **summary([value]), **about} for name, value in found.items()]
        print_caveats(suite, len(images))
        print_values(results)
        if self.target.exists():
            self._write(results)

    def _models(self, request: str) -> list[Path]:
        """The model files to evaluate; none for a folder of images."""
        files = self._checkpoints() if self.checkpoints else []
        if self._has_model and not files:
            files = [find_model(self.target)]
        # read even where it is not needed: a damaged one is refused before the first is measured
        images = {file: read_metadata(file).get("images") for file in files}
        if not self.missing_only:
            return files
        done = [(r.get("request"), r.get("trained_images")) for r in self._results()]
        return [file for file in files if (request, images[file]) not in done]

    def _checkpoints(self) -> list[Path]:
        chosen = self._run.evenly_spaced_checkpoints(self.checkpoints)
        if not chosen or self.target.is_file():
            raise BadInput(f"--checkpoints: {self.target} is no run with checkpoints.")
        return list(map(checkpoint_model, chosen))

    def _results(self) -> list[dict[str, Any]]:
        return read_results(self._run.evaluations)

    def _request(self, real: Images) -> str:
        """A name for all that decides what is measured of a model."""
        usual = to_json(Evaluate(target=self.target, data=self.data))
        settings = changed(to_json(self), usual)
        asked = {name: settings[name] for name in DECISIVE if name in settings}
        if self.plan:
            asked["levels"] = to_json(load_plan(self.plan))
        return json_fingerprint([asked, real.fingerprint])

    def _denoising(self, model: Model | None, images: Images) -> None:
        """Measures the denoising loss."""
        if model is None:
            raise BadInput(f"The denoising loss is that of a model: {self.target} is a folder.")
        count = self._count
        seen = as_model_sees(images, model.config.latents, self.data, self.reading)
        found = measure_denoising(model, seen, reported_stages(model), count, self.sampling.seed)
        print_denoising(found, reported_stages(model))
        mean = summary([found.mean])
        about = {"samples": str(self.target), "trained_images": model.images}
        counts = {"images": count * len(found.stages), "seeds": [self.sampling.seed]}
        origin = self._origin(images, len(images))
        result = {"metric": "denoising", **mean, **counts, **about, **origin}
        self._write([{**result, **to_json(found)}])

    def _suite(self, real: Images) -> Suite:
        chosen = real.pixels[evenly_spaced(len(real), self.real_images)]
        reference = Reference(chosen, real.fingerprint)
        return Suite(self._options(real), reference, self._held_out(), _show_features)

    def _options(self, real: Images) -> SuiteOptions:
        """What is measured, on pixels where networks for photographs have other channels."""
        channels = real.shape[0]
        usual = self.suite.extractor == SuiteOptions().extractor
        if channels in (1, 3) or not usual:
            return self.suite
        print_warning(
            f"networks for photographs take 1 or 3 channels, not {channels}: distances are of "
            "pixels (--extractor FILE for others)"
        )
        return replace(self.suite, extractor="pixels")

    def _all_distances(self, models: Iterator[Model | None], real: Images) -> None:
        """Measures distances between real images and those of each model, or of a folder."""
        suite: Suite | None = None
        for model in models:
            if model is not None:
                check_shapes(model.config.image_shape, real.shape)
            suite = suite or self._suite(real)
            self._distances(suite, model, real)

    def _distances(self, suite: Suite, model: Model | None, real: Images) -> None:
        sets, about = self._generated(model, real)
        values = [suite.measure(images) for images in sets]
        print_caveats(suite, len(sets[0]))
        found = {name: [value[name] for value in values] for name in values[0]}
        about |= {"images": len(sets[0]), **self._origin(real, len(suite.images))}
        results = [{"metric": name, **summary(value), **about} for name, value in found.items()]
        if self.checkpoints:
            print_line(f"after {about['trained_images']:,} images")
        print_values(results)
        print_cost(about)
        self._write_pairs(suite, sets[0])
        self._write(results)

    @property
    def _count(self) -> int:
        return DRAWN_IMAGES if self.images is None else self.images

    @property
    def _has_model(self) -> bool:
        run = Run(self.target)
        return self.target.is_file() or run.begun or bool(run.checkpoints())

    @property
    def _run(self) -> Run:
        return run_of(self.target)

    def _held_out(self) -> Reference | None:
        if self.held_out_data is None:
            return None
        images = read(self.held_out_data, self.reading)
        return Reference(images.pixels[:], images.fingerprint)

    def _generated(self, model: Model | None, real: Images) -> tuple[list[Tensor], dict[str, Any]]:
        """The generated images, a set for each seed, and how they were made, as JSON."""
        if model is None:
            images = read_images(self.target, self.images, real.shape, self.reading)
            print_reading(str(self.target), images)
            return [images.pixels[:]], {"samples": str(self.target)}
        options = with_plan(self.sampling, model, self.target, self.plan)
        seeds = self.seeds or (options.seed,)
        sets = [self._draw(model, replace(options, seed=seed)) for seed in seeds]
        about = {"samples": str(self.target), "seeds": list(seeds)}
        return sets, {**about, **describe_samples(model, options)}

    def _draw(self, model: Model, sampling: SampleOptions) -> Tensor:
        return draw_images(model, sampling, self._count, self.batch_size, _show_batches)

    def _origin(self, images: Images, count: int) -> dict[str, Any]:
        """What was compared with, and what was asked for."""
        data = {"path": self.data, "fingerprint": images.fingerprint, "images": count}
        return {"data": data, "request": self._request(images), "tag": self.tag}

    def _write_pairs(self, suite: Suite, generated: Tensor) -> None:
        if "memorisation" in suite.metrics:
            print_line(f"nearest pairs: {write_pairs(self._run, suite, generated)}")

    def _write(self, results: list[dict[str, Any]]) -> None:
        append_results(self._run.evaluations, results)
        print_line(f"added to {self._run.evaluations}")


COMMAND = Evaluate


def _show_batches(batches: Batches, total: int) -> Batches:
    return show_progress(batches, "drawn", total, lambda batch: len(batch[0]))


def _show_features(batches: Iterable[Tensor], label: str, total: int) -> Iterable[Tensor]:
    return show_progress(batches, label, total, len)
