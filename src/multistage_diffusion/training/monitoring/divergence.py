"""Steps whose loss or gradient is not a finite number: left out, counted, and in the end a reason to stop.

All of it stays on the device until it is asked for, so that no step waits.
"""

import torch
from torch import Tensor

__all__ = ["PATIENCE", "Diverged", "Health", "poison"]

PATIENCE = 10  # steps in a row that may fail


class Diverged(RuntimeError):
    """Loss or gradient are not finite in one step after the other."""


class Health:
    """How the last steps went.

    Args:
        device: where the gradients are.
    """

    def __init__(self, device: torch.device) -> None:
        self.failing, self.longest, self.first = (torch.zeros((), device=device) for _ in range(3))

    def failed(self, norm: Tensor, step: int) -> Tensor:
        """1 if the gradient's norm is not finite, else 0, in the type that an optimiser takes as ``found_inf``; counts it.

        Args:
            norm: of the whole gradient, the same in every process.
            step: the number of the step.
        """
        bad = (~norm.isfinite()).float()
        self.first = torch.where((self.failing == 0) & (bad == 1), float(step), self.first)
        self.failing = (self.failing + 1) * bad
        self.longest = torch.maximum(self.longest, self.failing)
        return bad


def poison(loss: Tensor) -> Tensor:
    """The loss, with a gradient that is not a number where the loss is not finite, so that every process learns of it."""
    return loss * torch.where(loss.detach().isfinite(), 1.0, torch.nan)
