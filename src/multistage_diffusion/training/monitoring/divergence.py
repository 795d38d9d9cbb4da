"""Steps whose loss or gradient is not finite: they are skipped, counted, and finally stop the run.

All of it stays on the device until it is read, so that no step waits.
"""

import torch
from torch import Tensor

__all__ = ["MOST_FAILED_STEPS", "FailedSteps", "spread_non_finite"]

MOST_FAILED_STEPS = 10  # in a row


class FailedSteps:
    """Counts failed steps.

    Args:
        device: where the gradients are.
    """

    def __init__(self, device: torch.device) -> None:
        self.current = torch.zeros((), device=device)
        """Failed steps in a row up to the last step."""
        self.longest = torch.zeros((), device=device)
        """Most failed steps in a row so far."""
        self.first = torch.zeros((), device=device)
        """Number of the step that began the last row of failed ones."""

    def add(self, norm: Tensor, step: int) -> Tensor:
        """Counts a step.

        Args:
            norm: norm of the whole gradient, the same on every rank.
            step: number of the step.

        Returns:
            1 if the norm is not finite, else 0, as an optimizer takes it for ``found_inf``.
        """
        failed = (~norm.isfinite()).float()
        begins = (self.current == 0) & (failed == 1)
        self.first = torch.where(begins, float(step), self.first)
        self.current = (self.current + 1) * failed
        self.longest = torch.maximum(self.longest, self.current)
        return failed


def spread_non_finite(loss: Tensor) -> Tensor:
    """The loss, with a NaN gradient where it is not finite, so that every rank sees the failure."""
    return loss * torch.where(loss.detach().isfinite(), 1.0, torch.nan)
