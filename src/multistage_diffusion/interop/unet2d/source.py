"""The files of a U-Net of diffusers: a folder of the model or of a pipeline, or from the hub."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from multistage_diffusion.errors import BadInput
from multistage_diffusion.files import read_object
from multistage_diffusion.interop.releases.pickles import read_pickle

__all__ = ["UNetFiles", "holds_unet", "may_be_hub_id", "read_unet"]

WEIGHTS = "diffusion_pytorch_model"
SMALL_FILES = ("model_index.json", "*config.json", "unet/config.json", "scheduler/*config.json")
CHECKPOINTS = (".pkl", ".pth", ".ckpt", ".safetensors")
AUTOENCODERS = ("vae", "vqvae", "movq")
EARLIER_NAMES = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}


@dataclass(frozen=True)
class UNetFiles:
    """What the files hold."""

    settings: Mapping[str, Any]
    """The model's configuration."""
    scheduler: Mapping[str, Any] | None
    """That of the scheduler, if there is one."""
    weights: Mapping[str, Tensor]
    on_latents: bool
    """Whether the pipeline has an autoencoder, whose latents the model works on."""


def holds_unet(folder: Path) -> bool:
    """Whether a folder holds a model or pipeline of diffusers."""
    if (folder / "model_index.json").is_file():
        return True
    file = folder / "config.json"
    return file.is_file() and "_class_name" in read_object(file)


def may_be_hub_id(source: str) -> bool:
    """Whether a name may be that of a model on the hub, ``owner/name``, and is no path."""
    of_file = source.endswith(CHECKPOINTS) or Path(source).exists()
    return re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", source) is not None and not of_file


def read_unet(source: str) -> UNetFiles:
    """Reads a folder, or downloads what is needed from the hub into its cache.

    Args:
        source: a folder with ``config.json`` and weights, the folder of a pipeline with ``unet``
            and ``scheduler``, or the id of either on the hub.

    Raises:
        BadInput: if there is none of that name, or files are missing or damaged.
    """
    folder = _download(source) if may_be_hub_id(source) else Path(source)
    inner = folder / "unet"
    model = inner if inner.is_dir() else folder
    index = folder / "model_index.json"
    parts = read_object(index) if index.is_file() else {}
    return UNetFiles(
        settings=read_object(model / "config.json"),
        scheduler=_scheduler(folder),
        weights=_weights(model),
        on_latents=any(name in parts for name in AUTOENCODERS),
    )


def _scheduler(folder: Path) -> Mapping[str, Any] | None:
    name = "scheduler_config.json"
    inside = [folder / "scheduler" / name, folder / name]
    files = [*inside, folder.parent / "scheduler" / name] if folder.name == "unet" else inside
    return next((read_object(file) for file in files if file.is_file()), None)


def _weights(folder: Path) -> dict[str, Tensor]:
    """The weights by their present names; earlier versions named attention otherwise."""
    file, pickled = folder / f"{WEIGHTS}.safetensors", folder / f"{WEIGHTS}.bin"
    try:
        state = read_pickle(pickled) if not file.is_file() else load_file(file)
    except SafetensorError as error:
        raise BadInput(f"Cannot read {file}: {error}.") from error
    return {_present_name(name): tensor for name, tensor in state.items()}


def _present_name(name: str) -> str:
    match = re.fullmatch(r"(.*\.attentions\.\d+)\.(\w+)\.(weight|bias)", name)
    if match is None or match[2] not in EARLIER_NAMES:
        return name
    return f"{match[1]}.{EARLIER_NAMES[match[2]]}.{match[3]}"


def _download(name: str) -> Path:
    """The files of a model on the hub, in its cache."""
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise BadInput(
            f"There is no folder {name}, and the hub needs huggingface_hub: "
            "pip install huggingface_hub."
        ) from error
    try:
        for suffix in ("safetensors", "bin"):
            names = (f"{WEIGHTS}.{suffix}", f"unet/{WEIGHTS}.{suffix}")
            folder = Path(snapshot_download(name, allow_patterns=[*SMALL_FILES, *names]))
            if any((folder / file).is_file() for file in names):
                break
    except Exception as error:  # network, hub or name: in any case there is no model
        first = str(error).strip().partition("\n")[0].rstrip(".")
        raise BadInput(
            f"There is no folder {name}, and no model of that name could be loaded from the "
            f"Hugging Face hub: {type(error).__name__}: {first}."
        ) from error
    return folder
