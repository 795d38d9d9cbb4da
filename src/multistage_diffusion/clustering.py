"""Timestep clustering: where the stages of a data set begin and end (paper, algorithm 1).

Towards small noise the optimal denoiser returns the clean image, towards large noise the mean image. Its agreement with
either limit, as a function of the noise level, says how far a stage of nearly constant behaviour reaches. For a pair of an
image y and a noise n, with pixel values in [0, 1], ``x = y + sigma n`` and ``D = D*(x; sigma)``:

    S0(sigma) = share of pixels with |y - D|    <= eta sigma    (agreement with the limit of no noise),
    S1(sigma) = share of pixels with |ybar - D| <= eta sigma    (agreement with the limit of pure noise).

With means taken over pairs and over quantiles u of the schedule, the stages are cut at

    u1 = the largest u with mean of S0 over [0, u] >= alpha,
    u2 = the smallest u with mean of S1 over [u, 1] >= alpha.

Both denoisers of S1 are evaluated at the same x. That is what the authors' code does and what gives the published values;
the paper's formula, which compares two different noisy images, does not.
"""

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from multistage_diffusion.data.images import Images, to_unit_range
from multistage_diffusion.errors import BadInput
from multistage_diffusion.optimal import PairDenoiser
from multistage_diffusion.schedule import SCHEDULES, Schedule
from multistage_diffusion.stages import Stages

__all__ = ["Agreement", "ClusterOptions", "Clustering", "agreement", "cluster", "identity", "thresholds"]

Floats = NDArray[np.float64]
UNIT = 2.0  # networks and denoisers see pixels in [-1, 1]; eta and sigma of the algorithm refer to [0, 1]
CHUNK_BYTES = 128 << 20
CHUNK_PAIRS = 128
REFINEMENT = 300  # points between two levels when the thresholds are located
REPLICATES = 500


@dataclass(frozen=True, kw_only=True)
class ClusterOptions:
    """Settings of the two-threshold rule.

    Raises:
        BadInput: if a setting is out of its range.
    """

    alpha: float = 0.9
    """Mean agreement that a stage must keep."""
    eta: float = 2 / 256
    """Tolerated difference of a pixel, in units of sigma and of the range [0, 1]."""
    pairs: int = 256
    """Pairs of image and noise, each evaluated at every level."""
    levels: int = 33
    """Noise levels."""
    seed: int = 0
    """The pairs are a function of it."""

    def __post_init__(self) -> None:
        if not 0 < self.alpha <= 1:
            raise BadInput(f"alpha is a mean agreement between 0 and 1, not {self.alpha}.")
        if self.eta <= 0:
            raise BadInput(f"eta must be positive, not {self.eta}.")
        if self.pairs < 1 or self.levels < 3:
            raise BadInput(f"Clustering needs at least 1 pair and 3 levels, not {self.pairs} and {self.levels}.")


@dataclass(frozen=True)
class Agreement:
    """Agreement of each pair with both limits, at each level."""

    low: Floats
    """S0, ``[pairs, levels]``."""
    high: Floats
    """S1, ``[pairs, levels]``."""


@dataclass(frozen=True)
class Clustering:
    """Three stages and what they were found from."""

    stages: Stages
    schedule: Schedule
    options: ClusterOptions
    sigmas: Floats
    agreement: Agreement
    ci95: list[tuple[float, float]]
    """Bootstrap 95 % interval of each boundary, in sigma."""

    def to_json(self, images: Images, schedule_name: str) -> dict[str, Any]:
        """The contents of a stages file."""
        boundaries = list(self.stages.boundaries)
        return {
            "boundaries": boundaries,
            "clock": self.schedule.clock,
            "boundaries_in_clock": [float(self.schedule.to_clock(b)) for b in boundaries],
            "ci95": self.ci95,
            **identity(images, schedule_name, self.options),
            "curves": {
                "sigma": self.sigmas.tolist(),
                "u": self.schedule.u(torch.from_numpy(self.sigmas)).tolist(),
                "low_noise_agreement": self.agreement.low.mean(0).tolist(),
                "high_noise_agreement": self.agreement.high.mean(0).tolist(),
            },
        }


def identity(images: Images, schedule_name: str, options: ClusterOptions) -> dict[str, Any]:
    """The part of a stages file that determines the rest: method, parameters and data."""
    schedule: Any = SCHEDULES[schedule_name]
    return {
        "method": "optimal-denoiser",
        "parameters": {**asdict(options), "schedule": {"name": schedule_name, **asdict(schedule)}},
        "data": {"fingerprint": images.fingerprint, "images": len(images), "shape": list(images.shape)},
    }


def agreement(images: Images, sigmas: Tensor, options: ClusterOptions) -> Iterator[Agreement]:
    """S0 and S1 of ``options.pairs`` pairs at the levels ``sigmas`` (for pixels in [0, 1]), some pairs at a time.

    The pairs are a function of the seed; an image is used twice only if there are fewer images than pairs.
    """
    denoiser = PairDenoiser(images.pixels)
    mean = to_unit_range(images.pixels.sum(0, dtype=torch.float64) / len(images)).float()
    pair_bytes = 4 * images.pixels[0].numel() * len(sigmas)
    for chosen in _pairs(len(images), options).split(min(CHUNK_PAIRS, max(1, CHUNK_BYTES // pair_bytes))):
        clean = to_unit_range(images.pixels[chosen[:, 0]])
        noise = torch.stack([_noise(options.seed, int(pair), images.shape) for pair in chosen[:, 1]])
        denoised = denoiser(chosen[:, 0], noise, sigmas * UNIT)
        yield _agreement(denoised, clean, mean, sigmas * UNIT, options.eta)


def _pairs(images: int, options: ClusterOptions) -> Tensor:
    """Index of the image and number of the pair, ``[pairs, 2]``."""
    rng = np.random.default_rng(options.seed)
    rounds = [rng.permutation(images) for _ in range(-(-options.pairs // images))]
    chosen = np.concatenate(rounds)[: options.pairs]
    return torch.from_numpy(np.stack([chosen, np.arange(options.pairs)], axis=1))


def _noise(seed: int, pair: int, shape: tuple[int, int, int]) -> Tensor:
    return torch.from_numpy(np.random.default_rng((seed, pair)).standard_normal(shape))


def _agreement(denoised: Tensor, y: Tensor, mean: Tensor, sigmas: Tensor, eta: float) -> Agreement:
    """S0 and S1 from D at each pair and level, ``[pairs, levels, C, H, W]``."""
    tolerance = eta * sigmas[:, None, None, None]
    low = ((denoised - y[:, None]).abs() <= tolerance).double().flatten(2).mean(2)
    high = ((denoised - mean).abs() <= tolerance).double().flatten(2).mean(2)
    return Agreement(low.numpy(), high.numpy())


def thresholds(u: Floats, low: Floats, high: Floats, alpha: float) -> tuple[float, float]:
    """The quantiles u1 and u2 of the two-threshold rule; NaN where a curve never reaches ``alpha``.

    Args:
        u: increasing quantiles of the levels, ``[L]``; the curves are linear between them and constant outside.
        low, high: mean agreement with either limit, ``[L]``.
        alpha: mean agreement that a stage must keep.
    """
    steps = np.linspace(0, len(u) - 1, REFINEMENT * (len(u) - 1) + 1)
    fine = np.unique(np.concatenate([[0.0], np.interp(steps, np.arange(len(u)), u), [1.0]]))
    below = _running_mean(fine, np.interp(fine, u, low))
    above = _running_mean(1 - fine[::-1], np.interp(fine[::-1], u, high))[::-1]
    first, second = fine[below >= alpha], fine[above >= alpha]
    return (first.max() if len(first) else np.nan), (second.min() if len(second) else np.nan)


def _running_mean(u: Floats, curve: Floats) -> Floats:
    """Mean of the piecewise linear curve over ``[0, u]``."""
    integral = np.concatenate([[0.0], np.cumsum(np.diff(u) * (curve[1:] + curve[:-1]) / 2)])
    return np.where(u > 0, integral / np.where(u > 0, u, 1), curve)


def cluster(images: Images, schedule: Schedule, options: ClusterOptions, parts: Iterable[Agreement] | None = None) -> Clustering:
    """Three stages by the two-threshold rule.

    Args:
        images: the data set.
        schedule: the density of noise levels over which the agreement is averaged.
        options: settings of the rule.
        parts: what ``agreement(images, schedule.levels(options.levels), options)`` yields, if it is to be watched on its way.

    Raises:
        BadInput: if the curves do not reach ``alpha``, or the two stages they give overlap.
    """
    sigmas = schedule.levels(options.levels)
    done = list(agreement(images, sigmas, options) if parts is None else parts)
    whole = Agreement(np.concatenate([p.low for p in done]), np.concatenate([p.high for p in done]))
    u = schedule.u(sigmas).numpy()
    cut = thresholds(u, whole.low.mean(0), whole.high.mean(0), options.alpha)
    _check(cut, options)
    boundaries = schedule.sigma(torch.tensor(cut, dtype=torch.float64)).tolist()
    return Clustering(
        Stages(tuple(boundaries)), schedule, options, sigmas.numpy(), whole, _intervals(u, whole, schedule, options)
    )


def _check(cut: tuple[float, float], options: ClusterOptions) -> None:
    for value, name in zip(cut, ("smallest", "largest"), strict=True):
        if np.isnan(value):
            raise BadInput(f"Even at the {name} noise the agreement is below alpha = {options.alpha}: lower alpha or raise eta.")
    if not 0 < cut[0] < cut[1] < 1:
        raise BadInput(
            f"The first and last stage overlap or fill everything (quantiles {cut[0]:.3f} and {cut[1]:.3f}): "
            f"raise alpha (now {options.alpha}), lower eta (now {options.eta:g}) or use the schedule vp."
        )


def _intervals(u: Floats, whole: Agreement, schedule: Schedule, options: ClusterOptions) -> list[tuple[float, float]]:
    """Percentile bootstrap over pairs."""
    rng = np.random.default_rng(options.seed)
    weights = rng.multinomial(options.pairs, np.full(options.pairs, 1 / options.pairs), REPLICATES) / options.pairs
    lows, highs = weights @ whole.low, weights @ whole.high
    cuts = np.array([thresholds(u, low, high, options.alpha) for low, high in zip(lows, highs, strict=True)])
    limits = schedule.sigma(torch.from_numpy(np.nanpercentile(cuts, [2.5, 97.5], axis=0)))
    return [(low, high) for low, high in limits.T.tolist()]
