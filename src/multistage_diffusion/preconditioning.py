"""Preconditionings: how a raw network becomes a denoiser, as functions of sigma.

A preconditioning wraps the raw network F (Karras et al. 2022, eq. 7):

    D(x; sigma) = c_skip(sigma) x + c_out(sigma) F(c_in(sigma) x; c_noise(sigma)),

and weights the loss ``weight(sigma) |D(y + sigma n; sigma) - y|^2``.

To add one, write a function of the data's standard deviation and enter it in ``PRECONDITIONINGS``;
configurations and the command line take their choices from there.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from multistage_diffusion.schedule import DDPM, VP, Schedule, as_float64

__all__ = [
    "PRECONDITIONINGS",
    "Coefficient",
    "Preconditioning",
    "PreconditioningName",
    "column",
    "edm_preconditioning",
    "eps_preconditioning",
    "expected_deviation",
    "flow_preconditioning",
    "matched",
    "v_preconditioning",
    "weighted_error",
]

Coefficient = Callable[[Tensor], Tensor]
LEAST_SIGMA = 1e-30  # whose logarithm the network receives at 0, where c_out is 0


@dataclass(frozen=True)
class Preconditioning:
    """The coefficients of D as functions of sigma, elementwise, in float64 on the CPU."""

    c_skip: Coefficient
    c_out: Coefficient
    c_in: Coefficient
    c_noise: Coefficient
    weight: Coefficient
    """Weight of the squared error in the loss."""


def edm_preconditioning(sigma_data: float) -> Preconditioning:
    """EDM's: input, target and weighted loss have unit variance at every level.

    Source: Karras et al. 2022, table 1.

    Args:
        sigma_data: standard deviation of the data.
    """
    var = sigma_data**2
    return Preconditioning(
        c_skip=lambda s: var / (s**2 + var),
        c_out=lambda s: s * sigma_data / (s**2 + var).sqrt(),
        c_in=lambda s: 1 / (s**2 + var).sqrt(),
        c_noise=lambda s: s.clamp(min=LEAST_SIGMA).log() / 4,
        weight=lambda s: (s**2 + var) / (s**2 * var),
    )


def eps_preconditioning(schedule: Schedule, scale: float) -> Preconditioning:
    """Noise prediction with the plain loss on the noise: DDPM, score_sde and latent diffusion.

    Args:
        schedule: the schedule whose own clock the network receives.
        scale: factor on that clock.
    """
    return Preconditioning(
        c_skip=torch.ones_like,
        c_out=lambda s: -s,
        c_in=lambda s: 1 / (1 + s**2).sqrt(),
        c_noise=lambda s: scale * schedule.to_clock(s),
        weight=lambda s: 1 / s**2,
    )


def v_preconditioning(schedule: Schedule, scale: float) -> Preconditioning:
    """Prediction of ``v = (noise - sigma y) / sqrt(1 + sigma^2)``, with the plain loss on v.

    Source: Salimans & Ho 2022, appendix D.

    Args:
        schedule: the schedule whose own clock the network receives.
        scale: factor on that clock.
    """
    return replace(
        eps_preconditioning(schedule, scale),
        c_skip=lambda s: 1 / (1 + s**2),
        c_out=lambda s: -s / (1 + s**2).sqrt(),
        weight=lambda s: (1 + s**2) / s**2,
    )


def flow_preconditioning() -> Preconditioning:
    """Flow matching: the network predicts the velocity ``n - y`` of the linear path.

    The loss is the plain one on the velocity.

    At ``t = sigma / (1 + sigma)`` the network sees ``x_t = x / (1 + sigma)``, and
    ``D = x_t - t F``. It receives 1000 t.

    Source: Lipman et al. 2023; Esser et al. 2024.
    """
    return Preconditioning(
        c_skip=lambda s: 1 / (1 + s),
        c_out=lambda s: -s / (1 + s),
        c_in=lambda s: 1 / (1 + s),
        c_noise=lambda s: 1000 * s / (1 + s),
        weight=lambda s: ((1 + s) / s) ** 2,
    )


def _vp_preconditioning(_: float, schedule: Schedule) -> Preconditioning:
    return eps_preconditioning(schedule if isinstance(schedule, VP) else VP(), 999.0)


def _chain(schedule: Schedule) -> DDPM:
    return schedule if isinstance(schedule, DDPM) else DDPM()


PRECONDITIONINGS: dict[str, Callable[[float, Schedule], Preconditioning]] = {
    "edm": lambda sigma_data, _: edm_preconditioning(sigma_data),
    "vp": _vp_preconditioning,
    "ddpm": lambda _, schedule: eps_preconditioning(_chain(schedule), 1.0),
    "ddpm-v": lambda _, schedule: v_preconditioning(_chain(schedule), 1.0),
    "flow": lambda *_: flow_preconditioning(),
}
"""The preconditionings by name, as functions of the data's standard deviation and of the schedule,
whose clock the network receives if it is of the kind that the preconditioning expects."""

DEFAULT_SIGMA_DATA = 0.5


def expected_deviation(name: str, sigma_data: float | None) -> float:
    """The standard deviation of data whose network input has unit variance without noise.

    Args:
        name: of the preconditioning.
        sigma_data: of the preconditioning; EDM's 0.5 if not given.
    """
    given = PRECONDITIONINGS[name](sigma_data or DEFAULT_SIGMA_DATA, VP())
    return float(1 / given.c_in(torch.zeros((), dtype=torch.float64)))


if TYPE_CHECKING:
    PreconditioningName = str
else:  # read at run time, where settings are parsed and checked
    PreconditioningName = Literal[tuple(PRECONDITIONINGS)]


def weighted_error(
    denoised: Tensor, y: Tensor, sigma: Tensor, preconditioning: Preconditioning
) -> Tensor:
    """The weighted denoising loss of each sample, averaged over its pixels.

    Args:
        denoised: estimates of the clean images, ``[B, C, H, W]``.
        y: clean images, ``[B, C, H, W]``.
        sigma: noise levels, ``[B]``.
        preconditioning: whose weight is used.

    Returns:
        ``weight(sigma) mean((denoised - y)^2)``, ``[B]``, with the dtype and device of ``y``.
    """
    weight = matched(preconditioning.weight(as_float64(sigma)), y)
    return weight * (denoised - y).square().flatten(1).mean(1)


def matched(values: Tensor, images: Tensor) -> Tensor:
    """Values of each sample, ``[B]``, with the dtype and on the device of the images.

    Converted before they are copied, since some accelerators have no float64. The copy to a GPU is
    not waited for.
    """
    converted = values.to(images.dtype)
    return converted.to(images.device, non_blocking=images.is_cuda)


def column(values: Tensor, images: Tensor) -> Tensor:
    """Values of each sample, ``[B, 1, 1, 1]``, ready to multiply images."""
    return matched(values, images)[:, None, None, None]
