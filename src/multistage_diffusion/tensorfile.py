"""Safetensors files with JSON metadata, written atomically. No pickles."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from multistage_diffusion.errors import BadInput
from multistage_diffusion.files import write_atomically

__all__ = ["FORMAT", "read_metadata", "read_tensors", "save_tensors"]

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
    text = {key: json.dumps(value) for key, value in metadata.items()}
    write_atomically(path, *_canonical(save(contiguous, {"format": FORMAT, **text})))


def _canonical(content: bytes) -> tuple[bytes, memoryview]:
    """Header and data of a safetensors file with the entries of the header in order.

    Its library writes metadata in another order every time; equal content is to give equal bytes.
    """
    data = memoryview(content)[8:]
    length = int.from_bytes(content[:8], "little")
    header = json.dumps(json.loads(bytes(data[:length])), sort_keys=True).encode()
    padded = header + b" " * (-len(header) % 8)  # data begins at a multiple of 8 bytes
    return len(padded).to_bytes(8, "little") + padded, data[length:]


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, object]]:
    """Tensors and metadata of a file from ``save_tensors``.

    Raises:
        BadInput: if the file is missing, truncated or of another format.
    """
    with _open(path) as (file, metadata):
        names = list(file.keys())
        return {name: file.get_tensor(name) for name in names}, metadata


def read_metadata(path: Path) -> dict[str, object]:
    """The metadata of a file from ``save_tensors``, without reading its tensors.

    Raises:
        BadInput: if the file is missing, truncated or of another format.
    """
    with _open(path) as (_, metadata):
        return metadata


@contextmanager
def _open(path: Path) -> Iterator[tuple[Any, dict[str, object]]]:
    """A handle of the file, from which tensors can be read, and its metadata."""
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            if metadata.pop("format", None) != FORMAT:
                raise BadInput(
                    f"{path} was not written by this program: "
                    f"its metadata lacks the format {FORMAT!r}."
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
    """What to do about a damaged file; where it is stored says what it is."""
    if path.parent.parent.name == "checkpoints":
        return "remove its folder to continue from the checkpoint before it"
    if path.parent.name == "averages":
        return "remove it; the other snapshots do not need it"
    return "make it again"
