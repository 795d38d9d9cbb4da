"""The authors' trajectories: a solver, its levels, the start and the final images.

``trajectories.safetensors`` holds a crop of each, with every call of the denoiser. Solvers are
elementwise, so the recorded outputs of a denoiser are enough to repeat a trajectory without its
network. ``python -m tests.golden.make`` writes the file.
"""

import re
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from torch import Tensor

from multistage_diffusion.denoiser import Denoiser
from multistage_diffusion.sampling import (
    dpm_multistep,
    dpm_singlestep,
    heun,
    karras_grid,
    log_snr_grid,
    singlestep_orders,
)
from multistage_diffusion.schedule import Schedule
from tests.golden.files import assert_close

FILE = Path(__file__).parent / "trajectories.safetensors"
EVALUATIONS = 20  # of a DPM-Solver
STATE_TOLERANCE = 1e-5  # of the largest value; the recorded tensors are float32


def solve(name: str, schedule: Schedule, denoiser: Denoiser, latents: Tensor) -> Tensor:
    """The final images of a trajectory.

    Args:
        name: ``heun`` and a number of steps, or ``dpmsolver`` or ``dpmsolver++`` with
            ``singlestep`` or ``multistep`` and an order after a dot.
        schedule: the network's schedule.
        denoiser: the denoiser.
        latents: unit Gaussian noise, ``[B, C, H, W]``.
    """
    start = latents.double()
    if name.startswith("heun"):
        return heun(denoiser, 80 * start, karras_grid(int(name[4:]), 0.002, 80))
    parts = re.fullmatch(r"dpmsolver(\+\+)?\.(singlestep|multistep)([123])", name)
    assert parts, name
    data, order = parts[1] is not None, int(parts[3])
    high, low = (float(schedule.from_clock(t)) for t in (1.0, 1e-3))
    x = start * (1 + high**2) ** 0.5
    if parts[2] == "singlestep":
        orders = singlestep_orders(EVALUATIONS, order)
        sigmas = log_snr_grid(len(orders) + 1, low, high)[:-1]
        x = dpm_singlestep(denoiser, x, sigmas, orders=orders, data=data)
    else:
        sigmas = log_snr_grid(EVALUATIONS + 1, low, high)[:-1]
        x = dpm_multistep(denoiser, x, sigmas, order=order, data=data, published=True)
    return x / (1 + low**2) ** 0.5  # the authors scale to unit variance, we add noise


@dataclass
class Recorder:
    """A denoiser that records its calls in order."""

    denoiser: Denoiser
    sigma: list[float] = field(default_factory=list)
    x: list[Tensor] = field(default_factory=list)
    denoised: list[Tensor] = field(default_factory=list)

    def __call__(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        denoised = self.denoiser(x, sigma)
        self.sigma.append(float(sigma))
        self.x.append(x)
        self.denoised.append(denoised)
        return denoised


@dataclass
class Replay:
    """A denoiser that gives recorded outputs, if it is called as it was when they were recorded."""

    sigma: Tensor
    """Noise level of each call, float64 ``[calls]``."""
    x: Tensor
    """State of each call, ``[calls, B, C, H, W]``."""
    denoised: Tensor
    """Output of each call, ``[calls, B, C, H, W]``."""
    calls: int = 0

    def __call__(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        call = self.calls
        self.calls += 1
        assert float(sigma) == pytest.approx(float(self.sigma[call]), rel=1e-9)
        assert_close(x, self.x[call].double(), STATE_TOLERANCE)
        return self.denoised[call].to(torch.float64)
