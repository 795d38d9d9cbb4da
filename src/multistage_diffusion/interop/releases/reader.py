"""The weights in checkpoints of the paper's release and of its three bases.

Where a checkpoint holds averaged weights, these are read.
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
    base, state = _weights(read_pickle(path), path)
    for name, value in state.items():
        if not isinstance(name, str) or not isinstance(value, Tensor) or value.is_complex():
            raise BadInput(f"The entry {name!r:.80} of {path} is not a tensor of numbers.")
    return base, state


def _weights(content: Any, path: Path) -> tuple[str, dict[str, Tensor]]:
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
        f"{path} holds no checkpoint of EDM (ema), score_sde (model) "
        "or latent diffusion (state_dict)."
    )


def _latent_diffusion(state: Mapping[str, Any]) -> dict[str, Tensor]:
    """The network's weights; the names of averaged ones have no dots."""
    prefix = "model.diffusion_model."
    texts = [name for name in state if isinstance(name, str)]
    names = [name.removeprefix(prefix) for name in texts if name.startswith(prefix)]
    weights = {}
    for name in names:
        averaged = state.get(f"model_ema.diffusion_model{name.replace('.', '')}")
        weights[name] = state[prefix + name] if averaged is None else averaged
    return weights


def _score_sde(content: Mapping[str, Any]) -> dict[str, Tensor]:
    """The network's weights; averaged ones are a list in the order of the parameters."""
    model = content["model"].items()
    weights = {str(name).removeprefix("module."): tensor for name, tensor in model}
    ema = content.get("ema")
    averaged = ema.get("shadow_params") if isinstance(ema, Mapping) else None
    if not isinstance(averaged, list | tuple):
        return weights
    parameters = [name for name in weights if name != "sigmas"]
    if len(averaged) != len(parameters):
        raise BadInput(
            f"The checkpoint has {len(averaged)} averaged tensors for {len(parameters)} parameters."
        )
    return dict(zip(parameters, averaged, strict=True))
