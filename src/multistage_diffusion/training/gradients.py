"""Gradients of one batch that several processes share.

In a mixed batch a process may have no sample for some decoder while another has. Each process therefore adds up the
gradients of its own samples, over as many parts of its share as memory asks for, and the sums are added over the processes
once, for the parameters that any of them used. A parameter that none used has no gradient, as in a single process, and its
moments stay as they are. (Torch's wrapper for data parallel training drops gradients of parameters that only an
unsynchronised part used.)
"""

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn

from multistage_diffusion import processes

__all__ = ["add_over_processes"]

BUCKET = 16 << 20  # numbers exchanged at a time


@torch.no_grad()
def add_over_processes(parameters: Iterable[nn.Parameter]) -> None:
    """Replaces each gradient by its sum over the processes. All of them must call it, with the same parameters."""
    if processes.count() == 1:
        return
    known = list(parameters)
    used = processes.greatest(torch.tensor([float(p.grad is not None) for p in known], device=known[0].device))
    chosen = [parameter for parameter, anywhere in zip(known, used.tolist(), strict=True) if anywhere]
    for bucket in _buckets(chosen):
        gradients = [p.grad if p.grad is not None else torch.zeros_like(p) for p in bucket]
        total = processes.total(torch.cat([gradient.flatten() for gradient in gradients]))
        for parameter, part in zip(bucket, total.split([p.numel() for p in bucket]), strict=True):
            # in the layout of the parameter, which a fused optimiser takes for granted
            parameter.grad = torch.empty_like(parameter).copy_(part.view_as(parameter))


def _buckets(parameters: list[nn.Parameter]) -> Iterator[list[nn.Parameter]]:
    """The parameters in order, some at a time."""
    bucket: list[nn.Parameter] = []
    for parameter in parameters:
        if bucket and sum(map(Tensor.numel, bucket)) + parameter.numel() > BUCKET:
            yield bucket
            bucket = []
        bucket.append(parameter)
    if bucket:
        yield bucket
