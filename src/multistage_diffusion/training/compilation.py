"""Encoder and decoders as compiled programs, each for itself, for any number of samples.

How many samples a stage has differs from batch to batch, so each part is compiled once, with the number of samples left open. A
single sample, whose number a compiler would take for a constant, is computed as written.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from multistage_diffusion.conditions import Conditions
from multistage_diffusion.errors import BadInput
from multistage_diffusion.networks import StagedUNet
from multistage_diffusion.networks.encoder import Features

__all__ = ["compile_parts"]


def compile_parts(network: StagedUNet) -> None:
    """Lets each encoder and decoder be compiled at its first use; names of parameters stay as they are."""
    for part in network.parts:
        part.forward = _for_any_number(part.forward)


def _for_any_number(forward: Callable[..., Any]) -> Callable[..., Any]:
    compiled = torch.compile(forward, dynamic=False)  # but for what is marked below

    def call(*inputs: Tensor | Features | Conditions) -> Any:
        given = list(_tensors(inputs))
        if len(given[0]) < 2:
            return forward(*inputs)
        for tensor in given:
            torch._dynamo.mark_dynamic(tensor, 0)
        try:
            return compiled(*inputs)
        except torch._inductor.exc.InvalidCxxCompiler as error:
            raise BadInput(
                "--compile needs a C++ compiler (g++ or clang++) on this machine; or go on without it."
            ) from error

    return call


def _tensors(inputs: tuple[Tensor | Features | Conditions, ...]) -> Iterator[Tensor]:
    for value in inputs:
        if isinstance(value, Features):
            yield from (
                t
                for t in (value.deepest, *value.skips, value.embedding, value.context)
                if t is not None
            )
        elif isinstance(value, Conditions):
            yield from value.tensors()
        else:
            yield value
