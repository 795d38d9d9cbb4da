"""The published boundaries, on real data: CIFAR-10 as a parquet file of Hugging Face images.

The folder is named by the environment variable CIFAR10_DIR; without it,
``../shared/data/cifar10-jpeg`` beside the checkout.
"""

import os
from pathlib import Path

import pytest
import torch

from multistage_diffusion.clustering import ClusterOptions, cluster
from multistage_diffusion.data import Images, load, to_unit_range
from multistage_diffusion.optimal import OptimalDenoiser, PairDenoiser
from multistage_diffusion.schedule import VP

BESIDE = Path(__file__).parents[2].parent / "shared" / "data" / "cifar10-jpeg"
TRAIN = Path(os.environ.get("CIFAR10_DIR", BESIDE)) / "train.parquet"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not TRAIN.exists(), reason=f"{TRAIN} is not there; set CIFAR10_DIR"),
]


@pytest.fixture(scope="module")
def cifar10() -> Images:
    return load(TRAIN)


def test_the_published_boundaries_are_found(cifar10: Images) -> None:
    """(0.442, 0.631) of the paper's section 5, within 0.012 each."""
    found = cluster(cifar10, VP(), ClusterOptions(pairs=2048))
    times = [float(VP().to_clock(boundary)) for boundary in found.stages.boundaries]
    assert times == pytest.approx([0.442, 0.631], abs=0.012)
    assert found.ci_width < 0.008


def test_the_fast_denoiser_is_exact_on_fifty_thousand_images(cifar10: Images) -> None:
    """To 1e-5 of the range of the pixels, which is 2, from sigma 0.002 to 200."""
    sigmas = torch.logspace(-2.69897, 2.30103, 26, dtype=torch.float64)
    indices, noise = torch.tensor([7, 49_999]), torch.randn(2, 3, 32, 32, dtype=torch.float64)
    found = PairDenoiser(cifar10.pixels)(indices, noise, sigmas)
    clean = to_unit_range(cifar10.pixels[indices], torch.float64)
    exact = OptimalDenoiser(cifar10.pixels)
    for level, sigma in enumerate(sigmas.tolist()):
        expected = exact(clean + sigma * noise, sigma)
        torch.testing.assert_close(found[:, level].double(), expected, rtol=0, atol=2e-5)
