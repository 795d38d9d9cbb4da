"""Encoders and decoders compiled separately, for any number of samples.

The number of samples of a stage differs from batch to batch, so each part is compiled once, with
the batch dimension dynamic. A single sample, whose batch size the compiler would treat as a
constant, runs eagerly.
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
    """Makes each encoder and decoder compile at its first use. Parameter names stay."""
    for part in network.parts:
        part.forward = _compiled(part.forward)


def _compiled(forward: Callable[..., Any]) -> Callable[..., Any]:
    """A function of tensors that is compiled with a dynamic first dimension."""
    compiled = torch.compile(forward, dynamic=False)  # except for the dimensions marked below

    def call(*inputs: Tensor | Features | Conditions) -> Any:
        tensors = list(_tensors(inputs))
        if len(tensors[0]) < 2:
            return forward(*inputs)
        for tensor in tensors:
            torch._dynamo.mark_dynamic(tensor, 0)
        try:
            return compiled(*inputs)
        except torch._inductor.exc.InvalidCxxCompiler as error:
            raise BadInput(
                "--compile needs a C++ compiler (g++ or clang++) on this machine; or continue "
                "without it."
            ) from error

    return call


def _tensors(inputs: tuple[Tensor | Features | Conditions, ...]) -> Iterator[Tensor]:
    for value in inputs:
        if isinstance(value, Features):
            fields = (value.deepest, *value.skips, value.embedding, value.context)
            yield from (tensor for tensor in fields if tensor is not None)
        elif isinstance(value, Conditions):
            yield from value.tensors()
        else:
            yield value
