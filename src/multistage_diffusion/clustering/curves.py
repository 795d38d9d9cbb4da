"""Timestep clustering: where the stages of a data set begin and end (paper, algorithm 1).

Towards small noise the optimal denoiser returns the clean image, towards large noise the mean
image. Its agreement with either limit, as a function of the noise level, says how far a stage of
nearly constant behaviour reaches. For a pair of an image y and a noise n, with pixel values in [0,
1], ``x = y + sigma n`` and ``D = D*(x; sigma)``:

    S0(sigma) = share of pixels with |y - D| <= eta sigma       (agreement with the clean image),
    S1(sigma) = share of pixels with |ybar - D| <= eta sigma    (agreement with the mean image).

With means taken over pairs and over quantiles u of the schedule, the stages are cut at

    u1 = the largest u with mean of S0 over [0, u] >= alpha,
    u2 = the smallest u with mean of S1 over [u, 1] >= alpha.

For another number of stages, levels are compared with each other: ``S(a, b)`` is the share of
pixels at which the estimates ``eps* = (x - D*) / sigma`` of the noise at levels a and b, from the
same y and n, differ by at most eta. The stages are the partition that makes a level most similar to
the others of its stage.

Both denoisers of S1 are evaluated at the same x. That is what the authors' code does and what gives
the published values; the paper's formula, which compares two different noisy images, does not.
Latents have no natural range: sigma and eta refer to them as they are.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from multistage_diffusion import distributed
from multistage_diffusion.clustering.options import ClusterOptions
from multistage_diffusion.data.images import Images
from multistage_diffusion.optimal import PairDenoiser

__all__ = ["Agreement", "agreement", "pairs"]

Floats = NDArray[np.float64]
CHUNK_BYTES, CHUNK_PAIRS = 256 << 20, 128
GPU_FACTOR = 8  # a GPU needs larger products to be busy, and has memory of its own


@dataclass(frozen=True)
class Agreement:
    """Agreement with both limits at each level.

    Of each pair, ``[pairs, ...]``, or averaged over pairs.
    """

    low: Floats
    """S0, ``[..., levels]``."""
    high: Floats
    """S1, ``[..., levels]``."""
    similarity: Floats | None = None
    """S, ``[..., levels, levels]``, where more or fewer than three stages are asked for."""


def agreement(
    images: Images, sigmas: Tensor, options: ClusterOptions, start: int = 0, stop: int | None = None
) -> Iterator[Agreement]:
    """S0 and S1 of pairs at the levels ``sigmas`` (for pixels in [0, 1]), some pairs at a time.

    Args:
        images: the data set.
        sigmas: increasing noise levels, ``[L]``.
        options: settings; the pairs are a function of its seed.
        start, stop: which pairs; to the end of ``options.pairs`` if not given.
    """
    stop = options.pairs if stop is None else stop
    unit = images.space.unit
    denoiser = PairDenoiser(images.pixels, device=distributed.float64_device())
    mean = images.mean.float().to(denoiser.device)
    chunk = _chunk(images, len(sigmas)) * (GPU_FACTOR if denoiser.device.type == "cuda" else 1)
    for first in range(start, stop, chunk):
        numbers = range(first, min(stop, first + chunk))
        chosen, noise = pairs(images, options.seed, numbers)
        clean = images.space.encode(images.pixels[chosen]).to(denoiser.device)
        denoised = denoiser.by_level(chosen, noise, sigmas * unit)
        yield _agreement(denoised, clean, mean, (sigmas * unit).tolist(), options)


def _chunk(images: Images, levels: int) -> int:
    """Pairs at a time, by the memory of their sums at each level and of the similarities."""
    size = images.pixels.shape[1:].numel()
    return min(CHUNK_PAIRS, max(1, CHUNK_BYTES // (levels * (10 * size + 8 * levels))))


def pairs(images: Images, seed: int, numbers: range) -> tuple[Tensor, Tensor]:
    """The pairs with these numbers.

    Returns indices of images, ``[P]``, and noise, float64 ``[P, C, H, W]``.

    An image is used twice only if there are fewer images than pairs. Each noise is a function of
    seed and number.
    """
    rounds = range(numbers[0] // len(images), numbers[-1] // len(images) + 1)
    order = {
        turn: np.random.default_rng((seed, turn, 1)).permutation(len(images)) for turn in rounds
    }
    chosen = [int(order[pair // len(images)][pair % len(images)]) for pair in numbers]
    noise = [np.random.default_rng((seed, pair)).standard_normal(images.shape) for pair in numbers]
    return torch.tensor(chosen), torch.from_numpy(np.stack(noise))


def _agreement(
    denoised: Iterable[Tensor],
    y: Tensor,
    mean: Tensor,
    sigmas: Sequence[float],
    options: ClusterOptions,
) -> Agreement:
    """S0, S1 and, unless two thresholds make the stages, S.

    D comes one level after another, ``[pairs, C, H, W]``.
    """
    low, high, eps = [], [], []
    for sigma, d in zip(sigmas, denoised, strict=True):
        low.append(_share((d - y).abs_() <= options.eta * sigma))
        high.append(_share((d - mean).abs_() <= options.eta * sigma))
        if options.stages != 3:
            eps.append((y - d).div_(sigma))  # up to n, which the levels share
    similar = [np.stack([_share((a - b).abs_() <= options.eta) for b in eps], 1) for a in eps]
    return Agreement(np.stack(low, 1), np.stack(high, 1), np.stack(similar, 1) if similar else None)


def _share(agrees: Tensor) -> Floats:
    """The share of true pixels of each pair: ``[pairs]`` of bool ``[pairs, C, H, W]``."""
    flat = agrees.flatten(1)
    shares: Floats = flat.sum(1).cpu().double().div_(flat.shape[1]).numpy()
    return shares
