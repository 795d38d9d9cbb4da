"""From noise to images."""

from multistage_diffusion.sampling.adaptive import dpmpp_adaptive
from multistage_diffusion.sampling.ancestral import ddim, dpmpp_2m_sde, dpmpp_sde
from multistage_diffusion.sampling.calls import evaluations_per_stage, sampling_macs
from multistage_diffusion.sampling.dpm import (
    dpm_multistep,
    dpm_singlestep,
    dpmpp_2m,
    even_in_clock,
    even_in_log,
    singlestep_orders,
)
from multistage_diffusion.sampling.draw import generate, generate_batches
from multistage_diffusion.sampling.grids import karras_grid, log_snr_grid
from multistage_diffusion.sampling.noise import noise
from multistage_diffusion.sampling.ode import euler, heun
from multistage_diffusion.sampling.options import SampleOptions
from multistage_diffusion.sampling.solver import Solver
from multistage_diffusion.sampling.solvers import SOLVERS, SolverName
from multistage_diffusion.sampling.unipc import unipc

__all__ = [
    "SOLVERS",
    "SampleOptions",
    "Solver",
    "SolverName",
    "ddim",
    "dpm_multistep",
    "dpm_singlestep",
    "dpmpp_2m",
    "dpmpp_2m_sde",
    "dpmpp_adaptive",
    "dpmpp_sde",
    "euler",
    "evaluations_per_stage",
    "even_in_clock",
    "even_in_log",
    "generate",
    "generate_batches",
    "heun",
    "karras_grid",
    "log_snr_grid",
    "noise",
    "sampling_macs",
    "singlestep_orders",
    "unipc",
]
