"""Settings and parameter names of the release and of its three bases, translated into ours.

A base is ``edm`` (EDM and its multi-stage version), ``dpm-solver`` (score_sde's NCSN++) or ``ldm``
(latent diffusion).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from multistage_diffusion.errors import BadInput
from multistage_diffusion.interop.releases import dpm, edm, ldm
from multistage_diffusion.interop.releases.rules import Rule
from multistage_diffusion.model import ModelConfig, build_denoiser
from multistage_diffusion.networks import StagedUNet

__all__ = ["release_classes", "release_model", "translate", "translated"]

BASES = {"edm": edm, "dpm-solver": dpm, "ldm": ldm}
CLASS_INPUTS = ("model.map_label.weight", "map_label.weight")
CONSTANTS = ("resample_filter", "sigmas")  # buffers that our networks make themselves


def release_model(sizes: Mapping[str, Any]) -> ModelConfig:
    """The model that the sizes of a release describe.

    Args:
        sizes: the sizes by the release's names; ``sizes["family"]`` is the base.

    Raises:
        BadInput: if the base is unknown, a size is missing, or the network cannot be read.
    """
    base = sizes.get("family")
    if base not in BASES:
        raise BadInput(f"There is no base {base!r}; there are {', '.join(BASES)}.")
    try:
        return BASES[base].model_config(sizes)
    except KeyError as error:
        raise BadInput(f"The sizes of the release lack {error.args[0]}.") from error


def release_classes(state: Mapping[str, Tensor]) -> int:
    """The number of classes of a release's weights; 0 for an unconditional network."""
    if "label_emb.weight" in state:
        return state["label_emb.weight"].shape[:1].numel()
    names = [name for name in CLASS_INPUTS if name in state]
    return state[names[-1]].shape[1:2].numel() if names else 0


def translate(base: str, config: ModelConfig, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A release's weights under our names.

    Args:
        base: ``edm``, ``dpm-solver`` or ``ldm``.
        config: the model they are for.
        state: the release's state dict.

    Returns:
        The state dict of our network, float32.

    Raises:
        BadInput: if a tensor is missing, left over, or of another shape; names the first one.
    """
    with torch.device("meta"):
        network = build_denoiser(config).network
    rules = list(BASES[base].rules(network, config.shape, frozenset(state)))
    return translated(rules, network, state)


def translated(
    rules: Sequence[Rule], network: StagedUNet, state: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """A state dict made by rules.

    Args:
        rules: how each tensor of the network is made.
        network: ours, which may be without storage.
        state: the tensors to make them from.

    Returns:
        The state dict of the network, float32.

    Raises:
        BadInput: if a tensor is missing, left over, or of another shape; names the first one.
    """
    _check_names(rules, state)
    made = {}
    for rule in rules:
        made[rule.ours] = _made(rule, state).float().contiguous()
    _check_shapes(rules, made, network.state_dict())
    return made


def _made(rule: Rule, state: Mapping[str, Tensor]) -> Tensor:
    try:
        return rule.make(*(state[name] for name in rule.theirs))
    except (RuntimeError, IndexError, ValueError) as error:
        names = ", ".join(rule.theirs)
        raise BadInput(f"{names} of the checkpoint have other shapes than they should.") from error


def _check_names(rules: Sequence[Rule], state: Mapping[str, Tensor]) -> None:
    used = [name for rule in rules for name in rule.theirs]
    missing = next((name for name in used if name not in state), None)
    if missing is not None:
        raise BadInput(f"The checkpoint lacks {missing}; is it of another network?")
    known = set(used)
    extra = [name for name in state if name not in known and not name.endswith(CONSTANTS)]
    if extra:
        raise BadInput(
            f"The checkpoint has {extra[0]}, which the network does not; is it of another network?"
        )


def _check_shapes(
    rules: Sequence[Rule], made: Mapping[str, Tensor], expected: Mapping[str, Tensor]
) -> None:
    assert made.keys() == expected.keys(), made.keys() ^ expected.keys()
    for rule in rules:
        found = list(made[rule.ours].shape)
        needed = list(expected[rule.ours].shape)
        if found != needed:
            name = rule.theirs[0]
            raise BadInput(f"{name} of the checkpoint is {found} where the network has {needed}.")
