"""What a solver is.

A solver integrates the probability flow ODE ``dx/dsigma = (x - D(x; sigma)) / sigma``, or a
stochastic equation with the same marginals, from a start ``x ~ N(0, sigma_0^2 I)`` over decreasing
noise levels ``sigma_0 > sigma_1 > ... >= 0``, and returns x at the last one.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol

from torch import Tensor

from multistage_diffusion.denoiser import Denoiser

__all__ = [
    "Callback",
    "Edit",
    "Noise",
    "Solver",
    "SolverEntry",
    "drawn",
    "ignore",
    "keep",
    "midpoint_ratio",
    "restarts",
    "steps",
]

Noise = Callable[[int], Tensor]
"""Unit Gaussian noise like x, as a function of the index of the step, or of twice that and one."""
Callback = Callable[[int, float, Tensor, Tensor], None]
"""Called in each step with its index, its noise level, x at this level and the denoised image."""
Edit = Callable[[int, Tensor], Tensor]
"""Called at the end of each step with its index and the new state; returns the state to use."""


def ignore(step: int, sigma: float, x: Tensor, denoised: Tensor) -> None:
    """The callback that does nothing."""


def keep(step: int, x: Tensor) -> Tensor:
    """The edit that changes nothing."""
    return x


class Solver(Protocol):
    """A function from noise to images."""

    def __call__(
        self,
        denoiser: Denoiser,
        x: Tensor,
        sigmas: Tensor,
        *,
        noise: Noise | None = None,
        callback: Callback = ...,
        edit: Edit = ...,
        restart_at: Sequence[float] = (),
    ) -> Tensor:
        """Solves from the first level to the last.

        Args:
            denoiser: any denoiser.
            x: state at the first level, ``[B, C, H, W]``. State and coefficients keep its dtype.
            sigmas: decreasing noise levels ``[steps + 1]``; the last one may be 0.
            noise: noise of each step, for stochastic solvers; others ignore it.
            callback: called once in each step.
            edit: called at the end of each step; may replace the state.
            restart_at: noise levels at which the denoiser jumps. A multistep solver drops its
                history when a step begins below one of them and the step before began at or above
                it; others ignore them.

        Returns:
            The state at the last level, like ``x``.
        """
        ...


@dataclass(frozen=True)
class SolverEntry:
    """A solver with its name, help and properties."""

    name: str
    function: Solver
    order: int
    """Order of convergence in the step size."""
    about: str
    """A few words for the help."""
    takes: Sequence[str] = ()
    """Names of its own settings."""
    stochastic: bool = False
    """Whether it draws noise in each step; others do so only by their settings."""

    @property
    def adaptive(self) -> bool:
        """Whether it chooses its own steps."""
        return "tolerance" in self.takes

    def __call__(
        self,
        denoiser: Denoiser,
        x: Tensor,
        sigmas: Tensor,
        *,
        noise: Noise | None = None,
        callback: Callback = ignore,
        edit: Edit = keep,
        restart_at: Sequence[float] = (),
        **settings: Any,
    ) -> Tensor:
        """Runs the solver; see ``Solver``. ``settings`` are its own, of the names it takes."""
        return self.function(
            denoiser,
            x,
            sigmas,
            noise=noise,
            callback=callback,
            edit=edit,
            restart_at=restart_at,
            **settings,
        )


def drawn(noise: Noise | None, draw: int, x: Tensor) -> Tensor:
    """The noise of a draw, like x.

    Raises:
        ValueError: if there is no source of noise.
    """
    if noise is None:
        raise ValueError("A stochastic solver needs the argument noise.")
    return noise(draw).to(x)


def restarts(before: float, sigma: float, restart_at: Sequence[float]) -> bool:
    """Whether a level of a restart was crossed between two steps."""
    return any(sigma < level <= before for level in restart_at)


def midpoint_ratio(before: float, sigma: float, target: float) -> float:
    """Half a step in log sigma, as a part of the step that led to sigma from the level before."""
    return math.log(sigma / target) / (2 * math.log(before / sigma))


def steps(sigmas: Tensor) -> Iterator[tuple[int, float, float]]:
    """Index, level and next level of each step."""
    levels = sigmas.tolist()
    for index, (sigma, target) in enumerate(pairwise(levels)):
        yield index, sigma, target
