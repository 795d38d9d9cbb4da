"""Gradients of one batch that several processes share.

In a mixed batch a process may have no sample for some decoder while another has. Each process therefore adds up the
gradients of its own samples, over as many parts of its share as memory asks for, and the sums are added over the processes
once, for the parameters that any of them used. A parameter that none used has no gradient, as in a single process, and its
moments stay as they are. (Torch's wrapper for data parallel training drops gradients of parameters that only an
unsynchronised part used.)
"""

from collections.abc import Hashable, Iterable, Iterator

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.nn.utils import get_total_norm

from multistage_diffusion import distributed
from multistage_diffusion.training.distributed.sharding import whole

__all__ = ["Exchange", "part_norms"]

BUCKET = 16 << 20  # numbers exchanged at a time


class Exchange:
    """Adds gradients over the processes.

    Args:
        parameters: what is trained, the same in every process. Gradients of what is split (FSDP) are sums already.
    """

    def __init__(self, parameters: Iterable[nn.Parameter]) -> None:
        self.known = [p for p in parameters if not isinstance(p, DTensor)]
        self.used: dict[Hashable, list[nn.Parameter]] = {}

    @torch.no_grad()
    def add(self, kind: Hashable) -> None:
        """Replaces each gradient by its sum over the processes. All of them must call it.

        Args:
            kind: what decides which parameters are used, the same in every process; asked for once for each.
        """
        if distributed.world_size() == 1 or not self.known:
            return
        if kind not in self.used:
            self.used[kind] = self._used_anywhere()
        for bucket in _buckets(self.used[kind]):
            gradients = [p.grad if p.grad is not None else torch.zeros_like(p) for p in bucket]
            total = distributed.all_reduce_sum(
                torch.cat([gradient.flatten() for gradient in gradients])
            )
            for parameter, part in zip(
                bucket, total.split([p.numel() for p in bucket]), strict=True
            ):
                # in the layout of the parameter, which a fused optimiser takes for granted
                parameter.grad = torch.empty_like(parameter).copy_(part.view_as(parameter))

    def _used_anywhere(self) -> list[nn.Parameter]:
        here = torch.tensor(
            [float(p.grad is not None) for p in self.known], device=self.known[0].device
        )
        anywhere = distributed.all_reduce_max(here).tolist()
        return [parameter for parameter, used in zip(self.known, anywhere, strict=True) if used]


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


def part_norms(parts: Iterable[nn.Module]) -> Tensor:
    """The norm of the gradient of each encoder, decoder or other part; 0 where there is none."""
    norms = []
    for part in parts:
        gradients = [p.grad for p in part.parameters() if p.grad is not None]
        zero = next(part.parameters()).new_zeros(())
        norms.append(whole(get_total_norm(gradients)) if gradients else whole(zero))
    return torch.stack(norms)
