from dataclasses import replace

import numpy as np
import pytest

from multistage_diffusion.data import Images
from multistage_diffusion.inspection import duplicates
from multistage_diffusion.inspection.duplicates import (
    BITS,
    GREY_LEVELS,
    OF_CONTRAST,
    Pair,
    near_duplicates,
    thumbnail,
)

Bytes = np.typing.NDArray[np.uint8]


def by_comparing_all(thumbnails: Bytes) -> set[Pair]:
    """Every pair that meets both conditions, one after the other."""
    found = set()
    values = thumbnails.astype(float)
    for a in range(len(values)):
        for b in range(a + 1, len(values)):
            for mirrored, other in ((False, values[b]), (True, values[b][:, ::-1])):
                bits = (
                    (values[a][:, 1:] > values[a][:, :-1]) != (other[:, 1:] > other[:, :-1])
                ).sum()
                distance = np.sqrt(np.square(values[a] - other).mean())
                contrasts = values[a].std(), values[b].std()
                if bits <= BITS and distance <= min(GREY_LEVELS, OF_CONTRAST * max(contrasts)):
                    found.add(Pair(a, b, mirrored))
    return found


def variants(rng: np.random.Generator, count: int) -> Bytes:
    """Thumbnails, each with a noisy or mirrored variant."""
    first = rng.integers(0, 256, (count, 8, 9))
    noise = rng.integers(-6, 7, first.shape)
    second = np.where(rng.random((count, 1, 1)) < 0.5, first, first[:, :, ::-1]) + noise
    return np.concatenate([first, second]).clip(0, 255).astype(np.uint8)[rng.permutation(2 * count)]


@pytest.mark.parametrize("rows", [3, 512])
def test_all_pairs_are_found_without_comparing_all(
    monkeypatch: pytest.MonkeyPatch, rows: int
) -> None:
    monkeypatch.setattr(duplicates, "ROWS", rows)
    thumbnails = variants(np.random.default_rng(0), 40)
    every = by_comparing_all(thumbnails)
    assert {pair.mirrored for pair in every} == {False, True}
    assert set(near_duplicates(thumbnails)) == every


def test_each_image_repeats_only_one_other() -> None:
    same = np.repeat(
        np.random.default_rng(1).integers(0, 256, (1, 8, 9), dtype=np.uint8), 2000, axis=0
    )
    assert len(near_duplicates(same)) == 1999


def test_images_without_contrast_are_near_only_if_equal() -> None:
    flat = np.repeat(np.array([10, 10, 11], np.uint8), 72).reshape(3, 8, 9)
    assert near_duplicates(flat) == [Pair(0, 1)]


def test_handwritten_digits_are_all_different(digits: Images) -> None:
    pixels = digits.pixels[:].permute(0, 2, 3, 1).numpy()
    assert near_duplicates(np.stack([thumbnail(image) for image in pixels])) == []


def test_thumbnails_take_any_number_of_channels() -> None:
    grey = np.random.default_rng(2).integers(0, 256, (20, 30, 1), dtype=np.uint8)
    for channels in (2, 3, 4):
        np.testing.assert_allclose(
            thumbnail(np.repeat(grey, channels, 2)).astype(int), thumbnail(grey).astype(int), atol=1
        )


def test_mirrored_says_which_way_round() -> None:
    one = np.random.default_rng(3).integers(0, 256, (8, 9), dtype=np.uint8)
    assert near_duplicates(np.stack([one, one[:, ::-1]])) == [replace(Pair(0, 1), mirrored=True)]
