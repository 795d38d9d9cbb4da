"""Conditions: what a network is given about its images in addition to their noise level."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise

import torch
from torch import Tensor

__all__ = ["NO_CONDITIONS", "Conditions"]


@dataclass(frozen=True)
class Conditions:
    """Class labels, augmentation labels and context of B samples. Every field is optional.

    Which of them a network reads is a setting of the network.
    """

    labels: Tensor | None = None
    """Classes, int64 ``[B]``; -1 for no class."""
    augment: Tensor | None = None
    """Labels of the augmentation, float32 ``[B, augment_channels]``; zeros for none."""
    context: Tensor | None = None
    """Tokens that the network attends to, ``[B, tokens, context_channels]``."""
    seeds: Tensor | None = None
    """Of each sample's dropout in training, int64 ``[B]`` on the CPU; without them dropout is drawn
    from torch's global generator."""

    def at(self, rows: Tensor | slice) -> "Conditions":
        """The conditions of some samples.

        Args:
            rows: their indices, int64 ``[b]``, a mask, bool ``[B]``, or a slice, which gives views.
        """
        return replace(self, **{name: value[rows] for name, value in self._given().items()})

    def split(self, counts: Sequence[int]) -> list["Conditions"]:
        """Views of consecutive parts of the batch with these numbers of samples."""
        edges = accumulate(counts, initial=0)
        return [self.at(slice(start, stop)) for start, stop in pairwise(edges)]

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "Conditions":
        """The conditions on a device.

        Args:
            device: where to.
            non_blocking: do not wait for copies from pinned memory.
        """
        moved = {
            name: value.to(device, non_blocking=non_blocking)
            for name, value in self._given().items()
        }
        return replace(self, **moved)

    def tensors(self) -> list[Tensor]:
        """Those that are given."""
        return list(self._given().values())

    def _given(self) -> dict[str, Tensor]:
        named = vars(self)
        return {name: value for name, value in named.items() if value is not None}


NO_CONDITIONS = Conditions()
"""No condition at all."""
