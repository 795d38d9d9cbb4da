"""The weights in the checkpoints of the three bases and of the paper's release: averaged ones where
there are any.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from multistage_diffusion.errors import BadInput
from multistage_diffusion.interop.releases.pickles import Record, read_pickle

__all__ = ["read_release"]


def read_release(path: Path) -> tuple[str, dict[str, Tensor]]:
    """The base of a checkpoint and its state dict.

    Args:
        path: a ``.pkl`` of EDM, a ``.pth`` of score_sde or a ``.ckpt`` of latent diffusion.

    Raises:
        BadInput: if it is none of them, or asks for more than tensors and containers.
    """
    content = read_pickle(path)
    if isinstance(content, Record):
        return "edm", content.tensors()
    if isinstance(content, Mapping):
        if isinstance(content.get("ema"), Record):
            return "edm", content["ema"].tensors()
        if isinstance(content.get("state_dict"), Mapping):
            return "ldm", _latent_diffusion(content["state_dict"])
        if isinstance(content.get("model"), Mapping):
            return "dpm-solver", _score_sde(content)
    raise BadInput(
        f"{path} holds no checkpoint of EDM (ema), score_sde (model) or latent diffusion "
        "(state_dict)."
    )


def _latent_diffusion(state: Mapping[str, Any]) -> dict[str, Tensor]:
    """Averaged weights are stored without the dots of their names."""
    prefix = "model.diffusion_model."
    weights = {
        name.removeprefix(prefix): tensor
        for name, tensor in state.items()
        if name.startswith(prefix)
    }
    averaged = {
        name: state.get(f"model_ema.diffusion_model{name.replace('.', '')}") for name in weights
    }
    return {
        name: tensor if (found := averaged[name]) is None else found
        for name, tensor in weights.items()
    }


def _score_sde(content: Mapping[str, Any]) -> dict[str, Tensor]:
    """Averaged weights are a list in the order of the parameters."""
    weights = {name.removeprefix("module."): tensor for name, tensor in content["model"].items()}
    shadow = (content.get("ema") or {}).get("shadow_params")
    parameters = [name for name in weights if name != "sigmas"]
    if shadow is None:
        return weights
    if len(shadow) != len(parameters):
        raise BadInput(
            f"The checkpoint has {len(shadow)} averaged tensors for {len(parameters)} parameters."
        )
    return dict(zip(parameters, shadow, strict=True))
