"""Makes the four sets of images of docs/own-images.md: python examples/make_sets.py FOLDER

- ``photos``: 300 JPEG and PNG crops of scikit-learn's two photographs, of mixed sizes; one broken,
  one grey, one CMYK.
- ``scans``: 240 grey PNG of 16 bits, 64x64.
- ``wide``: 240 PNG of 48x96 in two folders, which are classes.
- ``digits``: scikit-learn's digits as a Hugging Face data set with class labels.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import datasets
import numpy as np
from numpy.random import Generator
from PIL import Image
from sklearn.datasets import load_digits, load_sample_images


def crops(
    rng: Generator, count: int, least: int, most: int, aspect: float | None = None
) -> Iterator[tuple[int, Image.Image]]:
    """Crops of the two photographs in turn, half of them mirrored; yields number of the photograph
    and crop.
    """
    photographs = [Image.fromarray(image) for image in load_sample_images().images]
    for number in range(count):
        photograph, height = photographs[number % 2], int(rng.integers(least, most))
        width = int(height * (aspect or rng.uniform(0.6, 1.7)))
        left, top = (
            int(rng.integers(0, end - size))
            for end, size in zip(photograph.size, (width, height), strict=True)
        )
        crop = photograph.crop((left, top, left + width, top + height))
        yield (
            number % 2,
            crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if rng.random() < 0.5 else crop,
        )


def photos(folder: Path, rng: Generator) -> None:
    """Mixed sizes and formats, and three odd ones."""
    folder.mkdir()
    for number, (_, crop) in enumerate(crops(rng, 300, 90, 300)):
        path = folder / f"{number:03}.{'png' if number % 10 == 0 else 'jpg'}"
        crop.convert({7: "L", 8: "CMYK"}.get(number, "RGB")).save(path)
    broken = folder / "123.jpg"
    broken.write_bytes(broken.read_bytes()[:2000])


def scans(folder: Path, rng: Generator) -> None:
    """Grey values of 16 bits: the luminance of crops, with a gradient that eight bits would not
    hold.
    """
    folder.mkdir()
    for number, (_, crop) in enumerate(crops(rng, 240, 100, 250, aspect=1.0)):
        grey = np.asarray(crop.convert("L").resize((64, 64)), dtype=np.uint16) * 256
        Image.fromarray(grey + np.arange(64, dtype=np.uint16)).save(folder / f"{number:03}.png")


def wide(folder: Path, rng: Generator) -> None:
    """Twice as wide as high; a folder for each photograph."""
    for number, (photograph, crop) in enumerate(crops(rng, 240, 100, 250, aspect=2.0)):
        kind = folder / ("china", "flower")[photograph]
        kind.mkdir(parents=True, exist_ok=True)
        crop.resize((96, 48)).save(kind / f"{number:03}.png")


def digits(folder: Path) -> None:
    """As ``datasets`` saves them."""
    bunch = load_digits()
    images = [Image.fromarray((pixels * 15.9375).astype(np.uint8)) for pixels in bunch.images]
    labels = datasets.ClassLabel(names=[str(name) for name in bunch.target_names])
    features = datasets.Features({"image": datasets.Image(), "label": labels})
    datasets.Dataset.from_dict(
        {"image": images, "label": bunch.target.tolist()}, features
    ).save_to_disk(folder)


def main(folder: Path) -> None:
    """Makes all four."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    photos(folder / "photos", rng)
    scans(folder / "scans", rng)
    wide(folder / "wide", rng)
    digits(folder / "digits")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
