"""Data sets of several forms, made from the same images."""

import io
import tarfile
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile

import datasets
import numpy as np
import pytest
from PIL import Image

FEATURES = {
    "colour": datasets.Value("string"),
    "picture": datasets.Image(),
    "kind": datasets.ClassLabel(names=["cat", "dog"]),
    "weight": datasets.Value("float32"),
}


def png(array: np.ndarray) -> bytes:
    """An image as the content of a PNG file."""
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, "PNG")
    return stream.getvalue()


def zipped(folder: Path, target: Path, inside: str = "") -> Path:
    """The files of a folder as a zip archive, below the path ``inside``."""
    with ZipFile(target, "w", ZIP_DEFLATED) as archive:
        for file in sorted(folder.rglob("*"), reverse=True):
            if file.is_file():
                archive.write(file, inside + file.relative_to(folder).as_posix())
    return target


def tarred(folder: Path, target: Path, mode: str) -> Path:
    """The files of a folder as a tar archive; ``mode`` says how it is compressed."""
    with tarfile.open(target, mode) as archive:  # type: ignore[call-overload]
        for file in sorted(folder.rglob("*.*"), reverse=True):
            archive.add(file, f"./{file.relative_to(folder).as_posix()}")
    return target


@pytest.fixture
def table(folder: Path) -> datasets.Dataset:
    """The images of ``folder`` as a table with a class label and two other columns."""
    files = sorted(folder.rglob("*.png"))
    columns = {
        "colour": [("red", "blue")[k % 2] for k in range(len(files))],
        "picture": [{"bytes": file.read_bytes(), "path": file.name} for file in files],
        "kind": [int(file.parent.name == "dog") for file in files],
        "weight": [0.5] * len(files),
    }
    return datasets.Dataset.from_dict(columns, features=datasets.Features(FEATURES))
