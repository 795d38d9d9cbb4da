"""Muon for weights that are matrices, Adam for all others.

Muon (Jordan et al. 2024) replaces the momentum of a matrix by the nearest orthogonal one. A
convolution counts as a matrix of its output channels times all of their inputs. Steps are scaled as
in Liu et al. 2025, so that the learning rates of Adam fit.
"""

from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from multistage_diffusion.errors import BadInput

__all__ = ["MOMENTUM", "MuonAndAdam", "check_muon", "is_matrix"]

MOMENTUM = "momentum_buffer"


def check_muon() -> None:
    """Raises BadInput if torch is too old to have Muon."""
    if not hasattr(torch.optim, "Muon"):
        raise BadInput(
            f"The optimizer muon needs torch 2.9 or newer, this is {torch.__version__}: install "
            "it, or choose adam or adamw."
        )


def is_matrix(parameter: Tensor) -> bool:
    """Whether a parameter is the weight of a convolution or of a linear layer."""
    return parameter.ndim > 1


class MuonAndAdam(torch.optim.AdamW):
    """``torch.optim.Muon`` and ``torch.optim.AdamW`` on the parameters of the same groups.

    Weights decay as in AdamW, in both. Like fused Adam it takes no step if ``found_inf`` is set; to
    know that, it waits for the device.
    """

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """Takes a step. A closure is not supported."""
        assert closure is None
        matrices = [[p for p in group["params"] if _learns(p)] for group in self.param_groups]
        if not bool(getattr(self, "found_inf", False)):
            for group, parameters in zip(self.param_groups, matrices, strict=True):
                self._turn(parameters, group)
        for parameter in chain.from_iterable(matrices):
            parameter.grad = None  # Adam passes over it
        super().step()

    def _turn(self, parameters: Sequence[Tensor], group: dict[str, Any]) -> None:
        """Muon's step of the matrices of a group."""
        if not parameters:
            return
        rows = [nn.Parameter(parameter.flatten(1)) for parameter in parameters]
        muon = torch.optim.Muon(
            rows,
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            adjust_lr_fn="match_rms_adamw",
        )
        for parameter, row in zip(parameters, rows, strict=True):
            assert parameter.grad is not None
            row.grad = parameter.grad.flatten(1)
            muon.state[row][MOMENTUM] = self._momentum(parameter).flatten(1)
        muon.step()
        for parameter, row in zip(parameters, rows, strict=True):
            parameter.copy_(row.view_as(parameter))
            self.state[parameter][MOMENTUM].copy_(muon.state[row][MOMENTUM].view_as(parameter))

    def _momentum(self, parameter: Tensor) -> Tensor:
        """The momentum of a matrix, which counts one step more."""
        state = self.state[parameter]
        if not state:
            state["step"] = torch.zeros((), device=parameter.device)
            state[MOMENTUM] = torch.zeros_like(parameter)
        state["step"] += 1
        momentum: Tensor = state[MOMENTUM]
        return momentum


def _learns(parameter: Tensor) -> bool:
    return is_matrix(parameter) and parameter.grad is not None
