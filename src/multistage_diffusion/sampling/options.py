"""How images are drawn: the settings of sampling."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from multistage_diffusion.config import Settings, setting
from multistage_diffusion.errors import BadInput
from multistage_diffusion.sampling.boundaries import BoundaryRule
from multistage_diffusion.sampling.grids import GRID_HELP, GridName, read_levels
from multistage_diffusion.sampling.solvers import SOLVER_HELP, SOLVERS, SolverName

__all__ = ["SETTINGS", "SampleOptions"]

SETTINGS = {
    "eta": (0.0, 1.0),
    "churn": (0.0, math.inf),
    "churn_range": (0.0, math.inf),
    "churn_noise": (0.0, math.inf),
    "tolerance": (1e-6, 1.0),
}
"""Settings of some solvers, and their ranges."""
MOST_STEPS = 10_000

WITH_ENDS = ("karras", "log-snr", "time")  # the grids between --sigma-min and --sigma-max


@dataclass(frozen=True, kw_only=True)
class SampleOptions(Settings):
    """How images are drawn."""

    solver: Annotated[SolverName, tyro.conf.arg(help=SOLVER_HELP)] = "heun"
    steps: int = setting(18, at_least=1, at_most=MOST_STEPS)
    """Number of solver steps from pure noise to the image."""
    grid: Annotated[GridName | Path, tyro.conf.arg(help=GRID_HELP)] = "karras"
    sigma_min: float | None = setting(None, above=0, at_most=1e9)
    """Last noise level before 0. Default: the smallest of the model's schedule."""
    sigma_max: float | None = setting(None, above=0, at_most=1e9)
    """First noise level. Default: the largest of the model's schedule."""
    levels: tuple[float, ...] = setting((), at_least=1e-9, at_most=1e9)
    """Noise levels to visit, largest first, instead of --steps and --grid."""
    reuse: tuple[float, ...] = setting((), at_least=1e-9, at_most=1e9)
    """Noise levels at which the encoder is not evaluated: its features of the level before are
    reused, if that level is in the same stage."""
    boundary: BoundaryRule = "keep"
    """What happens at the boundaries between stages, where the denoiser is discontinuous: keep the
    history of a multistep solver, restart it at first order, snap the nearest noise level onto the
    boundary, or blend both decoders."""
    guidance: tuple[float, ...] = setting((), at_least=-1e6, at_most=1e6)
    """Weight of classifier-free guidance, one for all stages or one for each, smallest noise first;
    1 for none. For models trained with --label-dropout, or any with --weaker."""
    guidance_range: tuple[float, float] = (0.0, math.inf)
    """Noise levels between which guidance is applied."""
    weaker: Path | None = None
    """A weaker model to guide away from (autoguidance): an earlier checkpoint of the same run, or a
    model of the same encoder with narrower decoders. The encoder is evaluated once for both."""
    eta: float | None = None
    """Share of the noise that ddim, dpmpp-sde and dpmpp-2m-sde redraw in each step, 0 to 1."""
    churn: float | None = None
    """EDM's S_churn for heun and euler: how much noise is added before steps."""
    churn_range: tuple[float, float] | None = None
    """Noise levels between which --churn adds noise (S_tmin, S_tmax)."""
    churn_noise: float | None = None
    """Standard deviation of the noise of --churn (S_noise)."""
    tolerance: float | None = None
    """Tolerated error of a step of the adaptive solvers, relative to the image."""
    precision: Literal["float32", "bf16"] = "float32"
    """Precision of matrix products and convolutions; bf16 changes the images slightly."""
    seed: int = setting(0, at_least=0)
    """Seed of the samples: image i is a function of the seed and i only."""
    label: str | int | None = None
    """The class to draw, by name or number, for a class-conditional model. By default the classes
    take turns."""
    turns: Annotated[tuple[str | int, ...], tyro.conf.Suppress] = ()
    """Several classes that take turns."""
    context: Path | None = None
    """File .npy [N, tokens, channels] of context for cross-attention: image i uses row i modulo
    N."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_levels()
        self._check_combinations()
        self._check_settings()

    def _check_levels(self) -> None:
        """Raises BadInput for levels and ranges of levels that are out of order."""
        if len(self.levels) > MOST_STEPS:
            raise BadInput(f"--levels has {len(self.levels)} levels, the most is {MOST_STEPS}.")
        low, high = self.guidance_range
        if not 0 <= low <= high:
            raise BadInput(
                f"--guidance-range needs two levels, the smaller first, not {low} {high}."
            )
        if self.levels and not _falling(self.levels):
            raise BadInput(f"--levels must decrease and stay positive, not {list(self.levels)}.")

    def _check_combinations(self) -> None:
        """Raises BadInput for options that exclude each other."""
        ends_given = self.sigma_min is not None or self.sigma_max is not None
        if ends_given and (self.levels or self.grid not in WITH_ENDS):
            raise BadInput(
                f"--sigma-min and --sigma-max are for the grids {', '.join(WITH_ENDS)}; other "
                "levels have their own ends."
            )
        if self.reuse and (self.guidance or self.boundary == "blend"):
            raise BadInput("--reuse cannot be combined with --guidance or --boundary blend.")
        if self.weaker and (not self.guidance or self.boundary == "blend"):
            raise BadInput("--weaker needs --guidance, such as 1.5, and no --boundary blend.")
        if self.label is not None and self.turns:
            raise BadInput("Give --label for one class or --labels for several, not both.")

    def with_levels_of_file(self) -> "SampleOptions":
        """The options with the levels of a grid's file in place of its name.

        Raises:
            BadInput: if it holds no decreasing levels.
        """
        if self.levels or not isinstance(self.grid, Path):
            return self
        levels = read_levels(self.grid)
        if not levels or not _falling(levels):
            raise BadInput(f"The noise levels in {self.grid} must decrease and stay positive.")
        return replace(self, levels=levels, grid=SampleOptions().grid)

    def _check_settings(self) -> None:
        """Raises BadInput for a setting that the solver does not take or that is out of range."""
        for name, (low, high) in SETTINGS.items():
            value = getattr(self, name)
            option = f"--{name.replace('_', '-')}"
            if value is None:
                continue
            if name not in SOLVERS[self.solver].takes:
                takers = ", ".join(k for k, entry in SOLVERS.items() if name in entry.takes)
                raise BadInput(f"{option} is for {takers}, not for {self.solver}.")
            values = value if isinstance(value, tuple) else (value,)
            if not all(low <= number <= high for number in values):
                raise BadInput(f"{option} must be from {low:g} to {high:g}, not {value}.")

    @property
    def settings(self) -> dict[str, Any]:
        """The solver's own settings that were given."""
        given = {name: getattr(self, name) for name in SOLVERS[self.solver].takes}
        return {name: value for name, value in given.items() if value is not None}


def _falling(levels: Sequence[float]) -> bool:
    return levels[-1] > 0 and all(a > b for a, b in pairwise(levels))
