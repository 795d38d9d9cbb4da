import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from multistage_diffusion.data import Images, to_unit_range
from multistage_diffusion.errors import BadInput
from multistage_diffusion.optimal import OptimalDenoiser, PairDenoiser

LEVELS = (0.002, 0.01, 0.1, 0.5, 2.0, 10.0, 80.0, 1000.0)


def naive(x: Tensor, images: Tensor, sigma: Tensor) -> Tensor:
    """The formula as it stands, by differences instead of products."""
    squares = ((x[:, None] - images[None]) ** 2).flatten(2).sum(2)
    weights = torch.softmax(-squares / (2 * sigma[:, None] ** 2), dim=1)
    return torch.einsum("bn,nchw->bchw", weights, images)


def noisy(images: Tensor, sigma: float, count: int = 6) -> Tensor:
    return images[:count] + sigma * torch.randn_like(images[:count])


@pytest.fixture
def images() -> Tensor:
    return torch.rand(200, 3, 8, 8, dtype=torch.float64) * 2 - 1


@pytest.mark.parametrize("sigma", LEVELS)
def test_equals_the_direct_evaluation(images: Tensor, sigma: float) -> None:
    x = noisy(images, sigma)
    expected = naive(x, images, torch.full((6,), sigma, dtype=torch.float64))
    torch.testing.assert_close(OptimalDenoiser(images)(x, sigma), expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("sigma", LEVELS)
def test_equals_the_direct_evaluation_on_nearly_equal_images(sigma: float) -> None:
    """Images one grey value apart: at small sigma everything hangs on the last digits of the
    distances."""
    pixels = torch.randint(100, 102, (50, 1, 16, 16), dtype=torch.uint8)
    images = to_unit_range(pixels, torch.float64)
    x = noisy(images, sigma)
    expected = naive(x, images, torch.full((6,), sigma, dtype=torch.float64))
    torch.testing.assert_close(OptimalDenoiser(pixels)(x, sigma), expected, rtol=0, atol=1e-7)


@pytest.mark.parametrize("sigma", LEVELS)
def test_one_image_is_always_returned(images: Tensor, sigma: float) -> None:
    x = noisy(images, sigma)
    torch.testing.assert_close(OptimalDenoiser(images[:1])(x, sigma), images[:1].expand_as(x))


def test_much_noise_gives_the_mean(images: Tensor) -> None:
    x = noisy(images, 1e4)
    torch.testing.assert_close(
        OptimalDenoiser(images)(x, 1e4), images.mean(0).expand_as(x), rtol=0, atol=1e-2
    )


def test_little_noise_gives_the_nearest_image(images: Tensor) -> None:
    x = noisy(images, 0.3)
    nearest = images[torch.cdist(x.flatten(1), images.flatten(1)).argmin(1)]
    torch.testing.assert_close(OptimalDenoiser(images)(x, 1e-3), nearest)


@pytest.mark.parametrize("sigma", [0.5, 2.0])
def test_is_tweedies_formula_with_the_score_of_the_mixture(images: Tensor, sigma: float) -> None:
    x = noisy(images, sigma).requires_grad_()
    squares = ((x[:, None] - images[None]) ** 2).flatten(2).sum(2)
    (score,) = torch.autograd.grad(torch.logsumexp(-squares / (2 * sigma**2), 1).sum(), x)
    torch.testing.assert_close(
        OptimalDenoiser(images)(x.detach(), sigma), x.detach() + sigma**2 * score
    )


def test_blocks_do_not_matter(images: Tensor) -> None:
    x = torch.cat([noisy(images, sigma) for sigma in LEVELS])
    sigma = torch.tensor(LEVELS).repeat_interleave(6)
    whole = OptimalDenoiser(images)(x, sigma)
    for block_bytes in (1, 100_000):
        torch.testing.assert_close(
            OptimalDenoiser(images, block_bytes)(x, sigma), whole, rtol=0, atol=1e-12
        )


def test_levels_may_differ_within_a_batch(images: Tensor) -> None:
    sigma = torch.tensor(LEVELS[:6])
    x = images[:6] + sigma[:, None, None, None] * torch.randn_like(images[:6])
    rows = [
        OptimalDenoiser(images)(x[k : k + 1], float(level)) for k, level in enumerate(LEVELS[:6])
    ]
    torch.testing.assert_close(
        OptimalDenoiser(images)(x, torch.tensor(LEVELS[:6], dtype=torch.float64)), torch.cat(rows)
    )


def test_bytes_are_read_as_minus_one_to_one(digits: Images) -> None:
    x = torch.randn(4, 1, 8, 8)
    pixels = digits.pixels[:50]
    torch.testing.assert_close(
        OptimalDenoiser(pixels)(x, 0.7), OptimalDenoiser(to_unit_range(pixels))(x, 0.7)
    )
    assert OptimalDenoiser(pixels)(x, 0.7).dtype == torch.float32


@pytest.mark.parametrize("sigma", [1e-3, 1e3])
def test_is_finite_far_from_the_data(images: Tensor, sigma: float) -> None:
    x = 100 * torch.randn(4, 3, 8, 8, dtype=torch.float64)
    assert OptimalDenoiser(images)(x, sigma).isfinite().all()


def test_no_images_are_refused() -> None:
    with pytest.raises(BadInput, match="at least one image"):
        OptimalDenoiser(torch.empty(0, 1, 8, 8))


@pytest.mark.parametrize("margin", [32.0, 1e9])
def test_pairs_equal_the_direct_evaluation_at_every_level(
    images: Tensor, margin: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PairDenoiser, "MARGIN", margin)
    indices, noise = torch.tensor([3, 77, 199]), torch.randn(3, 3, 8, 8, dtype=torch.float64)
    sigmas = torch.logspace(-2.7, 2.3, 25, dtype=torch.float64)
    for denoiser in (PairDenoiser(images), PairDenoiser(images, block_rows=7)):
        found = denoiser(indices, noise, sigmas)
        for level, sigma in enumerate(sigmas.tolist()):
            x = images[indices] + sigma * noise
            expected = naive(x, images, torch.full((3,), sigma, dtype=torch.float64))
            torch.testing.assert_close(found[:, level].double(), expected, rtol=0, atol=2e-6)


def test_pairs_equal_the_direct_evaluation_on_nearly_equal_images() -> None:
    pixels = torch.randint(100, 102, (60, 1, 16, 16), dtype=torch.uint8)
    pixels[30:] = pixels[:30]  # every image twice
    images = to_unit_range(pixels, torch.float64)
    noise = torch.randn(4, 1, 16, 16, dtype=torch.float64)
    for sigma in LEVELS:
        found = PairDenoiser(pixels)(
            torch.arange(4), noise, torch.tensor([sigma], dtype=torch.float64)
        )
        expected = naive(
            images[:4] + sigma * noise, images, torch.full((4,), sigma, dtype=torch.float64)
        )
        torch.testing.assert_close(found[:, 0].double(), expected, rtol=0, atol=2e-6)


def test_pairs_do_not_depend_on_blocks_or_threads(digits: Images) -> None:
    """To 1e-6 of the range of the data, which is 2."""
    indices, noise = torch.arange(0, 90, 10), torch.randn(9, 1, 8, 8, dtype=torch.float64)
    sigmas = torch.logspace(-2.7, 2.3, 25, dtype=torch.float64)
    whole = PairDenoiser(digits.pixels)(indices, noise, sigmas)
    for block_rows in (1, 100, 1797):
        found = PairDenoiser(digits.pixels, block_rows)(indices, noise, sigmas)
        torch.testing.assert_close(found, whole, rtol=0, atol=2e-6)
    torch.set_num_threads(1)
    torch.testing.assert_close(
        PairDenoiser(digits.pixels)(indices, noise, sigmas), whole, rtol=0, atol=2e-6
    )


LIMITED = """
import resource, sys
import torch
from multistage_diffusion.data import load
from multistage_diffusion.optimal import PairDenoiser

images = load(sys.argv[1])
denoiser, sigmas = PairDenoiser(images.pixels), torch.tensor([0.1], dtype=torch.float64)
noise = torch.randn(2, *images.shape, dtype=torch.float64)
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (1 << 30), resource.RLIM_INFINITY))
try:
    bytearray(len(images) * images.pixels.shape[1:].numel())
except MemoryError:
    print(float(denoiser(torch.tensor([5, len(images) - 1]), noise, sigmas)[0, 0].mean()))
"""


@pytest.mark.slow
@pytest.mark.skipif(
    not Path("/proc/self/statm").exists(), reason="needs Linux's account of address space"
)
def test_a_data_set_larger_than_the_address_space_is_streamed(tmp_path: Path) -> None:
    """1.3 GB of images, black but for one, in a process that may not map as much as that."""
    path = tmp_path / "images.npy"
    array = np.lib.format.open_memmap(
        path, "w+", np.uint8, (1600, 512, 512, 3)
    )  # a file with holes: little is written
    array[5] = 200
    del array
    found = subprocess.run(
        [sys.executable, "-c", LIMITED, str(path)], capture_output=True, text=True, check=True
    )
    assert float(found.stdout) == pytest.approx(200 / 127.5 - 1, abs=1e-6)


def test_without_noise_it_is_the_nearest_image(images: Tensor) -> None:
    x = images[:6] + 1e-3 * torch.randn(6, 3, 8, 8, dtype=torch.float64)
    assert torch.equal(OptimalDenoiser(images)(x, 0.0), images[:6])
    mixed = torch.tensor([0.0, 1e4, 0.0, 0.0, 0.0, 0.0])
    found = OptimalDenoiser(images, block_bytes=1)(x, mixed)
    assert torch.equal(found[2:], images[2:6])
    torch.testing.assert_close(found[1], images.mean(0), rtol=0, atol=1e-2)
    noise = torch.randn(6, 3, 8, 8, dtype=torch.float64)
    pairs = PairDenoiser(images)(torch.arange(6), noise, torch.tensor([0.0]))
    torch.testing.assert_close(pairs[:, 0], images[:6].float())


def test_no_samples_give_no_images(images: Tensor) -> None:
    assert OptimalDenoiser(images)(images[:0], 1.0).shape == (0, 3, 8, 8)
