"""Paths of a model from noise to images, recorded in small steps, and the errors of long ones.

Along a recorded path every step of a solver is a linear combination of states and denoised images
that are already known: ``a x_i + b D_i + c D_h`` for a step from level i that remembers level h.
Its error against the recorded state at the next level is a quadratic form in their inner products,
so that the steps between all pairs of levels are compared without evaluating the network again.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from multistage_diffusion.conditions import NO_CONDITIONS, Conditions
from multistage_diffusion.denoiser import Denoiser, NetworkDenoiser
from multistage_diffusion.sampling.dpm import dpmpp_2m
from multistage_diffusion.sampling.ode import heun
from multistage_diffusion.sampling.solver import midpoint_ratio

__all__ = ["RULES", "Path", "StepRule", "record_path", "rms", "stale_errors", "step_errors"]

Array = NDArray[np.float64]
GAINS = 8  # levels at which the growth of errors is measured
Coefficients = Callable[[float, float, float], tuple[float, float, float]]


@dataclass(frozen=True)
class Path:
    """States and denoised images of some samples at decreasing levels, as inner products."""

    levels: tuple[float, ...]
    """Noise levels, the last one 0: ``N + 1`` of them."""
    products: Array
    """Mean over samples and pixels of the products of the states and then the denoised images at
    all levels but 0, and of the end of the path: ``[2 N + 1, 2 N + 1]``."""
    gains: Array
    """By which factor an error made at each level is larger at the end of the path: ``[N + 1]``."""
    states: tuple[Tensor, ...]
    """``[B, C, H, W]`` at all levels but 0."""

    def norm(self, coefficients: Array) -> Array:
        """RMS of linear combinations ``[..., 2 N + 1]``."""
        squares = np.einsum("...i,ij,...j", coefficients, self.products, coefficients)
        return np.sqrt(np.maximum(squares, 0))


@torch.inference_mode()
def record_path(denoiser: Denoiser, x: Tensor, levels: Tensor) -> Path:
    """Solves with Heun's method and keeps what it visits.

    Args:
        denoiser: any denoiser.
        x: states at the first level, ``[B, C, H, W]``.
        levels: decreasing noise levels, the last one 0.
    """
    states: list[Tensor] = []
    denoised: list[Tensor] = []

    def keep(_step: int, _sigma: float, state: Tensor, image: Tensor) -> None:
        states.append(state)
        denoised.append(image)

    end = heun(denoiser, x, levels, callback=keep)
    rows = torch.stack([row.double().flatten().cpu() for row in (*states, *denoised, end)])
    products = rows @ rows.T / rows.shape[1]
    gains = _gains(denoiser, states, denoised, levels)
    return Path(tuple(levels.tolist()), products.numpy(), gains, tuple(states))


def _gains(
    denoiser: Denoiser, states: list[Tensor], denoised: list[Tensor], levels: Tensor
) -> Array:
    """Measures the growth of the errors of long Euler steps, at some levels, from there to the end.

    Between these levels it is linear in log sigma and in the logarithm of the growth. At 0 it is 1,
    and above them it falls with sigma, as where the denoised image does not depend on the state.
    """
    count = len(states)
    length = max(1, count // 16)
    positions = range(length, count, max(1, count // GAINS))
    found = dict[float, float]()
    for j in positions:
        i, sigma = j - length, float(levels[j])
        euler = denoised[i] + (sigma / levels[i]).to(states[i]) * (states[i] - denoised[i])
        rest = torch.cat([levels[j:-1:2], levels[-1:]])
        ends = [dpmpp_2m(denoiser, state, rest) for state in (euler, states[j])]
        found[sigma] = rms(ends[0] - ends[1]) / max(rms(euler - states[j]), 1e-12)
    highest, first = next(iter(found.items()))
    lowest = float(levels[-2]) / 10
    known = {float(levels[0]): first * highest / float(levels[0]), **found, lowest: 1.0}
    x, y = np.log([*known]), np.log(np.maximum([*known.values()], 1e-9))
    return np.exp(np.interp(np.log(np.maximum(levels.numpy(), lowest)), x[::-1], y[::-1]))


def rms(difference: Tensor) -> float:
    """Root of the mean square of all values."""
    return float(difference.double().square().mean().sqrt())


def _euler(s: float, t: float, _before: float) -> tuple[float, float, float]:
    return t / s, 1 - t / s, 0.0


def _dpmpp_2m(s: float, t: float, before: float) -> tuple[float, float, float]:
    if t == 0 or math.isnan(before):
        return _euler(s, t, before)
    weight, ratio = 1 - t / s, midpoint_ratio(before, s, t)
    return t / s, weight * (1 + ratio), -weight * ratio


@dataclass(frozen=True)
class StepRule:
    """What a solver does in a step."""

    coefficients: Coefficients
    """Of the state and the denoised image at s and of the other denoised image, for s, t and the
    level before s, which is NaN in the first step."""
    remembers: bool = False
    """Whether the other denoised image is that of the level before; else of the next level."""
    evaluates_next: bool = False
    """Whether a step evaluates the denoiser at the next level too, unless that is 0."""


def _heun(s: float, t: float, _before: float) -> tuple[float, float, float]:
    if t == 0:
        return 0.0, 1.0, 0.0
    half = (t - s) / 2
    return 1 + half * 2 / s, -half / s + half * (1 - t / s) / t, -half / t


RULES = {
    "euler": StepRule(_euler),
    "ddim": StepRule(_euler),
    "dpmpp-2m": StepRule(_dpmpp_2m, remembers=True),
    "heun": StepRule(_heun, evaluates_next=True),
}
"""The solvers whose steps can be tried along a path."""


def step_errors(path: Path, rule: StepRule) -> Array:
    """RMS errors of all steps: ``[h, i, j]`` for a step from level i to level j > i.

    h < i is the level before; h = i stands for none. Without memory all h are alike. Steps that
    do not go down are infinite.
    """
    count = len(path.levels)
    errors = np.full((count, count, count), np.inf)
    for i in range(count - 1):
        for j in range(i + 1, count):
            before = range(i + 1) if rule.remembers else [i]
            found = path.norm(np.stack([_difference(path, rule, h, i, j) for h in before]))
            errors[list(before), i, j] = found
            if not rule.remembers:
                errors[:, i, j] = found[0]
    return errors


def _difference(path: Path, rule: StepRule, h: int, i: int, j: int) -> Array:
    """Coefficients of a step minus the recorded state at its end."""
    levels, count = path.levels, len(path.levels) - 1
    before = levels[h] if h < i else math.nan
    state, image, other = rule.coefficients(levels[i], levels[j], before)
    row = np.zeros(2 * count + 1)
    row[i] += state
    row[count + i] += image
    if other:
        row[count + (h if rule.remembers else j)] += other
    row[j if j < count else 2 * count] -= 1
    return row


@torch.inference_mode()
def stale_errors(
    denoiser: NetworkDenoiser,
    path: Path,
    conditions: Conditions = NO_CONDITIONS,
) -> Array:
    """What is lost at level i if the encoder was last evaluated at level k: ``[k, i]``, an RMS.

    Infinite before k and in other stages than that of k.

    Args:
        denoiser: the network.
        path: of B samples.
        conditions: of the B samples.
    """
    states, levels = path.states, path.levels[:-1]
    stages = denoiser.stages.index(torch.tensor(levels, dtype=torch.float64)).tolist()
    errors = np.full((len(levels), len(levels)), np.inf)
    fresh = [
        denoiser.with_features(x, level, conditions)
        for x, level in zip(states, levels, strict=True)
    ]
    for k, (_, features) in enumerate(fresh):
        for i in (i for i in range(k, len(levels)) if stages[i] == stages[k]):
            stale, _ = denoiser.with_features(states[i], levels[i], conditions, features)
            errors[k, i] = rms(stale - fresh[i][0])
    return errors
