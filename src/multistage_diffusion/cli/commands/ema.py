"""``multistage ema``: averaged weights of another width than those that training kept."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from multistage_diffusion.cli.terminal import print_line, print_table
from multistage_diffusion.errors import BadInput
from multistage_diffusion.model import save_model
from multistage_diffusion.run import Run, claim
from multistage_diffusion.training.config import provenance
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
HEADINGS = ["part", "images counted", "sigma_rel", "half-life at the end", "error"]


@dataclass(frozen=True, kw_only=True)
class Ema:
    """Average the weights of a run again, from the snapshots of other averages that
    train --posthoc-ema made (EDM2's method).

    Give either --sigma-rel or --half-life. The error of an average is how far its profile over the
    images is from the one asked for.
    """

    run_folder: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Folder of a run."""
    out: Path
    """The model file to write, .safetensors."""
    sigma_rel: float | None = None
    """Width of the average: standard deviation of its profile, as a fraction of the images seen."""
    half_life: int | None = None
    """Half-life at the end of training, in images; at most the run's --ema-rampup of them. Earlier
    it is the same fraction."""

    def run(self) -> None:
        claim(self.out, "would be overwritten")
        if (self.sigma_rel is None) == (self.half_life is None):
            raise BadInput("Which average? Give either --sigma-rel or --half-life.")
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
