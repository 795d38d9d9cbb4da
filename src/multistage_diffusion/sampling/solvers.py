"""The solvers by name."""

from collections.abc import Callable
from functools import partial
from typing import Literal

from torch import Tensor

from multistage_diffusion.denoiser import Denoiser
from multistage_diffusion.sampling.dpm import _by_evaluations, dpm_multistep, dpmpp_2m
from multistage_diffusion.sampling.ode import ddim, heun

__all__ = ["SOLVERS", "Solver", "SolverName"]


Solver = Callable[[Denoiser, Tensor, Tensor], Tensor]


SolverName = Literal["heun", "ddim", "dpmpp-2m", "dpm-2m", "dpm-3s", "dpmpp-3s"]


SOLVERS: dict[SolverName, Solver] = {
    "heun": heun,
    "ddim": ddim,
    "dpmpp-2m": dpmpp_2m,
    "dpm-2m": dpm_multistep,
    "dpm-3s": partial(_by_evaluations, data=False),
    "dpmpp-3s": partial(_by_evaluations, data=True),
}
"""The solvers by the names the command line uses."""
