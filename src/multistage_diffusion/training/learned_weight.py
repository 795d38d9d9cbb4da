"""A weight of the loss that is learned for each noise level.

Karras et al. 2024 (EDM2), after Kendall et al. 2018. With ``L`` the weighted loss of a sample at
the noise level ``sigma``, training minimises

    exp(-u(sigma)) L + u(sigma).

For a fixed network its minimum is at ``u(sigma) = log E[L | sigma]``: every level counts by its
loss relative to what is expected there. ``u`` is a linear function of waves of ``log(sigma) / 4``
and 0 at the start. Samplers do not use it.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn

from multistage_diffusion.files import read_json, write_json
from multistage_diffusion.run import Run

__all__ = ["LearnedWeight", "read_curve", "write_curve"]

WAVES = 128
CURVE_POINTS = 200
GOLDEN_RATIO = (5**0.5 - 1) / 2


class LearnedWeight(nn.Module):
    """``u(sigma)``.

    EDM2 draws frequencies and phases at random; these are quantiles of the same distributions.
    """

    def __init__(self) -> None:
        super().__init__()
        index = torch.arange(WAVES, dtype=torch.float64)
        frequencies = 2 * math.pi * torch.special.ndtri((index + 0.5) / WAVES)
        phases = 2 * math.pi * (index * GOLDEN_RATIO % 1)
        self.weight = nn.Parameter(torch.zeros(WAVES))
        self.frequencies: Tensor
        self.register_buffer("frequencies", frequencies.float())
        self.phases: Tensor
        self.register_buffer("phases", phases.float())

    def forward(self, sigma: Tensor) -> Tensor:
        """The logarithm of the expected loss at noise levels ``[B]``: ``[B]``, on its device."""
        level = (sigma.log() / 4).to(self.weight, non_blocking=True)
        waves = (torch.outer(level, self.frequencies) + self.phases).cos()
        return math.sqrt(2) * waves @ self.weight

    def balance(self, losses: Tensor, sigma: Tensor) -> Tensor:
        """The objective in place of losses ``[B]`` at noise levels ``[B]``."""
        u = self(sigma)
        return (-u).exp() * losses + u


@torch.no_grad()
def write_curve(
    run: Run, learned: LearnedWeight, images: int, sigma: Tensor, losses: Tensor
) -> None:
    """Writes the present curve ``exp(u)``, with losses to compare it with.

    Args:
        run: the run.
        learned: the learned weight.
        images: images seen.
        sigma: noise levels of the losses, ``[n]``; the curve spans them.
        losses: of the network at these levels, ``[n]``.
    """
    low = float(sigma.min().log10())
    high = float(sigma.max().log10())
    grid = torch.logspace(low, high, CURVE_POINTS, dtype=torch.float64)
    curve = {
        "images": images,
        "sigma": grid.tolist(),
        "loss": learned(grid).exp().tolist(),
        "probe": {"sigma": sigma.tolist(), "loss": losses.tolist()},
    }
    write_json(run.learned_weight, curve)


def read_curve(run: Run) -> Any:
    """What ``write_curve`` wrote last, or None."""
    return read_json(run.learned_weight) if run.learned_weight.exists() else None
