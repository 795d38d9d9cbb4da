"""Settings and parameter names of the release and of its three bases, translated into ours.

A base is ``edm`` (EDM and its multi-stage version), ``dpm-solver`` (score_sde's NCSN++) or ``ldm``
(latent diffusion).
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from multistage_diffusion.errors import BadInput
from multistage_diffusion.interop.releases import dpm, edm, ldm
from multistage_diffusion.model import ModelConfig, build_denoiser

__all__ = ["release_classes", "release_model", "translate"]

BASES = {"edm": edm, "dpm-solver": dpm, "ldm": ldm}
CLASS_INPUTS = ("model.map_label.weight", "map_label.weight")
BUFFERS = ("resample_filter", "sigmas")  # constants that our networks make themselves


def release_model(sizes: Mapping[str, Any]) -> ModelConfig:
    """The model that the sizes of a release describe, ``sizes["family"]`` being its base.

    Raises:
        BadInput: if the base is unknown.
    """
    base = sizes.get("family")
    if base not in BASES:
        raise BadInput(f"There is no base {base!r}; there are {', '.join(BASES)}.")
    return BASES[base].model(sizes)


def release_classes(state: Mapping[str, Tensor]) -> int:
    """The number of classes of a release's weights; 0 for an unconditional network."""
    if "label_emb.weight" in state:
        return len(state["label_emb.weight"])
    names = [name for name in CLASS_INPUTS if name in state]
    return state[names[-1]].shape[1] if names else 0


def translate(base: str, config: ModelConfig, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A release's weights under our names.

    Args:
        base: ``edm``, ``dpm-solver`` or ``ldm``.
        config: the model they are for.
        state: the release's state dict.

    Raises:
        BadInput: if a tensor is missing, left over, or of another shape; names the first one.
    """
    with torch.device("meta"):
        network = build_denoiser(config).network
    rules = list(BASES[base].rules(network, config.shape, frozenset(state)))
    missing = next((name for rule in rules for name in rule.theirs if name not in state), None)
    if missing is not None:
        raise BadInput(f"The checkpoint lacks {missing}; is it of another network?")
    used = {name for rule in rules for name in rule.theirs}
    extra = next((name for name in state if name not in used and not name.endswith(BUFFERS)), None)
    if extra is not None:
        raise BadInput(
            f"The checkpoint has {extra}, which the network does not; is it of another network?"
        )
    made = {
        rule.ours: rule.make(*(state[name] for name in rule.theirs)).float().contiguous()
        for rule in rules
    }
    _check_shapes(made, network.state_dict(), {rule.ours: rule.theirs[0] for rule in rules})
    return made


def _check_shapes(
    made: Mapping[str, Tensor], wanted: Mapping[str, Tensor], origin: Mapping[str, str]
) -> None:
    assert made.keys() == wanted.keys(), made.keys() ^ wanted.keys()
    for name, tensor in made.items():
        if tensor.shape != wanted[name].shape:
            found, right = list(tensor.shape), list(wanted[name].shape)
            raise BadInput(
                f"{origin[name]} of the checkpoint is {found} where the network has {right}."
            )
