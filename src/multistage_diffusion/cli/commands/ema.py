"""``multistage ema``: averaged weights of another width than those that training kept."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro

from multistage_diffusion.cli.output import table
from multistage_diffusion.cli.terminal import say
from multistage_diffusion.errors import BadInput
from multistage_diffusion.model import save_model
from multistage_diffusion.training.config import provenance
from multistage_diffusion.training.ema.profiles import (
    WIDEST_AVERAGE,
    exponent,
    half_life_exponent,
    half_life_fraction,
    relative_width,
)
from multistage_diffusion.training.ema.snapshots import Snapshots

__all__ = ["Ema"]

NEAR = 0.01  # errors that are not worth a word
FAR = 0.1  # errors with which it would be another average than was asked for
WIDTHS = np.geomspace(0.005, WIDEST_AVERAGE, 80)


@dataclass(frozen=True, kw_only=True)
class Ema:
    """Average the weights of a run anew, from snapshots of other averages that train --posthoc-ema made (EDM2's method).

    Give either --sigma-rel or --half-life. The error of an average is how far its profile over the images is from what was asked.
    """

    run_folder: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Folder of a run."""
    out: Path
    """The model file to write, .safetensors."""
    sigma_rel: float | None = None
    """Width of the average: standard deviation of its profile, as a fraction of the images seen."""
    half_life: int | None = None
    """Half-life at the end of training, in images; at most the run's --ema-rampup of them. Earlier it is the same fraction."""

    def run(self) -> None:
        if self.out.exists():
            raise BadInput(f"{self.out} exists; choose another --out or remove it.")
        if (self.sigma_rel is None) == (self.half_life is None):
            raise BadInput("Which average? Give either --sigma-rel or --half-life.")
        stored = Snapshots(self.run_folder)
        gammas = [self._gamma(seen, stored) for seen in stored.seen[-1]]
        errors = [
            float(stored.factors(part, np.array([gamma]))[1][0])
            for part, gamma in enumerate(gammas)
        ]
        if max(errors) > FAR:
            raise BadInput(
                f"The snapshots do not give this average: it would differ by {max(errors):.0%}. {_reach(stored)}"
            )
        save_model(
            self.out,
            stored.average(gammas),
            stored.config.model,
            stored.images,
            provenance(stored.config),
        )
        _show(stored, gammas, errors)
        say(f"{_reach(stored)}\nwrote {self.out}, after {stored.images:,} images")

    def _gamma(self, seen: float, stored: Snapshots) -> float:
        """The exponent of the average of a part that has counted ``seen`` images."""
        if self.half_life is None:
            return exponent(self.sigma_rel or 0)
        return half_life_exponent(
            min(self.half_life / max(seen, 1), stored.config.training.ema_rampup)
        )


def _show(stored: Snapshots, gammas: list[float], errors: list[float]) -> None:
    """A line for each encoder and decoder."""
    network = stored.config.model.network
    names = [
        f"{kind} {k + 1}"
        for kind, n in (("encoder", network.encoder_widths), ("decoder", network.decoder_widths))
        for k in range(len(n))
    ]
    rows = [
        [
            name,
            f"{seen:,.0f}",
            f"{relative_width(gamma):.4f}",
            f"{half_life_fraction(gamma) * seen:,.0f}",
            f"{error:.2g}",
        ]
        for name, seen, gamma, error in zip(names, stored.seen[-1], gammas, errors, strict=True)
    ]
    table(["part", "images counted", "sigma_rel", "half-life at the end", "error"], rows)


def _reach(stored: Snapshots) -> str:
    """A sentence on the widths that come out well in every part; those that training kept always do."""
    widths = np.union1d(WIDTHS, stored.config.training.posthoc_ema)
    gammas = np.array([exponent(width) for width in widths])
    worst = np.max(
        [stored.factors(part, gammas)[1] for part in range(stored.seen.shape[1])], axis=0
    )
    near = np.flatnonzero(worst <= NEAR)
    ranges = [widths[found] for found in np.split(near, np.flatnonzero(np.diff(near) > 1) + 1)]
    said = ", ".join(
        " to ".join(dict.fromkeys(f"{width:.3f}" for width in (found[0], found[-1])))
        for found in ranges
    )
    return f"Widths sigma_rel that come out to {NEAR:.0%}: {said} (snapshots: {len(stored.files)})."
