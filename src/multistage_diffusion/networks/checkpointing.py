"""Gradient checkpointing: activations are computed again in the backward pass, not kept."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["Checkpointed"]


class Checkpointed(nn.Module):
    """Blocks of which each may be checkpointed.

    diffusers sets the two attributes. Dropout is the same in both passes if it comes from torch's
    global generator.
    """

    gradient_checkpointing = False
    _gradient_checkpointing_func: Callable[..., Any]

    def run(self, block: nn.Module, *inputs: Tensor | None) -> Any:
        """The output of a block; only its inputs are kept for the backward pass, if set so."""
        if self.gradient_checkpointing and torch.is_grad_enabled():
            return self._gradient_checkpointing_func(block, *inputs)
        return block(*inputs)
