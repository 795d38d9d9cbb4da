"""A weight of the loss that is learned for each noise level (Karras et al. 2024, EDM2, after Kendall et al. 2018).

With ``L`` the weighted loss of a sample at the level ``sigma``, training minimises

    exp(-u(sigma)) L + u(sigma).

For a fixed network the least of it is at ``u(sigma) = log E[L | sigma]``: every level comes to count by its loss relative to
what is to be expected there. ``u`` is a linear function of waves of ``log(sigma) / 4``, 0 at the start; samplers do without.
"""

import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from multistage_diffusion.files import read_json, write_json

__all__ = ["Uncertainty", "read_curve", "write_curve"]

FILE = "uncertainty.json"
WAVES = 128
POINTS = 200  # of the curve
GOLDEN = (5**0.5 - 1) / 2


class Uncertainty(nn.Module):
    """``u(sigma)``. Where EDM2 draws frequencies and phases at random, these are quantiles of the same distributions."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(WAVES))
        index = torch.arange(WAVES, dtype=torch.float64)
        self.frequencies: Tensor
        self.register_buffer(
            "frequencies", (2 * math.pi * torch.special.ndtri((index + 0.5) / WAVES)).float()
        )
        self.phases: Tensor
        self.register_buffer("phases", (2 * math.pi * (index * GOLDEN % 1)).float())

    def forward(self, sigma: Tensor) -> Tensor:
        """The logarithm of the loss that is expected at levels ``[B]``: ``[B]``, on the device of the weights."""
        level = (sigma.log() / 4).to(self.weight, non_blocking=True)
        return (
            math.sqrt(2) * (torch.outer(level, self.frequencies) + self.phases).cos() @ self.weight
        )

    def balance(self, losses: Tensor, sigma: Tensor) -> Tensor:
        """What is minimised in place of losses ``[B]`` at levels ``[B]``."""
        u = self(sigma)
        return (-u).exp() * losses + u


@torch.no_grad()
def write_curve(
    run: Path, uncertainty: Uncertainty, images: int, sigma: Tensor, losses: Tensor
) -> None:
    """Writes the curve ``exp(u)`` as it stands, with losses to compare it with.

    Args:
        run: the folder of the run.
        uncertainty: what was learned.
        images: number of images seen.
        sigma: noise levels of the losses, ``[n]``; the curve spans them.
        losses: of the network at these levels, ``[n]``.
    """
    grid = torch.logspace(
        float(sigma.min().log10()), float(sigma.max().log10()), POINTS, dtype=torch.float64
    )
    curve = {"sigma": grid.tolist(), "loss": uncertainty(grid).exp().tolist()}
    write_json(
        run / FILE,
        {"images": images, **curve, "probe": {"sigma": sigma.tolist(), "loss": losses.tolist()}},
    )


def read_curve(run: Path) -> Any:
    """What ``write_curve`` wrote last, or None."""
    return read_json(run / FILE) if (run / FILE).exists() else None
