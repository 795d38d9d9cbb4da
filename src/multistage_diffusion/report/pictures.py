"""Images inside the page: as URLs that hold them, and samples side by side."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor

from multistage_diffusion.config import read_config
from multistage_diffusion.data.decoding import load_image
from multistage_diffusion.data.png import shown_bands, to_image
from multistage_diffusion.model import ModelConfig, named_classes
from multistage_diffusion.run import Run
from multistage_diffusion.sampling.folder import SampleFolder, SampleNote

__all__ = ["Samples", "data_url", "file_url", "samples_of", "thumbnail"]

EDGE = 60
"""Pixels of a small image's side."""
GAP = 3
ROWS = 8
MOST_COLUMNS = 12
LARGE = 250_000
"""Bytes of a PNG file from which a picture is stored with losses."""


@dataclass(frozen=True)
class Samples:
    """The first samples of a run."""

    url: str
    about: str
    trained_images: int | None
    classes: Sequence[str] = ()
    """Of the columns, where each column is a class."""


def samples_of(run: Run, config: ModelConfig) -> Samples | None:
    """The samples in a run, or their grid where only that is there."""
    note = SampleFolder(run.samples).note
    found = read_config(SampleNote, note) if note.exists() else None
    trained = found.trained_images if found else None
    classes = _column_classes(config, found.options if found else {})
    columns = len(classes) or 8
    folder = SampleFolder(run.samples)
    files = [path for k in range(ROWS * columns) if (path := folder.image(k)).exists()]
    if files:
        pixels = [shown_bands(load_image(path, keep_alpha=True)) for path in files]
        about = f"{len(files)} generated images in rows of {columns}"
        return Samples(data_url(_mosaic(pixels, columns)), about, trained, classes)
    if run.sample_grid.exists():
        return Samples(file_url(run.sample_grid), "Generated images in a grid", trained)
    return None


def _column_classes(config: ModelConfig, options: dict[str, Any]) -> list[str]:
    """The names of the classes if all take turns and fit into a row."""
    chosen = options.get("label") is not None or options.get("turns")
    names = [name for _, name in named_classes(config)]
    return names if 1 < len(names) <= MOST_COLUMNS and not chosen else []


def _mosaic(images: Sequence[Tensor], columns: int) -> Image.Image:
    """Small images row by row, with transparent gaps."""
    tiles = [thumbnail(image) for image in images]
    width, height = tiles[0].width + GAP, tiles[0].height + GAP
    rows, columns = -(-len(tiles) // columns), min(columns, len(tiles))
    canvas = Image.new("RGBA", (columns * width - GAP, rows * height - GAP))
    for index, tile in enumerate(tiles):
        canvas.paste(tile, (index % columns * width, index // columns * height))
    return canvas


def thumbnail(image: Tensor) -> Image.Image:
    """An image, uint8 ``[C, H, W]``, whose longer side has about as many pixels as others'."""
    found = to_image(image).convert("RGBA" if image.shape[0] == 4 else "RGB")
    longest = max(found.size)
    factor = max(1, EDGE // longest) if longest <= EDGE else EDGE / longest
    size = [max(1, round(side * factor)) for side in found.size]
    sampling = Image.Resampling.NEAREST if factor >= 1 else Image.Resampling.LANCZOS
    return found.resize((size[0], size[1]), sampling)


def data_url(image: Image.Image) -> str:
    """A picture as a URL that holds it: exactly, unless that takes many bytes."""
    content = BytesIO()
    image.save(content, "PNG")
    if content.tell() <= LARGE:
        return _url("png", content.getvalue())
    content = BytesIO()
    image.save(content, "WEBP", quality=85)
    return _url("webp", content.getvalue())


def file_url(path: Path) -> str:
    """A file of a picture as a URL that holds it."""
    with Image.open(path) as image:
        image.load()
        return data_url(image)


def _url(kind: str, content: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
