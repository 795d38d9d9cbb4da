import io
import struct
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import IO

import numpy as np
import pytest
from PIL import Image

from multistage_diffusion.data import ReadOptions, load
from multistage_diffusion.data.decoding import Undecodable, decode, load_image
from multistage_diffusion.errors import BadInput

COLOURS = np.random.default_rng(0).integers(0, 256, (4, 6, 3), dtype=np.uint8)


def stored(image: Image.Image, kind: str = "PNG", **settings: object) -> io.BytesIO:
    stream = io.BytesIO()
    image.save(stream, kind, **settings)
    return stream


def read(opened: Callable[[], IO[bytes]]) -> tuple[np.ndarray, str]:
    """Pixels, and what was done."""
    decoded = decode(opened)
    return decoded.pixels, decoded.done


def test_sixteen_bit_grey_is_rounded_to_eight(tmp_path: Path) -> None:
    values = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    Image.fromarray(values).save(tmp_path / "a.png")
    np.testing.assert_array_equal(load_image(tmp_path / "a.png")[0], np.round(values / 257))
    images = load(tmp_path)
    np.testing.assert_array_equal(images.pixels[:][0, 0], np.round(values / 257))
    assert "16 bits" in images.notes[0]


def test_alpha_is_laid_on_white() -> None:
    alpha = np.random.default_rng(1).integers(0, 256, (4, 6, 1), dtype=np.uint8)
    pixels, done = read(lambda: stored(Image.fromarray(np.concatenate([COLOURS, alpha], 2))))
    share = alpha / 255
    np.testing.assert_allclose(pixels, COLOURS * share + 255 * (1 - share), atol=1)
    assert "laid on white" in done
    grey, _ = read(
        lambda: stored(Image.fromarray(np.concatenate([COLOURS[..., :1], alpha], 2), "LA"))
    )
    np.testing.assert_allclose(grey, COLOURS[..., :1] * share + 255 * (1 - share), atol=1)


def test_an_opaque_alpha_changes_nothing() -> None:
    opaque = np.full((4, 6, 1), 255, np.uint8)
    for array in (COLOURS, COLOURS[..., :1]):
        pixels, done = read(partial(stored, Image.fromarray(np.concatenate([array, opaque], 2))))
        np.testing.assert_array_equal(pixels, array)
        assert done == ""


def test_a_palette_with_a_transparent_colour_is_laid_on_white() -> None:
    palette = Image.fromarray(np.array([[0, 1, 2]], dtype=np.uint8), "P")
    palette.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    assert read(lambda: stored(palette))[0].tolist() == [[[10, 20, 30], [40, 50, 60], [70, 80, 90]]]
    assert read(lambda: stored(palette, transparency=1))[0].tolist() == [
        [[10, 20, 30], [255] * 3, [70, 80, 90]]
    ]


def test_cmyk_becomes_rgb() -> None:
    flat = Image.new("RGB", (8, 8), (200, 100, 50))
    pixels, done = read(lambda: stored(flat.convert("CMYK"), "JPEG", quality=100))
    np.testing.assert_allclose(pixels, np.broadcast_to([200, 100, 50], (8, 8, 3)), atol=3)
    assert "CMYK" in done


@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_are_upright(orientation: int) -> None:
    """Orientations as the EXIF standard describes them: what the rows and columns that are stored
    stand for."""
    turned = {
        1: COLOURS,
        2: COLOURS[:, ::-1],
        3: COLOURS[::-1, ::-1],
        4: COLOURS[::-1],
        5: COLOURS.transpose(1, 0, 2),
        6: COLOURS.transpose(1, 0, 2)[:, ::-1],
        7: COLOURS.transpose(1, 0, 2)[::-1, ::-1],
        8: COLOURS.transpose(1, 0, 2)[::-1],
    }
    exif = Image.Exif()
    exif[0x0112] = orientation
    np.testing.assert_array_equal(
        read(lambda: stored(Image.fromarray(COLOURS), exif=exif))[0], turned[orientation]
    )


def test_other_modes_are_refused(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((2, 2), np.float32)).save(tmp_path / "float.tif")
    with pytest.raises(Undecodable, match="its colour mode F"):
        decode(lambda: (tmp_path / "float.tif").open("rb"))
    with pytest.raises(BadInput, match=r"Cannot decode the image .*float\.tif: its colour mode F"):
        load_image(tmp_path / "float.tif")


def test_conversions_are_reported_and_counted(tmp_path: Path) -> None:
    for index in range(3):
        Image.fromarray(np.full((2, 2), 257 * index, np.uint16)).save(tmp_path / f"{index}.png")
    Image.fromarray(np.zeros((2, 2, 4), np.uint8)).save(tmp_path / "clear.png")
    images = load(tmp_path, ReadOptions(max_value=65535))
    assert images.pixels[:][:, :, 0, 0].tolist() == [[0] * 3, [1] * 3, [2] * 3, [255] * 3]
    said = " ".join(images.notes)
    for text in (
        "3 of 4 images had 16 bits",
        "1 of 4 images had transparent parts",
        "3 of 4 images were grey and became RGB",
    ):
        assert text in said


def test_broken_files_are_an_error_or_left_out(folder: Path) -> None:
    whole = load(folder)
    (folder / "cat" / "10.png").write_bytes(b"broken")
    (folder / "cat" / "zz.png").write_bytes((folder / "cat" / "1.png").read_bytes()[:60])
    Image.fromarray(np.zeros((8, 8), np.float32)).save(folder / "dog" / "float.tif")
    with pytest.raises(
        BadInput,
        match=r"Cannot decode the image .*cat/10\.png.* the first of 3 that are broken, of 15; "
        r".*--skip-broken",
    ):
        load(folder)
    left = load(folder, ReadOptions(skip_broken=True))
    assert left.fingerprint == whole.fingerprint
    assert [line.split(":")[0].rsplit("/", 1)[1] for line in left.skipped] == [
        "10.png",
        "zz.png",
        "float.tif",
    ]


def test_a_set_of_nothing_but_broken_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"broken")
    with pytest.raises(BadInput, match=r"All 1 images of .* are broken; the first is .*a\.png"):
        load(tmp_path, ReadOptions(skip_broken=True))


def test_black_and_white_and_palette_images_are_converted(tmp_path: Path) -> None:
    Image.fromarray(np.eye(4, dtype=bool)).save(tmp_path / "bw.png")
    assert load_image(tmp_path / "bw.png").tolist() == (255 * np.eye(4, dtype=int)[None]).tolist()
    colour = np.array([[[255, 0, 0], [0, 0, 255]]], dtype=np.uint8)
    palette = Image.fromarray(colour).convert("P", palette=Image.Palette.ADAPTIVE)
    palette.save(tmp_path / "palette.png")
    assert load_image(tmp_path / "palette.png").permute(1, 2, 0).tolist() == colour.tolist()


def test_the_size_of_an_image_does_not_make_it_one_of_16_bits() -> None:
    five_wide = np.zeros((4, 5, 3), np.uint8)  # rows of 16 bytes in a BMP file
    decoded = decode(partial(stored, Image.fromarray(five_wide), "BMP"))
    assert (decoded.mode, decoded.done) == ("RGB", "")


def deep_png(values: np.ndarray, kind: int) -> io.BytesIO:
    """A PNG file of 16 bits, of values ``[H, W, C]``; ``kind`` is its type of colour."""
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], 16, kind, 0, 0, 0)
    chunks = {b"IHDR": header, b"IDAT": zlib.compress(rows), b"IEND": b""}
    content = b"\x89PNG\r\n\x1a\n"
    for name, data in chunks.items():
        content += struct.pack(">I", len(data)) + name + data
        content += struct.pack(">I", zlib.crc32(name + data))
    return io.BytesIO(content)


def test_grey_of_16_bits_with_an_opaque_alpha_keeps_all_of_them() -> None:
    grey = np.arange(24).reshape(4, 6, 1) * 170
    opaque = np.full_like(grey, 65535)
    pixels, done = read(lambda: deep_png(np.dstack([grey, opaque]), 4))
    np.testing.assert_array_equal(pixels, grey)
    assert done == ""
    pixels, done = read(lambda: deep_png(np.dstack([grey, opaque // 2]), 4))
    assert pixels.dtype == np.uint8
    assert "cut to their upper 8 bits" in done
