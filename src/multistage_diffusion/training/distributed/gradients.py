"""Gradients of a batch that several ranks share.

In a mixed batch one rank may have no sample for some decoder while another has one. Each rank
therefore accumulates the gradients of its own samples, over as many micro-batches as memory
requires, and the sums are all-reduced once, for the parameters that any rank used. A parameter that
none used has no gradient, as in a single process, and its moments stay as they are.
(``DistributedDataParallel`` drops gradients of parameters that only an unsynchronised micro-batch
used.)
"""

from collections.abc import Hashable, Iterable, Iterator

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.nn.utils import get_total_norm

from multistage_diffusion import distributed
from multistage_diffusion.training.distributed.sharding import whole

__all__ = ["GradientReducer", "part_norms"]

BUCKET_SIZE = 16 << 20  # numbers that are reduced at a time


class GradientReducer:
    """Sums gradients over the ranks.

    Args:
        parameters: what is trained, the same on every rank. Gradients of sharded parameters are
            reduced by FSDP and left alone.
    """

    def __init__(self, parameters: Iterable[nn.Parameter]) -> None:
        self.parameters = [p for p in parameters if not isinstance(p, DTensor)]
        self.used: dict[Hashable, list[nn.Parameter]] = {}

    @torch.no_grad()
    def reduce(self, key: Hashable) -> None:
        """Replaces each gradient by its sum over the ranks. All ranks must call it.

        Args:
            key: what decides which parameters are used, equal on every rank. The parameters are
                found once for each key.
        """
        if distributed.world_size() == 1 or not self.parameters:
            return
        if key not in self.used:
            self.used[key] = self._used_anywhere()
        for bucket in _buckets(self.used[key]):
            _reduce(bucket)

    def _used_anywhere(self) -> list[nn.Parameter]:
        """The parameters with a gradient on some rank."""
        device = self.parameters[0].device
        here = torch.tensor([float(p.grad is not None) for p in self.parameters], device=device)
        anywhere = distributed.all_reduce_max(here).tolist()
        return [p for p, used in zip(self.parameters, anywhere, strict=True) if used]


def _reduce(bucket: list[nn.Parameter]) -> None:
    gradients = [p.grad if p.grad is not None else torch.zeros_like(p) for p in bucket]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    total = distributed.all_reduce_sum(flat)
    for parameter, part in zip(bucket, total.split([p.numel() for p in bucket]), strict=True):
        # in the memory format of the parameter, which a fused optimizer takes for granted
        parameter.grad = torch.empty_like(parameter).copy_(part.view_as(parameter))


def _buckets(parameters: list[nn.Parameter]) -> Iterator[list[nn.Parameter]]:
    """The parameters in order, in lists of at most ``BUCKET_SIZE`` numbers where possible."""
    bucket: list[nn.Parameter] = []
    for parameter in parameters:
        size = sum(map(Tensor.numel, bucket))
        if bucket and size + parameter.numel() > BUCKET_SIZE:
            yield bucket
            bucket = []
        bucket.append(parameter)
    if bucket:
        yield bucket


def part_norms(parts: Iterable[nn.Module]) -> Tensor:
    """The norm of the gradient of each part, ``[parts]``; 0 where there is none."""
    return torch.stack([_norm(part) for part in parts])


def _norm(part: nn.Module) -> Tensor:
    gradients = [p.grad for p in part.parameters() if p.grad is not None]
    zero = next(part.parameters()).new_zeros(())
    return whole(get_total_norm(gradients) if gradients else zero)
