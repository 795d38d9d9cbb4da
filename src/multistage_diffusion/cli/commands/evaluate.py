"""``multistage evaluate``: how far generated images are from real ones."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import tyro
from torch import Tensor

from multistage_diffusion.cli.commands.sample import batches
from multistage_diffusion.cli.progress import show_progress
from multistage_diffusion.cli.reading import read
from multistage_diffusion.cli.terminal import print_line, print_settings
from multistage_diffusion.config import to_json
from multistage_diffusion.data import Images, ReadOptions, load
from multistage_diffusion.errors import BadInput
from multistage_diffusion.evaluation import (
    EXTRACTORS,
    Extractor,
    Moments,
    frechet_distance,
    stage_costs,
    total_parameters,
)
from multistage_diffusion.files import read_json, write_json
from multistage_diffusion.model import load_model
from multistage_diffusion.run import find_model
from multistage_diffusion.sampling.draw import SampleOptions, evaluations_per_stage

__all__ = ["Evaluate"]


@dataclass(frozen=True, kw_only=True)
class Evaluate:
    """Measure the Frechet distance between generated and real images, and what a model costs in each stage."""

    target: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN|DIR")]
    """A run or model file, from which images are drawn, or a folder of generated images."""
    data: str
    """The real images: a folder, an archive, shards, a table, a hub id or 'digits'; read as the options below say."""
    metric: Literal["fd-efficientnet-lite0", "fd-pixels"] = "fd-efficientnet-lite0"
    """Frechet distance over which features. Neither is the FID, whose features come from Inception."""
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
        reference = real.pixels[_evenly(len(real), self.real_images)]
        if self.images is not None and self.images < 2:
            raise BadInput(f"--images must be at least 2, not {self.images}.")
        pixels, about = self._generated(real)
        extractor = EXTRACTORS[self.metric.removeprefix("fd-")]()
        value = frechet_distance(
            _moments(extractor, pixels, "generated"), _moments(extractor, reference, "real")
        )
        about["data"] = {
            "path": self.data,
            "fingerprint": real.fingerprint,
            "images": len(reference),
        }
        result = {"metric": self.metric, "value": value, "images": len(pixels), **about}
        self._report(result, _append(self._folder / "evaluations.json", result))

    @property
    def _is_model(self) -> bool:
        return self.target.is_file() or (self.target / "config.json").exists()

    @property
    def _folder(self) -> Path:
        return self.target.parent if self.target.is_file() else self.target

    def _generated(self, real: Images) -> tuple[Tensor, dict[str, Any]]:
        """The generated images and a description of where they are from."""
        if self._is_model:
            return self._drawn(real)
        made = load(self.target)
        _check_shapes(made.shape, real.shape)
        count = len(made) if self.images is None else self.images
        if count > len(made):
            raise BadInput(
                f"{self.target} holds {len(made)} images, fewer than the {count} asked for."
            )
        return made.pixels[:count], {"samples": str(self.target)}

    def _drawn(self, real: Images) -> tuple[Tensor, dict[str, Any]]:
        model = load_model(find_model(self.target))
        _check_shapes(model.config.shape, real.shape)
        count = 1000 if self.images is None else self.images
        drawn = show_progress(
            batches(model, self.sampling, range(count), self.batch_size),
            "drawn",
            count,
            lambda b: len(b[0]),
        )
        cost = {
            "parameters": total_parameters(model.config),
            "stages": [to_json(c) for c in stage_costs(model.config)],
            "evaluations_per_stage": evaluations_per_stage(model.config, self.sampling),
        }
        about = {
            "samples": str(self.target),
            "options": to_json(self.sampling),
            "trained_images": model.images,
            "cost": cost,
        }
        return torch.cat([pixels for _, pixels in drawn]), about

    def _report(self, result: dict[str, Any], path: Path) -> None:
        real = result["data"]["images"]
        print_line(
            f"{self.metric} = {result['value']:.4f}  ({result['images']} generated against {real} real images)"
        )
        if result["images"] < 10_000:
            print_line(
                "Frechet distances grow as samples get fewer: compare only numbers made with as many images."
            )
        for stage, cost in enumerate(result.get("cost", {}).get("stages", [])):
            calls = result["cost"]["evaluations_per_stage"][stage]
            print_line(
                f"stage {stage + 1}: {cost['parameters']:,} parameters, {cost['macs'] / 1e6:,.1f} M MACs, {calls} evaluations"
            )
        print_line(f"added to {path}")


def _check_shapes(made: tuple[int, int, int], real: tuple[int, int, int]) -> None:
    if made != real:
        raise BadInput(
            f"The generated images are {'x'.join(map(str, made))} (channels, height, width), "
            f"the real ones {'x'.join(map(str, real))}: give data of the same kind."
        )


def _evenly(total: int, count: int | None) -> Tensor:
    if count is not None and count < 2:
        raise BadInput(f"--real-images must be at least 2, not {count}.")
    return (
        torch.linspace(0, total - 1, min(count or total, total), dtype=torch.float64).round().long()
    )


def _moments(extractor: Extractor, pixels: Tensor, label: str) -> Moments:
    def features() -> Iterator[Tensor]:
        return (extractor.features(batch) for batch in pixels.split(extractor.batch))

    moments: Moments | None = None
    for batch in show_progress(features(), f"{label} images", len(pixels), len):
        moments = moments or Moments.empty(batch.shape[1])
        moments.add(batch.numpy())
    if moments is None:
        raise BadInput(f"There are no {label} images to evaluate.")
    return moments


def _append(path: Path, result: dict[str, Any]) -> Path:
    """Adds a result to the list in a JSON file."""
    earlier = read_json(path) if path.exists() else []
    write_json(path, [*earlier, result])
    return path


COMMAND = Evaluate
