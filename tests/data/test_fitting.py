from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from multistage_diffusion.data import ReadOptions, load
from multistage_diffusion.data.fitting import fitted
from multistage_diffusion.data.options import Fit
from multistage_diffusion.errors import BadInput

RAMP = np.broadcast_to(np.arange(40, dtype=np.uint8)[None, :, None], (20, 40, 3)).copy()


def test_a_crop_at_the_same_scale_is_the_middle_unchanged() -> None:
    upright = RAMP.transpose(1, 0, 2)
    np.testing.assert_array_equal(fitted(RAMP, (20, 20), "center-crop"), RAMP[:, 10:30])
    np.testing.assert_array_equal(fitted(upright, (20, 20), "center-crop"), upright[10:30])
    np.testing.assert_array_equal(fitted(RAMP, (20, 39), "center-crop"), RAMP[:, :39])


@pytest.mark.parametrize("shape", [(60, 100), (101, 61), (33, 32)])
def test_a_crop_is_centred(shape: tuple[int, int]) -> None:
    """A pattern that is its own mirror image stays so."""
    rows = np.abs(np.arange(shape[0]) - (shape[0] - 1) / 2)
    columns = np.abs(np.arange(shape[1]) - (shape[1] - 1) / 2)
    pattern = np.clip(4 * (rows[:, None] + columns), 0, 255).astype(np.uint8)[..., None]
    small = fitted(pattern, (16, 16), "center-crop")[..., 0].astype(int)
    np.testing.assert_allclose(small, small[::-1], atol=1)
    np.testing.assert_allclose(small, small[:, ::-1], atol=1)


def test_shrinking_averages_fine_detail() -> None:
    """Stripes finer than the new pixels become their mean, without aliasing."""
    stripes = np.zeros((64, 64, 1), np.uint8)
    stripes[:, ::2] = 200
    for fit in ("center-crop", "resize", "pad"):
        assert np.abs(fitted(stripes, (8, 8), fit).astype(int) - 100).max() <= 2


def test_padding_continues_by_reflection() -> None:
    image = np.arange(12, dtype=np.uint8).reshape(3, 4, 1)
    reflected = np.pad(image, ((2, 2), (0, 0), (0, 0)), mode="reflect")
    np.testing.assert_array_equal(fitted(image, (7, 4), "pad"), reflected)
    wide = fitted(image, (4, 9), "pad")
    assert wide.shape == (4, 9, 1)
    thin = np.full((1, 30, 1), 7, np.uint8)
    assert (fitted(thin, (16, 16), "pad") == 7).all()


def test_a_stretched_ramp_stays_a_ramp() -> None:
    stretched = fitted(RAMP, (10, 20), "resize").astype(float)
    ramp = np.broadcast_to(2 * np.arange(20) + 0.5, (10, 20))
    np.testing.assert_allclose(stretched[:, 2:-2, 0], ramp[:, 2:-2], atol=1)


@pytest.mark.parametrize("fit", ["center-crop", "resize", "pad"])
@pytest.mark.parametrize("size", [(1, 1), (5, 12), (16, 8), (50, 70)])
def test_every_fit_gives_the_size_and_returns_images_of_that_size(
    fit: Fit, size: tuple[int, int]
) -> None:
    for shape in ((1, 1, 1), (7, 19, 3), (64, 3, 5), (*size, 3)):
        image = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
        result = fitted(image, size, fit)
        assert result.shape == (*size, shape[2])
        assert shape[:2] != size or result is image


def test_mixed_sizes_need_a_size(tmp_path: Path) -> None:
    for index, (height, width) in enumerate([(8, 8), (8, 12), (30, 20)]):
        pixels = np.full((height, width), 50 * index, np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{index}.png")
    message = r"1\.png is 8x12 .*0\.png is 8x8: give --size H W .* --fit center-crop, resize or pad"
    with pytest.raises(BadInput, match=message) as caught:
        load(tmp_path)
    assert "\n" not in str(caught.value)
    assert load(tmp_path, ReadOptions(size=(6,))).shape == (1, 6, 6)
    images = load(tmp_path, ReadOptions(size=(4, 10), fit="pad"))
    assert images.shape == (1, 4, 10)
    assert images.pixels[:].amax((1, 2, 3)).tolist() == [0, 50, 100]
