"""Safetensors files with JSON metadata, written atomically. No pickles."""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from multistage_diffusion.errors import BadInput
from multistage_diffusion.files import write_atomically

__all__ = [
    "FORMAT",
    "header_bytes",
    "open_tensors",
    "read_metadata",
    "read_tensors",
    "save_tensors",
    "text_metadata",
]

FORMAT = "multistage-diffusion/1"
"""Written to the metadata of every file, and required of every file that is read."""


def save_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, object]) -> None:
    """Writes tensors and metadata to one file, atomically.

    Args:
        path: the file.
        tensors: the tensors by name.
        metadata: values that ``json`` can write, by name.
    """
    contiguous = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
    write_atomically(path, *_canonical(save(contiguous, text_metadata(metadata))))


def text_metadata(metadata: Mapping[str, object]) -> dict[str, str]:
    """The metadata of a file as its header holds them."""
    text = {key: json.dumps(value) for key, value in metadata.items()}
    return {"format": FORMAT, **text}


def _canonical(content: bytes) -> tuple[bytes, memoryview]:
    """Header and data of a safetensors file with the entries of the header in order.

    Its library writes metadata in another order every time; equal content is to give equal bytes.
    """
    data = memoryview(content)[8:]
    length = int.from_bytes(content[:8], "little")
    return header_bytes(json.loads(bytes(data[:length]))), data[length:]


def header_bytes(header: Mapping[str, object]) -> bytes:
    """What stands before the data of a safetensors file, with its entries in order."""
    text = json.dumps(header, sort_keys=True).encode()
    padded = text + b" " * (-len(text) % 8)  # data begins at a multiple of 8 bytes
    return len(padded).to_bytes(8, "little") + padded


def read_tensors(
    path: Path, wanted: Callable[[str], bool] = lambda _: True
) -> tuple[dict[str, Tensor], dict[str, object]]:
    """Tensors and metadata of a file from ``save_tensors``.

    Args:
        path: the file.
        wanted: whether to read the tensor with a name.

    Raises:
        BadInput: if the file is missing, truncated or of another format.
    """
    with open_tensors(path) as (file, metadata):
        names = filter(wanted, list(file.keys()))
        return {name: file.get_tensor(name) for name in names}, metadata


def read_metadata(path: Path) -> dict[str, object]:
    """The metadata of a file from ``save_tensors``, without reading its tensors.

    Raises:
        BadInput: if the file is missing, truncated or of another format.
    """
    with open_tensors(path) as (_, metadata):
        return metadata


@contextmanager
def open_tensors(path: Path, form: str = FORMAT) -> Iterator[tuple[Any, dict[str, object]]]:
    """A handle of a file, from which tensors can be read, and its metadata.

    Args:
        path: the file.
        form: the format that its metadata must name.

    Raises:
        BadInput: if the file is missing, truncated or of another format.
    """
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            if metadata.pop("format", None) != form:
                raise BadInput(
                    f"{path} was not written by this program: "
                    f"its metadata lacks the format {form!r}."
                )
            yield file, {key: _parsed(value, key, path) for key, value in metadata.items()}
    except (SafetensorError, OSError, RuntimeError, TypeError, AttributeError) as error:
        advice = _advice(path)
        raise BadInput(f"Cannot read {path}: {error}. If it is damaged, {advice}.") from error


def _parsed(text: str, key: str, path: Path) -> object:
    """A value of the metadata."""
    try:
        value: object = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{path}: its metadata {key} is not valid JSON: {error}.") from error
    return value


def _advice(path: Path) -> str:
    """What to do about a damaged file, by the folder that it is stored in."""
    if path.parent.parent.name == "checkpoints":
        return "remove its folder to continue from the checkpoint before it"
    if path.parent.name == "averages":
        return "remove it; the other snapshots do not need it"
    return "make it again"
