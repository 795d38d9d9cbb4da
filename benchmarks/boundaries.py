"""What a solver should do where the denoiser jumps: at the boundaries between stages.

    python benchmarks/boundaries.py RUN... [--images 32] [--steps 6 10 20]

For each model the distance of samples to the solution in small steps (RMS, images from -1 to 1),
when a multistep solver keeps its history across a boundary, when it restarts there at first order,
when the nearest level of the grid is moved onto the boundary, and when both decoders are blended
around it. The last one changes the solution too; its distance is to its own. The script prints
tables in Markdown; the report is ``boundaries.md``.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Annotated

import torch
import tyro
from machine import device_name
from torch import Tensor

from multistage_diffusion.conditions import Conditions
from multistage_diffusion.denoiser import Denoiser
from multistage_diffusion.model import Model, load_model
from multistage_diffusion.run import find_model
from multistage_diffusion.sampling import SOLVERS, SampleOptions, noise
from multistage_diffusion.sampling.boundaries import BlendedDenoiser, BoundaryRule
from multistage_diffusion.sampling.calls import sampling_grid
from multistage_diffusion.sampling.draw import labels_of
from multistage_diffusion.sampling.path import rms

SOLVER_NAMES = ("dpmpp-2m", "unipc", "heun", "euler")
GRIDS = ("karras", "log-snr")
RULES: tuple[BoundaryRule, ...] = ("keep", "restart", "snap", "blend")


@dataclass(frozen=True)
class Settings:
    """What is measured."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    images: int = 32
    steps: tuple[int, ...] = (6, 10, 20)
    reference_steps: int = 200


def solve(model: Model, denoiser: Denoiser, start: Tensor, options: SampleOptions) -> Tensor:
    """Samples from unit noise."""
    grid = sampling_grid(model.config, options)
    restart_at = model.config.boundaries if options.boundary == "restart" else ()
    solver = SOLVERS[options.solver]
    return solver(denoiser, start * float(grid[0]), grid, restart_at=restart_at)


@torch.inference_mode()
def measure(model: Model, settings: Settings) -> None:
    """Prints a table for a model."""
    indices = range(settings.images)
    labels = Conditions(labels_of(model, SampleOptions(), indices))
    start = noise(7, indices, model.config.shape)
    plain: Denoiser = partial(model.denoiser, conditions=labels)
    blended: Denoiser = partial(BlendedDenoiser(model.denoiser), conditions=labels)
    fine = SampleOptions(steps=settings.reference_steps, grid="log-snr")
    ends = {denoiser: solve(model, denoiser, start, fine) for denoiser in (plain, blended)}
    print(f"| solver, grid, steps | {' | '.join(RULES)} |\n|---|{'---|' * len(RULES)}")
    for name, grid, steps in product(SOLVER_NAMES, GRIDS, settings.steps):
        cells = []
        for rule in RULES:
            options = SampleOptions(solver=name, grid=grid, steps=steps, boundary=rule)
            denoiser = blended if rule == "blend" else plain
            found = solve(model, denoiser, start, options)
            cells.append(f"{rms(found - ends[denoiser]):.4f}")
        print(f"| {name}, {grid}, {steps} | {' | '.join(cells)} |", flush=True)
    between = rms(ends[plain] - ends[blended])
    print(f"\nThe solutions with and without blending are {between:.4f} apart.\n")


def main(settings: Settings) -> None:
    """Measures all models."""
    print(f"{device_name()}, {settings.images} images\n")
    for model in announced(settings.runs):
        measure(model, settings)


def announced(runs: Sequence[Path]) -> Iterator[Model]:
    """The models of some runs, each under a heading."""
    for run in runs:
        print(f"## {run}\n")
        yield load_model(find_model(run))


if __name__ == "__main__":
    main(tyro.cli(Settings))
