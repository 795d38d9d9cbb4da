"""All samples of a folder as one file, written atomically an image at a time.

``.npz`` holds ``arr_0``, uint8 ``[N, H, W, C]``, and for class-conditional models ``arr_1``, int64
``[N]``, as the evaluation programs of ADM and EDM read them; ``.npy`` the images alone;
``.parquet`` PNG images as Hugging Face's image feature, with a column ``label``.
"""

import json
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from multistage_diffusion.data.decoding import load_image
from multistage_diffusion.files import file_atomically

__all__ = ["PACKERS", "PackName", "pack"]

ROWS = 1000  # of a row group
Labels = Sequence[int] | None


def pack(form: "PackName", images: Sequence[Path], labels: Labels, out: Path) -> None:
    """Writes images as one file.

    Args:
        form: the kind of file.
        images: image files of one size.
        labels: the class of each, or None.
        out: the file; it is replaced.
    """
    with file_atomically(out) as file:
        PACKERS[form](file, images, labels)


def _write_npy(file: IO[bytes], images: Sequence[Path], _: Labels) -> None:
    pixels = map(_pixels, images)
    first = next(pixels)
    header = {"descr": "|u1", "fortran_order": False, "shape": (len(images), *first.shape)}
    np.lib.format.write_array_header_1_0(file, header)
    file.write(first.tobytes())
    for image in pixels:
        file.write(image.tobytes())


def _write_npz(file: IO[bytes], images: Sequence[Path], labels: Labels) -> None:
    with zipfile.ZipFile(file, "w") as archive:
        with archive.open("arr_0.npy", "w", force_zip64=True) as part:
            _write_npy(part, images, None)
        if labels is not None:
            with archive.open("arr_1.npy", "w") as part:
                np.lib.format.write_array(part, np.array(labels, dtype=np.int64))


def _write_parquet(file: IO[bytes], images: Sequence[Path], labels: Labels) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    columns = {"image": kind} if labels is None else {"image": kind, "label": pa.int64()}
    schema = pa.schema(columns, metadata={"huggingface": json.dumps(_features(labels))})
    with pq.ParquetWriter(file, schema) as writer:
        for start in range(0, len(images), ROWS):
            part = images[start : start + ROWS]
            rows: dict[str, list[Any]] = {
                "image": [{"bytes": path.read_bytes(), "path": path.name} for path in part]
            }
            if labels is not None:
                rows["label"] = list(labels[start : start + ROWS])
            writer.write_table(pa.table(rows, schema=schema))


def _features(labels: Labels) -> dict[str, Any]:
    """What the library datasets reads in a file's metadata."""
    features: dict[str, Any] = {"image": {"_type": "Image"}}
    if labels is not None:
        features["label"] = {"dtype": "int64", "_type": "Value"}
    return {"info": {"features": features}}


def _pixels(path: Path) -> NDArray[np.uint8]:
    """An image as uint8 ``[H, W, C]``."""
    return np.ascontiguousarray(load_image(path, keep_alpha=True).permute(1, 2, 0).numpy())


PACKERS: dict[str, Callable[[IO[bytes], Sequence[Path], Labels], None]] = {
    "npz": _write_npz,
    "npy": _write_npy,
    "parquet": _write_parquet,
}
"""Writers by the suffix of their files."""

if TYPE_CHECKING:
    PackName = str
else:
    PackName = Literal[tuple(PACKERS)]
