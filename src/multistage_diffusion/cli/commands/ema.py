"""``multistage ema``: averaged weights of another width than those that training kept."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import torch
import tyro

from multistage_diffusion.cli.reading import read
from multistage_diffusion.cli.terminal import print_line, print_table
from multistage_diffusion.config import Settings, setting
from multistage_diffusion.data import Images, ReadOptions
from multistage_diffusion.errors import BadInput
from multistage_diffusion.evaluation import measure_denoising
from multistage_diffusion.model import Model, load_model, save_model
from multistage_diffusion.run import Run, checkpoint_model, claim
from multistage_diffusion.stages import Stages
from multistage_diffusion.training.config import provenance
from multistage_diffusion.training.ema.per_stage import combine_stages
from multistage_diffusion.training.ema.profiles import (
    exponent,
    half_life_exponent,
    half_life_fraction,
    relative_width,
)
from multistage_diffusion.training.ema.snapshots import Snapshots
from multistage_diffusion.training.rates import part_names

__all__ = ["COMMAND", "Ema"]

SMALL_ERROR = 0.01  # of an average, not worth mentioning
LARGE_ERROR = 0.1  # with which it would be another average than the one asked for
SELECTION_SEED = 1  # evaluations have another one
HEADINGS = ["part", "images counted", "sigma_rel", "half-life at the end", "error"]


@dataclass(frozen=True, kw_only=True)
class Ema(Settings):
    """Make another average of a run's weights after training, from the snapshots that
    train --posthoc-ema wrote (post-hoc EMA of EDM2).

    Give --sigma-rel, --half-life, --per-stage or --stages-from. The error that is printed is the
    relative distance between the profile of an average and the profile asked for.
    """

    run_folder: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Folder of a run."""
    out: Path
    """The model file to write, .safetensors."""
    sigma_rel: float | None = setting(None, above=0)
    """Width of the average: standard deviation of its profile, as a fraction of the images seen."""
    half_life: int | None = setting(None, at_least=1)
    """Half-life at the end of training, in images, as a fixed fraction of the images seen; at most
    the run's --ema-rampup."""
    per_stage: bool = False
    """Take each stage from the checkpoint with the lowest loss on --data in that stage; the result
    has an encoder for each decoder, and an evaluation costs as much as before."""
    data: str | None = None
    """For --per-stage: images that were not trained on."""
    images: int = setting(1024, at_least=1, at_most=10_000_000)
    """For --per-stage: noisy images in each stage."""
    stages_from: tuple[Path, ...] = ()
    """Take each stage from a model file, one for each stage, smallest noise first."""
    reading: Annotated[ReadOptions, tyro.conf.OmitArgPrefixes] = field(default_factory=ReadOptions)

    def run(self) -> None:
        claim(self.out, "would be overwritten")
        wanted = (self.sigma_rel is not None, self.half_life is not None, self.per_stage)
        if sum(wanted) + bool(self.stages_from) != 1:
            raise BadInput(
                "Which average? Give --sigma-rel, --half-life, --per-stage or --stages-from."
            )
        if self.stages_from:
            models = {path: load_model(path) for path in self.stages_from}
            self._write(combine_stages([models[path] for path in self.stages_from]))
        elif self.per_stage:
            self._combine_best()
        else:
            self._average()

    def _combine_best(self) -> None:
        """Writes a model of the best checkpoint for each stage."""
        if self.data is None:
            raise BadInput("--per-stage chooses by the loss on images: give them with --data.")
        run = Run(self.run_folder)
        if not run.checkpoints():
            raise BadInput(f"{run.path} is no run with checkpoints to choose from.")
        images = read(self.data, self.reading)
        models = [load_model(checkpoint_model(folder)) for folder in run.checkpoints()]
        losses = torch.tensor([self._losses(model, images) for model in models])
        best = losses.argmin(0).tolist()
        _print_losses(models, losses)
        self._write(combine_stages([models[index] for index in best]))

    def _write(self, made: Model) -> None:
        weights = made.denoiser.network.state_dict()
        save_model(self.out, weights, made.config, made.images, made.run)
        print_line(f"wrote {self.out}")

    def _losses(self, model: Model, images: Images) -> list[float]:
        stages = Stages(model.config.boundaries)
        found = measure_denoising(model, images, stages, self.images, SELECTION_SEED)
        return [loss.value for loss in found.stages]

    def _average(self) -> None:
        """Writes averaged weights of a width."""
        stored = Snapshots(Run(self.run_folder))
        gammas = [self._gamma(seen, stored) for seen in stored.seen[-1]]
        errors = stored.errors(gammas)
        if max(errors) > LARGE_ERROR:
            raise BadInput(
                "The snapshots do not give this average: it would differ by "
                f"{max(errors):.0%}. {_accurate_widths(stored)}"
            )
        config = stored.config
        weights = stored.average(gammas)
        save_model(self.out, weights, config.model, stored.images, provenance(config))
        _print_averages(stored, gammas, errors)
        print_line(f"{_accurate_widths(stored)}")
        print_line(f"wrote {self.out}, after {stored.images:,} images")

    def _gamma(self, seen: float, stored: Snapshots) -> float:
        """The exponent of the average of a part that has counted ``seen`` images."""
        if self.half_life is None:
            return exponent(self.sigma_rel or 0)
        largest = stored.config.training.averaging.ema_rampup
        return half_life_exponent(min(self.half_life / max(seen, 1), largest))


COMMAND = Ema


def _print_averages(stored: Snapshots, gammas: Sequence[float], errors: Sequence[float]) -> None:
    """Prints a line for each encoder and decoder."""
    names = part_names(stored.config.model.network)
    parts = zip(names, stored.seen[-1], gammas, errors, strict=True)
    rows = [_row(*part) for part in parts]
    print_table(HEADINGS, rows)


def _print_losses(models: Sequence[Model], losses: torch.Tensor) -> None:
    """Prints the losses of each checkpoint, the best one of each stage marked."""
    headings = ["images", *(f"stage {k}" for k in range(1, losses.shape[1] + 1))]
    marks = [["*" if best else " " for best in row] for row in losses == losses.min(0).values]
    rows = [
        [f"{model.images:,}", *(f"{loss:.4f}{mark}" for loss, mark in zip(row, stars, strict=True))]
        for model, row, stars in zip(models, losses, marks, strict=True)
    ]
    print_table(headings, rows)


def _row(name: str, seen: float, gamma: float, error: float) -> list[str]:
    half_life = half_life_fraction(gamma) * seen
    width = relative_width(gamma)
    return [name, f"{seen:,.0f}", f"{width:.4f}", f"{half_life:,.0f}", f"{error:.2g}"]


def _accurate_widths(stored: Snapshots) -> str:
    """A sentence on the widths that are accurate in every part."""
    ranges = stored.accurate_widths(SMALL_ERROR)
    words = ", ".join(" to ".join(dict.fromkeys(f"{end:.3f}" for end in ends)) for ends in ranges)
    snapshots = f"(snapshots: {len(stored.files)})"
    return f"Widths sigma_rel that come out to {SMALL_ERROR:.0%}: {words} {snapshots}."
