"""A weight of the loss that is learned for each noise level.

Karras et al. 2024 (EDM2), after Kendall et al. 2018. With ``L`` the weighted loss of a sample at
the noise level ``sigma``, training minimises

    exp(-u(sigma)) L + u(sigma).

For a fixed network its minimum is at ``u(sigma) = log E[L | sigma]``: every level counts by its
loss relative to the expected one. ``u`` is a linear function of sinusoids of ``log(sigma) / 4`` and
0 at the start. Samplers do not use it.
"""

import math
from dataclasses import MISSING, dataclass

import torch
from torch import Tensor, nn

from multistage_diffusion.config import Settings, read_config, setting
from multistage_diffusion.errors import BadInput
from multistage_diffusion.files import write_json
from multistage_diffusion.run import Run

__all__ = ["LearnedCurve", "LearnedWeight", "read_curve", "write_curve"]

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
        """The objective of each sample, ``[B]``, from losses ``[B]`` at noise levels ``[B]``."""
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


@dataclass(frozen=True, kw_only=True)
class Losses(Settings):
    """Losses at noise levels."""

    sigma: tuple[float, ...]
    loss: tuple[float, ...]

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.sigma) != len(self.loss) or not self.sigma:
            raise BadInput("it needs a loss for each sigma")
        if not all(0 < sigma < math.inf for sigma in self.sigma):
            raise BadInput("each sigma must be positive and finite")


@dataclass(frozen=True, kw_only=True)
class LearnedCurve(Losses):
    """The content of a run's ``uncertainty.json``."""

    images: int = setting(MISSING, at_least=0)
    """Images seen."""
    probe: Losses
    """Of the network, to compare with."""


def read_curve(run: Run) -> LearnedCurve | None:
    """What ``write_curve`` wrote last, or None.

    Raises:
        BadInput: if the file holds something else.
    """
    path = run.learned_weight
    return read_config(LearnedCurve, path) if path.exists() else None
