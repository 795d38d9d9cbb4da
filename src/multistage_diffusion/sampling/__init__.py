"""From noise to images."""

from multistage_diffusion.sampling.dpm import (
    dpm_multistep,
    dpm_singlestep,
    dpmpp_2m,
    singlestep_orders,
)
from multistage_diffusion.sampling.draw import (
    SampleOptions,
    evaluations_per_stage,
    generate,
    generate_batches,
)
from multistage_diffusion.sampling.grids import karras_grid, log_snr_grid
from multistage_diffusion.sampling.noise import noise
from multistage_diffusion.sampling.ode import ddim, heun
from multistage_diffusion.sampling.solver import Solver
from multistage_diffusion.sampling.solvers import SOLVERS, SolverName

__all__ = [
    "SOLVERS",
    "SampleOptions",
    "Solver",
    "SolverName",
    "ddim",
    "dpm_multistep",
    "dpm_singlestep",
    "dpmpp_2m",
    "evaluations_per_stage",
    "generate",
    "generate_batches",
    "heun",
    "karras_grid",
    "log_snr_grid",
    "noise",
    "singlestep_orders",
]
