"""What a network is conditioned on in addition to the noise level."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["NO_CONDITIONS", "Conditions"]


@dataclass(frozen=True)
class Conditions:
    """Conditions of a batch; None for what a network is not conditioned on."""

    labels: Tensor | None = None
    """Classes, int64 ``[B]``; -1 for none."""
    augment: Tensor | None = None
    """Labels of the augmentation, ``[B, augment_channels]``; None for images as they are."""
    context: Tensor | None = None
    """What the network attends to, ``[B, tokens, context_channels]``."""

    def at(self, rows: Tensor | slice) -> "Conditions":
        """The conditions of some samples, or of all in another order."""
        return self._map(lambda value: value[rows])

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "Conditions":
        """The conditions on a device."""
        return self._map(lambda value: value.to(device, non_blocking=non_blocking))

    def _map(self, function: Callable[[Tensor], Tensor]) -> "Conditions":
        values = (self.labels, self.augment, self.context)
        return Conditions(*(None if value is None else function(value) for value in values))


NO_CONDITIONS = Conditions()
