"""Model files: one safetensors file with weights and, in its metadata, the whole configuration as JSON. No pickles."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from multistage_diffusion.config import RunConfig, from_json, to_json
from multistage_diffusion.denoiser import NetworkDenoiser, build_denoiser
from multistage_diffusion.errors import BadInput
from multistage_diffusion.files import write_atomically

__all__ = ["Model", "find_model", "load_model", "read_metadata", "read_tensors", "save_model", "save_tensors"]

FORMAT = "multistage-diffusion/1"


@dataclass(frozen=True)
class Model:
    """A trained denoiser, how it came about, and how many images it has seen."""

    denoiser: NetworkDenoiser
    config: RunConfig
    images: int


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
                raise BadInput(f"{path} was not written by this program: its metadata lacks the format {FORMAT!r}.")
            yield file, {key: json.loads(value) for key, value in metadata.items()}
    except (SafetensorError, OSError) as error:
        raise BadInput(f"Cannot read {path}: {error}. If it is damaged, {_advice(path)}.") from error


def _advice(path: Path) -> str:
    if path.parent.parent.name == "checkpoints":
        return "remove its folder to continue from the one before"
    return "remove it; the others are of use without it" if path.parent.name == "averages" else "make it anew"


def save_model(path: Path, weights: Mapping[str, Tensor], config: RunConfig, images: int) -> None:
    """Writes a model file, atomically.

    Args:
        path: the file.
        weights: ``state_dict`` of the network.
        config: the run.
        images: how many the network has seen.
    """
    save_tensors(path, weights, {"config": to_json(config), "images": images})


def load_model(path: Path) -> Model:
    """A model from its file, on the CPU and in evaluation mode.

    Raises:
        BadInput: if the file is missing, damaged, of another format, or its weights do not fit its configuration.
    """
    tensors, metadata = read_tensors(path)
    config = from_json(RunConfig, metadata.get("config"))
    denoiser = build_denoiser(config.model)
    try:
        denoiser.network.load_state_dict(tensors)
    except RuntimeError as error:
        raise BadInput(f"The weights in {path} do not fit its configuration.") from error
    return Model(denoiser.eval(), config, int(str(metadata["images"])))


def find_model(run: Path) -> Path:
    """The model file of a run: the final one, else that of the latest checkpoint; or the file itself.

    Raises:
        BadInput: if there is none.
    """
    if run.is_file():
        return run
    final = run / "model.safetensors"
    files = [final] if final.exists() else sorted(run.glob("checkpoints/*/model.safetensors"))
    if not files:
        raise BadInput(f"{run} holds no model: neither model.safetensors nor a checkpoint (multistage train makes them).")
    return files[-1]
