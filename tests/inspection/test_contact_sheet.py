import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from multistage_diffusion.data import Images, ReadOptions, load
from multistage_diffusion.data.examine import ExaminedImage
from multistage_diffusion.data.fitting import fitted, kept
from multistage_diffusion.data.options import Fit
from multistage_diffusion.inspection import preview
from multistage_diffusion.inspection.contact_sheet import CELL, contact_sheet, sheet_image
from multistage_diffusion.inspection.selection import is_selected
from tests.inspection.conftest import picture

FITS: tuple[Fit, ...] = ("center-crop", "resize", "pad")


def look(pixels: np.typing.NDArray[np.uint8]) -> ExaminedImage:
    return ExaminedImage("a.png", "a.png", None, pixels)


@pytest.mark.parametrize("shape", [(96, 128), (128, 96), (50, 200), (64, 64)])
@pytest.mark.parametrize("size", [(32, 32), (24, 48)])
def test_the_frame_is_what_center_crop_keeps(shape: tuple[int, int], size: tuple[int, int]) -> None:
    """Where the frame is cut out and stretched to the size, it is the image that was cropped."""
    image = picture(1, shape)
    left, top, right, bottom = kept(shape, size, "center-crop")
    assert (right - left) / (bottom - top) == pytest.approx(size[1] / size[0])
    cut = image.resize(size[::-1], Image.Resampling.LANCZOS, box=(left, top, right, bottom))
    cropped = fitted(np.asarray(image), size, "center-crop").astype(int)
    assert np.abs(np.asarray(cut).astype(int) - cropped).mean() < 4


@pytest.mark.parametrize("fit", ["resize", "pad"])
def test_others_keep_everything(fit: Fit) -> None:
    assert kept((30, 50), (8, 8), fit) == (0, 0, 50, 30)


def test_a_network_s_image_is_shown_pixel_by_pixel() -> None:
    pixels = np.asarray(picture(2, (90, 60)))
    shown = sheet_image(look(pixels), (32, 32), FITS)
    for fit in FITS:
        assert shown.fits[fit].size == (CELL, CELL)
        np.testing.assert_array_equal(
            np.asarray(shown.fits[fit])[::4, ::4], fitted(pixels, (32, 32), fit)
        )


def test_pictures_have_a_sane_size_and_show_what_they_are_given() -> None:
    red = np.full((40, 3000, 3), (255, 0, 0), np.uint8)
    for size, fits in (((64, 64), FITS), ((64, 64), FITS[:1]), (None, ())):
        sheet = contact_sheet([sheet_image(look(red), size, fits)] * 200, "a title")
        assert 300 < sheet.width < 1400
        assert 100 < sheet.height < 1700
        assert (np.asarray(sheet) == (255, 0, 0)).all(2).sum() > 1000


def test_names_of_any_length_fit() -> None:
    long = ExaminedImage("x" * 400 + ".png", "", "label", np.zeros((8, 8, 1), np.uint8))
    assert contact_sheet([sheet_image(long, None, ())], "t").width < 300


@pytest.mark.parametrize("count", [1, 5, 63, 64, 65, 1000])
def test_some_are_spread_evenly(count: int) -> None:
    chosen = [number for number in range(count) if is_selected(number, count, 64)]
    assert len(chosen) == min(64, count)
    assert max(np.diff(chosen), default=0) <= count // 64 + 1


def test_a_preview_shows_pairs_only_where_images_were_changed(mixed: Path, digits: Images) -> None:
    options = ReadOptions(size=(32,), skip_broken=True)
    images = load(mixed, options)
    pairs = preview(images, str(mixed), options)
    colours = {colour for _, colour in pairs.getcolors(1 << 24) or ()}
    assert (232, 89, 12) in colours  # the frame
    same = preview(digits, "digits", ReadOptions(size=(8,)))
    assert same.tobytes() == preview(digits, "digits", ReadOptions()).tobytes()


def test_a_preview_reads_any_source_again(mixed: Path, tmp_path: Path) -> None:
    options = ReadOptions(size=(32,), skip_broken=True)
    archive = shutil.make_archive(str(tmp_path / "photos"), "zip", mixed)
    assert (
        preview(load(archive, options), archive, options).size
        == preview(load(mixed, options), str(mixed), options).size
    )
    rows = np.random.default_rng(0).integers(0, 256, (5, 10, 20, 3), dtype=np.uint8)
    np.savez(tmp_path / "some.npz", images=rows)
    options = ReadOptions(size=(16,))
    assert (
        preview(load(tmp_path / "some.npz", options), str(tmp_path / "some.npz"), options).width
        > 300
    )
