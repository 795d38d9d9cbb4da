"""A folder of images of many kinds, made here."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps


def picture(seed: int, size: tuple[int, int] = (96, 128)) -> Image.Image:
    """A smooth picture of a height and width, unlike that of any other seed."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize(size[::-1], Image.Resampling.BICUBIC)


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """Sixteen images of several sizes and kinds in two labelled subfolders, two of them broken."""
    root = tmp_path / "photos"
    for name in ("cat", "dog"):
        (root / name).mkdir(parents=True)
    for seed in range(4):
        picture(seed).save(root / "cat" / f"{seed}.png")
    picture(0).save(root / "cat" / "again.bmp")
    picture(1).save(root / "dog" / "compressed.jpg", quality=60)
    picture(2).resize((64, 48)).save(root / "dog" / "smaller.png")
    ImageOps.mirror(picture(3)).save(root / "dog" / "mirrored.png")
    picture(4, (80, 60)).convert("L").save(root / "dog" / "grey.png")
    picture(5, (80, 60)).convert("CMYK").save(root / "dog" / "print.jpg", quality=95)
    Image.fromarray(np.asarray(picture(6).convert("L")).astype(np.uint16) * 257).save(
        root / "dog" / "deep.png"
    )
    picture(7).quantize(16).save(root / "dog" / "palette.png")
    layered = picture(8, (70, 70))
    layered.putalpha(Image.linear_gradient("L").resize(layered.size))
    layered.save(root / "dog" / "alpha.png")
    turned = Image.Exif()
    turned[0x0112] = 6
    picture(9).save(root / "dog" / "turned.jpg", exif=turned)
    (root / "cat" / "cut.png").write_bytes((root / "cat" / "1.png").read_bytes()[:2000])
    (root / "dog" / "text.jpg").write_bytes(b"no image")
    return root
