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


def save_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, object]) -> None:
    """Writes tensors and JSON metadata to one safetensors file, atomically."""
    contiguous = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
    text = {"format": FORMAT, **{key: json.dumps(value) for key, value in metadata.items()}}
    write_atomically(path, save(contiguous, text))


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, object]]:
    """Tensors and metadata of a file from ``save_tensors``.

    Raises:
        BadInput: if the file is missing, truncated or of another format.
    """
    with _opened(path) as (file, metadata):
        return {name: file.get_tensor(name) for name in file.keys()}, metadata  # noqa: SIM118  (a handle, not a dict)


def read_metadata(path: Path) -> dict[str, object]:
    """The metadata alone.

    Raises:
        BadInput: as ``read_tensors``.
    """
    with _opened(path) as (_, metadata):
        return metadata


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Any, dict[str, object]]]:
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            if metadata.pop("format", None) != FORMAT:
                raise BadInput(
                    f"{path} was not written by this program: its metadata lacks the format "
                    f"{FORMAT!r}."
                )
            yield file, {key: json.loads(value) for key, value in metadata.items()}
    except (SafetensorError, OSError) as error:
        raise BadInput(
            f"Cannot read {path}: {error}. If it is damaged, {_advice(path)}."
        ) from error


def _advice(path: Path) -> str:
    if path.parent.parent.name == "checkpoints":
        return "remove its folder to continue from the one before"
    return (
        "remove it; the others are of use without it"
        if path.parent.name == "averages"
        else "make it again"
    )
