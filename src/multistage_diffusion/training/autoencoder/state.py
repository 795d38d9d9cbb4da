"""The state of an autoencoder's training as one file."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from multistage_diffusion.tensorfile import read_tensors, save_tensors
from multistage_diffusion.training.optimization import moment_names

__all__ = ["Part", "load_state", "save_state"]

Part = tuple[nn.Module, torch.optim.Optimizer | None]
"""A module, and its optimizer if it is trained."""


def save_state(path: Path, parts: Mapping[str, Part], seen: int) -> None:
    """Writes weights and moments of parts by name, and the images that were seen, atomically."""
    tensors: dict[str, Tensor] = {}
    for name, (module, optimizer) in parts.items():
        tensors |= {f"{name}.{key}": value for key, value in module.state_dict().items()}
        for key, parameter in module.named_parameters():
            moments = {} if optimizer is None else optimizer.state.get(parameter, {})
            tensors |= {f"{name}-{m}.{key}": value for m, value in moments.items()}
    save_tensors(path, tensors, {"images": seen})


def load_state(path: Path, parts: Mapping[str, Part]) -> int:
    """Fills parts from a file; returns the images that were seen, 0 if there is no file.

    Raises:
        BadInput: if the file is damaged.
    """
    if not path.exists():
        return 0
    tensors, progress = read_tensors(path)
    for name, (module, optimizer) in parts.items():
        prefix = f"{name}."
        state = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
        module.load_state_dict(state)
        if optimizer is not None:
            _load_moments(module, optimizer, tensors, name)
    return int(str(progress["images"]))


def _load_moments(
    module: nn.Module, optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor], name: str
) -> None:
    for key, parameter in module.named_parameters():
        names = ("step", *moment_names(optimizer, parameter))
        found = {moment: tensors.get(f"{name}-{moment}.{key}") for moment in names}
        values = {moment: value for moment, value in found.items() if value is not None}
        if values:
            optimizer.state[parameter] = {
                moment: value.to(parameter.device) for moment, value in values.items()
            }
