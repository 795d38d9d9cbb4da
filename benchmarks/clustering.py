"""Time of the optimal denoiser for a pair of image and noise at a noise level.

    python benchmarks/clustering.py DATA [--pairs 128] [--levels 33] [--repeats 3]

DATA is anything that ``multistage cluster --data`` reads; the report, ``clustering.md``, is about
the 50,000 training images of CIFAR-10. Everything is timed in one run, on the GPU if there is one:
a plain evaluation (two float32 matrix products and a softmax), ours, and a large float32 matrix
product. The script prints medians as a table in Markdown.
"""

import math
from dataclasses import dataclass
from functools import partial

import torch
import tyro
from machine import DEVICE, device_name, median_seconds
from torch import Tensor

from multistage_diffusion.data import Images, load, to_unit_range
from multistage_diffusion.optimal import OptimalDenoiser, PairDenoiser
from multistage_diffusion.schedule import VP


@dataclass(frozen=True)
class Settings:
    """What is measured."""

    data: tyro.conf.Positional[str]
    pairs: int = 128
    """Pairs in one call of ours; the plain evaluation takes as many noisy images at a time."""
    levels: int = 33
    """Noise levels, uniform in t."""
    repeats: int = 3
    """Timings of which the median is taken."""


@dataclass(frozen=True)
class Pairs:
    """Pairs of image and noise, and the noise levels at which they are denoised."""

    indices: Tensor
    """Which images, int64 ``[P]``."""
    noise: Tensor
    """float64 ``[P, C, H, W]``."""
    sigmas: Tensor
    """float64 ``[L]``."""

    @staticmethod
    def draw(images: Images, settings: Settings) -> "Pairs":
        """Random pairs, and noise levels of the VP schedule in the units of the network."""
        indices = torch.randperm(len(images))[: settings.pairs]
        noise = torch.randn(settings.pairs, *images.shape, dtype=torch.float64)
        return Pairs(indices, noise, VP().levels(settings.levels) * 2)


def plain(x: Tensor, data: Tensor, squares: Tensor, sigma: float) -> Tensor:
    """The formula as two float32 products; inexact at small sigma.

    Args:
        x: noisy images ``[P, C*H*W]``.
        data: the data set ``[N, C*H*W]``.
        squares: squared norm of each of its images, ``[N]``.
        sigma: the noise level.
    """
    logits = torch.addmm(squares, x, data.T, beta=-0.5) / sigma**2
    return torch.softmax(logits, 1) @ data


def plain_seconds(images: Images, pairs: Pairs, repeats: int) -> float:
    """Median seconds of the plain evaluation for a pair at a level."""
    data = to_unit_range(images.pixels[:]).flatten(1).to(DEVICE)
    squares = data.square().sum(1)
    x = data[pairs.indices.to(DEVICE)] + pairs.noise.flatten(1).float().to(DEVICE)
    return median_seconds(lambda: plain(x, data, squares, 1.0), repeats) / len(x)


def our_seconds(denoiser: PairDenoiser, pairs: Pairs, repeats: int) -> float:
    """Median seconds of our evaluation for a pair at a level."""
    work = partial(denoiser, pairs.indices, pairs.noise, pairs.sigmas)
    return median_seconds(work, repeats) / (len(pairs.indices) * len(pairs.sigmas))


def product_rate(repeats: int) -> float:
    """Float32 multiply-accumulates a second in a product of 2048 x 3072 x 2048."""
    a = torch.randn(2048, 3072, device=DEVICE)
    b = torch.randn(3072, 2048, device=DEVICE)
    return 2048 * 3072 * 2048 / median_seconds(lambda: a @ b, repeats)


def largest_error(images: Images, pairs: Pairs, denoised: Tensor) -> float:
    """Largest difference to the float64 evaluation on the first two pairs.

    In units of the pixel range.
    """
    y = to_unit_range(images.pixels[pairs.indices[:2]], torch.float64)
    sigma = pairs.sigmas[:, None, None, None]
    x = (y[:, None] + sigma * pairs.noise[:2, None]).flatten(0, 1)
    exact = OptimalDenoiser(images.pixels)(x, pairs.sigmas.repeat(len(y)))
    difference = denoised[:2].cpu().double().flatten(0, 1) - exact
    return float(difference.abs().max()) / 2


def print_table(plain: float, ours: float, macs: int, rate: float) -> None:
    """Prints both times.

    Args:
        plain: seconds of the plain evaluation.
        ours: seconds of ours.
        macs: multiply-accumulates of the formula for a pair at a level.
        rate: multiply-accumulates a second of a large matrix product.
    """
    print("| evaluation | ms for a pair at a level | against plain | share of the product rate |")
    print("|---|---|---|---|")
    for name, seconds in (("plain, two float32 products", plain), ("ours", ours)):
        share = macs / seconds / rate
        print(f"| {name} | {seconds * 1e3:.2f} | {plain / seconds:.2f} x | {share:.0%} |")


def main(settings: Settings) -> None:
    """Measures and prints."""
    images = load(settings.data)
    pairs = Pairs.draw(images, settings)
    denoiser = PairDenoiser(images.pixels, device=DEVICE)
    error = largest_error(images, pairs, denoiser(pairs.indices, pairs.noise, pairs.sigmas))
    plain = plain_seconds(images, pairs, settings.repeats)
    ours = our_seconds(denoiser, pairs, settings.repeats)
    rate = product_rate(settings.repeats)
    print(f"{device_name()}, torch {torch.__version__}; {len(images)} images of {images.shape}")
    print(f"float32 matrix product: {rate / 1e9:.0f} GMAC/s")
    print(f"largest error of ours: {error:.1e} of the pixel range\n")
    print_table(plain, ours, 2 * len(images) * math.prod(images.shape), rate)


if __name__ == "__main__":
    main(tyro.cli(Settings))
