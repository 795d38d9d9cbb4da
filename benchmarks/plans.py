"""Planned noise levels against usual grids, at equal multiply-accumulates.

    python benchmarks/plans.py RUN... --data DATA... [--steps 6 10 16] [--images 500]

For each model and budget, which is what Karras' grid costs with so many steps of ``dpmpp-2m``:
the levels that the search finds, with and without encoder reuse, and Karras' and the log-SNR grid
with as many steps as the budget pays for. Each with its distance to the solution in small steps
(RMS on other starts, images from -1 to 1), its multiply-accumulates and seconds of a sample, and
its Frechet distance from real images. Tables in Markdown, and with ``--figure`` a picture of them;
the report is ``plans.md``.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import matplotlib.pyplot as plt
import torch
import tyro
from machine import device_name
from torch import Tensor

from multistage_diffusion.data import ReadOptions, load
from multistage_diffusion.data.images import evenly_spaced
from multistage_diffusion.evaluation.estimate import Estimate
from multistage_diffusion.evaluation.features.efficientnet import efficientnet_lite0
from multistage_diffusion.evaluation.frechet import frechet
from multistage_diffusion.model import Model, load_model
from multistage_diffusion.run import find_model
from multistage_diffusion.sampling import SampleOptions, generate_batches, sampling_macs
from multistage_diffusion.sampling.plan import Budget, Candidate, find_plan

SOLVER = "dpmpp-2m"
COLOURS = {"searched": "#0072b2", "with reuse": "#009e73", "karras": "#d55e00", "log-snr": "#666"}


@dataclass(frozen=True)
class Settings:
    """What is measured."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    data: tuple[str, ...]
    """The data of each run."""
    steps: tuple[int, ...] = (6, 10, 16)
    images: int = 500
    real_images: int = 5000
    searched_images: int = 32
    figure: Path | None = None


@dataclass(frozen=True)
class Row:
    """A candidate under a budget."""

    steps: int
    candidate: Candidate
    seconds: float
    frechet: Estimate

    @property
    def interval(self) -> str:
        """Half of the 95 % interval of the Frechet distance."""
        low, high = self.frechet.interval or (self.frechet.value, self.frechet.value)
        return f"{(high - low) / 2:.0f}"


def budget_of(model: Model, steps: int) -> Budget:
    """What Karras' grid costs."""
    options = SampleOptions(solver=SOLVER, steps=steps)
    return Budget(sampling_macs(model.config, options), "MAC")


def measure(model: Model, real: Tensor, settings: Settings) -> Iterator[Row]:
    """All candidates under all budgets."""
    extractor = efficientnet_lite0()
    for steps in settings.steps:
        budget = budget_of(model, steps)
        plan = find_plan(model, budget, SOLVER, settings.searched_images, reuse=True)
        for one in plan.candidates:
            options = SampleOptions(solver=SOLVER, levels=one.levels, reuse=one.reuse)
            begun = time.perf_counter()
            batches = generate_batches(model, options, range(settings.images), 50)
            images = torch.cat([batch for _, batch in batches])
            seconds = (time.perf_counter() - begun) / settings.images
            yield Row(steps, one, seconds, frechet(extractor.extract(images), real, 20))


def print_table(rows: list[Row]) -> None:
    """As Markdown."""
    print("| budget | levels | steps | without encoder | MACs | ms | distance | Frechet |")
    print("|---|---|---|---|---|---|---|---|")
    for row in rows:
        one = row.candidate
        print(
            f"| {row.steps} steps | {one.name} | {len(one.levels)} | {len(one.reuse)} "
            f"| {one.cost / 1e6:,.1f} M | {1e3 * row.seconds:.1f} | {one.error:.4f} "
            f"| {row.frechet.value:.0f} +- {row.interval} |",
            flush=True,
        )
    print()


def draw(tables: dict[str, list[Row]], path: Path) -> None:
    """Distance over multiply-accumulates, a panel for each model."""
    figure, panels = plt.subplots(1, len(tables), figsize=(4.2 * len(tables), 3.2), squeeze=False)
    for axes, (name, rows) in zip(panels[0], tables.items(), strict=True):
        for kind, colour in COLOURS.items():
            chosen = [row.candidate for row in rows if row.candidate.name == kind]
            points = sorted((one.cost / 1e6, one.error) for one in chosen)
            x, y = zip(*points, strict=True)
            axes.loglog(x, y, "o-", color=colour, label=kind)
        axes.set(title=name, xlabel="million MACs of a sample")
    panels[0, 0].set_ylabel("distance to the solution (RMS)")
    panels[0, 0].legend()
    figure.savefig(path, bbox_inches="tight")


def main(settings: Settings) -> None:
    """Measures all models."""
    print(f"{device_name()}, {settings.images} samples, {settings.real_images} real images\n")
    tables = {}
    for run, data in zip(settings.runs, settings.data, strict=True):
        model = load_model(find_model(run))
        print(f"## {run.name}, {model.images:,} images\n")
        images = load(data, ReadOptions(size=model.config.shape[1:]))
        chosen = evenly_spaced(len(images), min(settings.real_images, len(images)))
        real = efficientnet_lite0().extract(torch.as_tensor(images.pixels[chosen]))
        tables[run.name] = list(measure(model, real, settings))
        print_table(tables[run.name])
    if settings.figure:
        draw(tables, settings.figure)


if __name__ == "__main__":
    main(tyro.cli(Settings))
