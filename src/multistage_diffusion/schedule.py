"""Noise schedules as quantile functions.

Noisy data is ``x = y + sigma * n`` with ``n ~ N(0, I)``, and ``sigma`` is the only clock the rest
of the library knows. A schedule is the quantile function ``u -> sigma`` of a distribution of noise
levels on ``u in [0, 1]``, with its inverse:

- draw a level: ``sigma(u)``, u uniform;
- draw inside ``[a, b]``: u uniform between ``u(a)`` and ``u(b)``;
- share of ``[a, b]``: ``u(b) - u(a)``.

Each base also has a clock of its own (``t``, a step index, ``sigma`` itself) in which its users
think; ``to_clock`` and ``from_clock`` convert at the edge. All maps work elementwise in float64 on
the CPU and return float64 tensors.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, fields, replace
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from torch import Tensor

from multistage_diffusion.errors import BadInput

__all__ = [
    "DDPM",
    "DENSITIES",
    "SCHEDULES",
    "VE",
    "VP",
    "Flow",
    "Karras",
    "LogNormal",
    "Schedule",
    "ScheduleName",
    "ScheduleSettings",
    "as_float64",
    "make_schedule",
]

LARGEST = 1e5  # value of a parameter of a schedule


def as_float64(value: Tensor | float) -> Tensor:
    """The value as a float64 tensor on the CPU (some accelerators have no float64)."""
    return (
        value.cpu().double()
        if isinstance(value, Tensor)
        else torch.tensor(value, dtype=torch.float64)
    )


class Schedule(ABC):
    """A monotone map between quantiles ``u in [0, 1]`` and noise levels ``sigma > 0``."""

    clock: ClassVar[str] = "sigma"
    """Name of the base's own time variable."""

    @abstractmethod
    def sigma(self, u: Tensor | float) -> Tensor:
        """Noise level at quantile ``u``; increasing in ``u``."""

    @property
    def sampling_range(self) -> tuple[float, float]:
        """Smallest and largest noise level for sampling with a network trained on this schedule."""
        return float(self.sigma(0.0)), float(self.sigma(1.0))

    @abstractmethod
    def u(self, sigma: Tensor | float) -> Tensor:
        """Quantile of ``sigma``: the share of levels below it.

        Levels outside the schedule give 0 or 1.
        """

    def to_clock(self, sigma: Tensor | float) -> Tensor:
        """``sigma`` in the base's own time variable."""
        return as_float64(sigma)

    def from_clock(self, time: Tensor | float) -> Tensor:
        """Inverse of ``to_clock``."""
        return as_float64(time)

    def levels(self, count: int) -> Tensor:
        """``count`` increasing levels that cover the schedule.

        They are the quantiles of the midpoints of equal cells.
        """
        return self.sigma((torch.arange(count, dtype=torch.float64) + 0.5) / count)


@dataclass(frozen=True)
class VP(Schedule):
    """Variance preserving SDE of Song et al. 2021 (eq. 33), t uniform.

    ``1 + sigma(t)^2 = exp(beta_d t^2 / 2 + beta_min t)`` with ``beta_d = beta_max - beta_min``.
    """

    beta_min: float = 0.1
    beta_max: float = 20.0
    t_min: float = 1e-3
    """Smallest time drawn in training."""
    clock: ClassVar[str] = "t"

    def sigma(self, u: Tensor | float) -> Tensor:
        return self.from_clock(self.t_min + (1 - self.t_min) * as_float64(u))

    def u(self, sigma: Tensor | float) -> Tensor:
        return ((self.to_clock(sigma) - self.t_min) / (1 - self.t_min)).clamp(0, 1)

    def from_clock(self, time: Tensor | float) -> Tensor:
        t = as_float64(time)
        return torch.expm1(0.5 * (self.beta_max - self.beta_min) * t**2 + self.beta_min * t).sqrt()

    def to_clock(self, sigma: Tensor | float) -> Tensor:
        log = 2 * torch.log1p(as_float64(sigma) ** 2)
        root = (self.beta_min**2 + (self.beta_max - self.beta_min) * log).sqrt()
        # this form of the root does not cancel at small sigma
        return log / (self.beta_min + root)


@dataclass(frozen=True)
class LogNormal(Schedule):
    """EDM's training density ``ln sigma ~ N(mean, std^2)`` (Karras et al. 2022, table 1)."""

    mean: float = -1.2
    std: float = 1.2

    @property
    def sampling_range(self) -> tuple[float, float]:
        """EDM's 0.002 to 80; the density itself has no ends."""
        return 0.002, 80.0

    def sigma(self, u: Tensor | float) -> Tensor:
        return torch.exp(self.mean + self.std * torch.special.ndtri(as_float64(u)))

    def u(self, sigma: Tensor | float) -> Tensor:
        return torch.special.ndtr((as_float64(sigma).log() - self.mean) / self.std)

    def levels(self, count: int) -> Tensor:
        """``count`` levels evenly spaced in ln sigma over 4 standard deviations to each side.

        Equal cells of u would leave both tails empty, and the stages of this density end in its
        upper tail.
        """
        return torch.exp(self.mean + self.std * torch.linspace(-4, 4, count, dtype=torch.float64))


@dataclass(frozen=True)
class Flow(Schedule):
    """The linear path of flow matching, ``x_t = (1 - t) y + t n``, with logit-normal t.

    In the coordinates here that is ``sigma = t / (1 - t)`` and ``x = x_t (1 + sigma)``, so that
    ``ln sigma = logit t ~ N(mean, std^2)`` (Lipman et al. 2023; Esser et al. 2024, section 3.1).
    """

    mean: float = 0.0
    std: float = 1.0
    t_min: float = 2e-3
    """Smallest time in sampling; the largest is ``1 - t_min``."""
    clock: ClassVar[str] = "t"

    @property
    def sampling_range(self) -> tuple[float, float]:
        """From ``t_min`` to ``1 - t_min``; the density itself has no ends."""
        return float(self.from_clock(self.t_min)), float(self.from_clock(1 - self.t_min))

    def sigma(self, u: Tensor | float) -> Tensor:
        return LogNormal(self.mean, self.std).sigma(u)

    def u(self, sigma: Tensor | float) -> Tensor:
        return LogNormal(self.mean, self.std).u(sigma)

    def levels(self, count: int) -> Tensor:
        """``count`` levels evenly spaced in ln sigma over 4 standard deviations to each side."""
        return LogNormal(self.mean, self.std).levels(count)

    def to_clock(self, sigma: Tensor | float) -> Tensor:
        level = as_float64(sigma)
        return 1 / (1 + 1 / level)  # also for infinity

    def from_clock(self, time: Tensor | float) -> Tensor:
        t = as_float64(time)
        return t / (1 - t)


@dataclass(frozen=True)
class Karras(Schedule):
    """EDM's sampling grid as a schedule: ``sigma^(1/rho)`` uniform (Karras et al. 2022, eq. 5)."""

    sigma_min: float = 0.002
    sigma_max: float = 80.0
    rho: float = 7.0

    def _root(self, sigma: Tensor | float) -> Tensor:
        return as_float64(sigma) ** (1 / self.rho)

    def sigma(self, u: Tensor | float) -> Tensor:
        low, high = self._root(self.sigma_min), self._root(self.sigma_max)
        return (low + as_float64(u) * (high - low)) ** self.rho

    def u(self, sigma: Tensor | float) -> Tensor:
        low, high = self._root(self.sigma_min), self._root(self.sigma_max)
        return ((self._root(sigma) - low) / (high - low)).clamp(0, 1)


@dataclass(frozen=True)
class VE(Schedule):
    """Variance exploding SDE of Song et al. 2021 (eq. 31): ln sigma uniform."""

    sigma_min: float = 0.01
    sigma_max: float = 50.0

    def sigma(self, u: Tensor | float) -> Tensor:
        low, high = as_float64(self.sigma_min).log(), as_float64(self.sigma_max).log()
        return torch.exp(low + as_float64(u) * (high - low))

    def u(self, sigma: Tensor | float) -> Tensor:
        low, high = as_float64(self.sigma_min).log(), as_float64(self.sigma_max).log()
        return ((as_float64(sigma).log() - low) / (high - low)).clamp(0, 1)


@dataclass(frozen=True)
class DDPM(Schedule):
    """Discrete schedule of a Markov chain that adds noise of variance ``beta_i`` in step i.

    ``sigma_i^2 = (1 - abar_i) / abar_i`` at the steps ``0 .. steps-1`` with ``abar_i`` the product
    of ``1 - beta_j`` up to i; between two steps ln sigma is interpolated, so that the map is one to
    one. Step i lies at the quantile ``i / (steps - 1)``.
    """

    beta_start: float = 0.0015
    beta_end: float = 0.0195
    steps: int = 1000
    betas: Literal["scaled-linear", "linear", "cosine"] = "scaled-linear"
    """Linear in the step are ``sqrt(beta)`` (latent diffusion) or ``beta`` (Ho et al. 2020); or
    ``abar`` is a squared cosine (Nichol & Dhariwal 2021, eq. 17), without the two numbers."""
    clock: ClassVar[str] = "step"

    @cached_property
    def log_table(self) -> Tensor:
        """Ln sigma at each step, shape ``[steps]``."""
        return torch.expm1(-torch.log1p(-self._beta()).cumsum(0)).log() / 2

    def _beta(self) -> Tensor:
        if self.betas == "cosine":
            time = torch.arange(self.steps + 1, dtype=torch.float64) / self.steps
            abar = torch.cos((time + 0.008) / 1.008 * math.pi / 2) ** 2
            return (1 - abar[1:] / abar[:-1]).clamp(max=0.999)
        power = 0.5 if self.betas == "scaled-linear" else 1.0
        low, high = self.beta_start**power, self.beta_end**power
        return torch.linspace(low, high, self.steps, dtype=torch.float64) ** (1 / power)

    def sigma(self, u: Tensor | float) -> Tensor:
        return self.from_clock(as_float64(u) * (self.steps - 1))

    def u(self, sigma: Tensor | float) -> Tensor:
        return self.to_clock(sigma) / (self.steps - 1)

    def from_clock(self, time: Tensor | float) -> Tensor:
        step = as_float64(time).clamp(0, self.steps - 1)
        low = step.floor().long().clamp(max=self.steps - 2)
        return torch.lerp(self.log_table[low], self.log_table[low + 1], step - low).exp()

    def to_clock(self, sigma: Tensor | float) -> Tensor:
        table, log = self.log_table, as_float64(sigma).log()
        low = (torch.searchsorted(table, log, right=True) - 1).clamp(0, self.steps - 2)
        return (low + (log - table[low]) / (table[low + 1] - table[low])).clamp(0, self.steps - 1)


DENSITIES: dict[str, Schedule] = {
    "vp": VP(),
    "edm": LogNormal(),
    "ve": VE(),
    "ddpm": DDPM(),
    "ddpm-linear": DDPM(1e-4, 0.02, betas="linear"),
    "ddpm-cosine": DDPM(betas="cosine"),
    "flow": Flow(),
}
"""Schedules to train and cluster with, by the names that the command line uses."""

SCHEDULES: dict[str, Schedule] = {**DENSITIES, "karras": Karras()}
"""All schedules by name."""

ScheduleSettings = tuple[tuple[str, float], ...]
"""Names and values of a schedule's parameters that differ from the defaults."""


@lru_cache(maxsize=64)
def make_schedule(name: str, settings: ScheduleSettings = ()) -> Schedule:
    """A schedule by name, with parameters that differ from its defaults.

    Raises:
        BadInput: if it lacks one of the parameters, or a value is out of range.
    """
    usual: Any = SCHEDULES[name]
    known = [
        entry.name for entry in fields(usual) if not isinstance(getattr(usual, entry.name), str)
    ]
    unknown = [key for key, _ in settings if key not in known]
    if unknown:
        raise BadInput(
            f"The schedule {name} has the settings {', '.join(known)}, not {unknown[0]}."
        )
    for key, value in settings:
        _check_parameter(key, value)
    values = {key: type(getattr(usual, key))(value) for key, value in settings}
    made: Schedule = replace(usual, **values)
    low, high = made.sampling_range
    if not 0 < low < high < math.inf:
        raise BadInput(
            f"The schedule {name} with these settings has noise levels from {low:g} to {high:g}: "
            "choose settings for which they are positive, finite and increasing."
        )
    return made


def _check_parameter(name: str, value: float) -> None:
    """Raises BadInput for a parameter that no schedule could have."""
    least = {"steps": 2, "mean": -LARGEST}.get(name, 1 / LARGEST)
    if not least <= value <= LARGEST:
        raise BadInput(
            f"The setting {name} of a schedule must be from {least:g} to {LARGEST:g}, not {value}."
        )


if TYPE_CHECKING:
    ScheduleName = str
else:
    ScheduleName = Literal[tuple(DENSITIES)]
