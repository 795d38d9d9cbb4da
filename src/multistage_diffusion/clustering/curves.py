"""Timestep clustering: where the stages of a data set begin and end (paper, algorithm 1).

Towards small noise the optimal denoiser returns the clean image, towards large noise the mean image. Its agreement with
either limit, as a function of the noise level, says how far a stage of nearly constant behaviour reaches. For a pair of an
image y and a noise n, with pixel values in [0, 1], ``x = y + sigma n`` and ``D = D*(x; sigma)``:

    S0(sigma) = share of pixels with |y - D|    <= eta sigma    (agreement with the limit of no noise),
    S1(sigma) = share of pixels with |ybar - D| <= eta sigma    (agreement with the limit of pure noise).

With means taken over pairs and over quantiles u of the schedule, the stages are cut at

    u1 = the largest u with mean of S0 over [0, u] >= alpha,
    u2 = the smallest u with mean of S1 over [u, 1] >= alpha.

For another number of stages, levels are compared with each other: ``S(a, b)`` is the share of pixels at which the estimates
``eps* = (x - D*) / sigma`` of the noise at levels a and b, from the same y and n, differ by at most eta. The stages are
the partition that makes a level most similar to the others of its stage.

Both denoisers of S1 are evaluated at the same x. That is what the authors' code does and what gives the published values;
the paper's formula, which compares two different noisy images, does not.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from multistage_diffusion.clustering.options import ClusterOptions
from multistage_diffusion.data.images import Images, to_unit_range
from multistage_diffusion.optimal import PairDenoiser

__all__ = ["Agreement", "agreement"]

Floats = NDArray[np.float64]
UNIT = 2.0  # networks and denoisers see pixels in [-1, 1]; eta and sigma of the algorithm refer to [0, 1]
CHUNK_BYTES = 128 << 20
CHUNK_PAIRS = 128


@dataclass(frozen=True)
class Agreement:
    """Agreement of each pair with both limits, at each level."""

    low: Floats
    """S0, ``[pairs, levels]``."""
    high: Floats
    """S1, ``[pairs, levels]``."""
    similarity: Floats | None = None
    """S, ``[pairs, levels, levels]``, where more or fewer than three stages are asked for."""


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
        yield _agreement(denoised, clean, mean, sigmas * UNIT, options)


def _pairs(images: int, options: ClusterOptions) -> Tensor:
    """Index of the image and number of the pair, ``[pairs, 2]``."""
    rng = np.random.default_rng(options.seed)
    rounds = [rng.permutation(images) for _ in range(-(-options.pairs // images))]
    chosen = np.concatenate(rounds)[: options.pairs]
    return torch.from_numpy(np.stack([chosen, np.arange(options.pairs)], axis=1))


def _noise(seed: int, pair: int, shape: tuple[int, int, int]) -> Tensor:
    return torch.from_numpy(np.random.default_rng((seed, pair)).standard_normal(shape))


def _agreement(denoised: Tensor, y: Tensor, mean: Tensor, sigmas: Tensor, options: ClusterOptions) -> Agreement:
    """S0, S1 and, unless two thresholds make the stages, S; D is ``[pairs, levels, C, H, W]``."""
    level = sigmas[:, None, None, None]
    tolerance = options.eta * level
    low = ((denoised - y[:, None]).abs() <= tolerance).double().flatten(2).mean(2)
    high = ((denoised - mean).abs() <= tolerance).double().flatten(2).mean(2)
    if options.stages == 3:
        return Agreement(low.numpy(), high.numpy())
    eps = (y[:, None] - denoised) / level  # up to n, which the levels share
    return Agreement(low.numpy(), high.numpy(), _similarity(eps.flatten(2), options.eta))


def _similarity(eps: Tensor, eta: float) -> Floats:
    """Share of the pixels at which the noise estimates of two levels agree, for each pair and two levels."""
    rows = [((eps - eps[:, level : level + 1]).abs() <= eta).double().mean(2) for level in range(eps.shape[1])]
    return torch.stack(rows, 1).numpy()
