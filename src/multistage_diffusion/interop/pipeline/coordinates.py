"""How schedulers of diffusers write a noisy image, and what they expect a model to predict.

At each step a scheduler holds ``x = alpha y + s n`` with clean images y and noise n:

- variance preserving (DDPM, DDIM, UniPC, DPM-Solver): ``alpha^2 + s^2 = 1``;
- EDM and the Euler family: ``alpha = 1``;
- flow matching: ``alpha = 1 - s``.

For a denoiser, that is the image ``x / alpha`` at the noise level ``s / alpha``. Its answer D is
then written as the scheduler's own prediction.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

__all__ = ["Coordinates", "coordinates", "prediction"]

FLOW_KEYS = ("shift", "base_shift")  # configuration of flow-matching schedulers only


@dataclass(frozen=True)
class Coordinates:
    """Scales of image and noise at a step."""

    alpha: float
    s: float

    def level(self, highest: float) -> float:
        """The noise level sigma, at most ``highest``: pure noise has none."""
        return min(self.s / self.alpha, highest) if self.alpha > 0 else highest

    def noisy(self, x: Tensor, level: float) -> Tensor:
        """The scheduler's state as ``y + level n``."""
        return x * (level / self.s)


def coordinates(scheduler: Any, t: Tensor) -> Coordinates:
    """The scales at a timestep of a scheduler whose number of steps is set.

    Args:
        scheduler: of diffusers.
        t: one of its timesteps; those of multistep schedulers are taken in order.

    Raises:
        ValueError: if the scheduler keeps neither levels nor alphas.
    """
    if not hasattr(scheduler, "sigmas"):
        return _from_alphas(scheduler, t)
    if scheduler.step_index is None:
        scheduler._init_step_index(t)
    between = hasattr(scheduler, "sigmas_interpol") and not scheduler.state_in_first_order
    sigmas = scheduler.sigmas_interpol if between else scheduler.sigmas
    sigma = sigmas[scheduler.step_index].to(torch.float64)
    if hasattr(scheduler, "_sigma_to_alpha_sigma_t"):
        alpha, s = scheduler._sigma_to_alpha_sigma_t(sigma)
        return Coordinates(float(alpha), float(s))
    flow = any(key in scheduler.config for key in FLOW_KEYS)
    return Coordinates(1 - float(sigma) if flow else 1.0, float(sigma))


def _from_alphas(scheduler: Any, t: Tensor) -> Coordinates:
    if not hasattr(scheduler, "alphas_cumprod"):
        raise ValueError(f"{type(scheduler).__name__} keeps neither noise levels nor alphas.")
    kept = float(scheduler.alphas_cumprod[int(t)].to(torch.float64))
    return Coordinates(kept**0.5, (1 - kept) ** 0.5)


def prediction(scheduler: Any, at: Coordinates, x: Tensor, denoised: Tensor) -> Tensor:
    """The denoised images as the prediction that a scheduler expects.

    Args:
        scheduler: of diffusers.
        at: the scales at this step.
        x: the scheduler's state, ``[B, C, H, W]``.
        denoised: the clean images that the model estimates, like ``x``.

    Raises:
        ValueError: if there is no such prediction type.
    """
    if hasattr(scheduler, "precondition_outputs"):
        return _preconditioned(scheduler, at.s, x, denoised)
    noise = (x - at.alpha * denoised) / at.s
    kind = scheduler.config.get("prediction_type", "flow_prediction")
    if kind == "sample":
        return denoised
    if kind == "epsilon":
        return noise
    if kind == "v_prediction":
        return at.alpha * noise - at.s * denoised
    if kind == "flow_prediction":
        return noise - denoised
    raise ValueError(f"{type(scheduler).__name__} expects an unknown prediction type: {kind}.")


def _preconditioned(scheduler: Any, sigma: float, x: Tensor, denoised: Tensor) -> Tensor:
    """F of EDM's ``D = c_skip x + c_out F``, with the scheduler's own coefficients."""
    level = torch.tensor(sigma, dtype=torch.float64)
    one, zero = torch.ones((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)
    c_skip = scheduler.precondition_outputs(one, zero, level)
    c_out = scheduler.precondition_outputs(zero, one, level)
    return (denoised - float(c_skip) * x) / float(c_out)
