"""Gradients of a batch that several ranks share.

In a mixed batch one rank may have no sample for some decoder while another has one. Each rank
therefore accumulates the gradients of its own samples, over as many micro-batches as memory
requires, and the sums are all-reduced once, for the parameters that any rank used. A parameter that
none used has no gradient, as in a single process, and its moments stay as they are.

The exchange is hidden behind the last backward pass: gradients are sent in buckets, from the last
parameters to the first, as soon as those of a bucket are complete. Which gradients a backward pass
computes depends on the stages in it only, and is seen once for each combination.
(``DistributedDataParallel`` sends the gradients of all decoders, also in batches of a single stage;
``benchmarks/distributed.md`` has the times.)
"""

from collections.abc import Hashable, Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.nn.utils import get_total_norm

from multistage_diffusion import distributed
from multistage_diffusion.training.distributed.sharding import whole

__all__ = ["GradientReducer", "part_norms"]

BUCKET_SIZE = 4 << 20  # numbers that are reduced at a time


class GradientReducer:
    """Sums gradients over the ranks.

    Args:
        parameters: what is trained, the same on every rank. Gradients of sharded parameters are
            reduced by FSDP and left alone.
        bucket_size: numbers that are reduced at a time.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], bucket_size: int = BUCKET_SIZE) -> None:
        self.parameters = [p for p in parameters if not isinstance(p, DTensor)]
        self.bucket_size = bucket_size
        self.used: dict[Hashable, list[nn.Parameter]] = {}
        self.computed: dict[Hashable, set[nn.Parameter]] = {}
        self.watched: set[nn.Parameter] | None = None
        self.exchange: _Exchange | None = None
        if distributed.world_size() > 1:
            for parameter in self.parameters:
                parameter.register_post_accumulate_grad_hook(self._on_gradient)

    @contextmanager
    def overlap(self, key: Hashable, own: Hashable) -> Iterator[None]:
        """Inside, the last backward pass of a step, gradients are sent as soon as they are ready.

        Args:
            key: as for ``reduce``, which must follow.
            own: what else decides which gradients this pass computes on this rank.
        """
        if key in self.used and (key, own) in self.computed:
            self.exchange = _Exchange(self._buckets(key), self.computed[key, own])
            yield
            return
        self.watched = set()
        yield
        self.computed[key, own] = self.watched
        self.watched = None

    def _on_gradient(self, parameter: nn.Parameter) -> None:
        if self.watched is not None:
            self.watched.add(parameter)
        if self.exchange is not None:
            self.exchange.complete(parameter)

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
        exchange = self.exchange or _Exchange(self._buckets(key), set())
        self.exchange = None
        exchange.finish()

    def _used_anywhere(self) -> list[nn.Parameter]:
        """The parameters with a gradient on some rank."""
        device = self.parameters[0].device
        here = torch.tensor([float(p.grad is not None) for p in self.parameters], device=device)
        anywhere = distributed.all_reduce_max(here).tolist()
        return [p for p, used in zip(self.parameters, anywhere, strict=True) if used]

    def _buckets(self, key: Hashable) -> list["_Bucket"]:
        """The parameters that are used, last ones first, as a backward pass reaches them.

        In buckets of at most ``bucket_size`` numbers where possible.
        """
        lists: list[list[nn.Parameter]] = []
        size = 0
        for parameter in reversed(self.used[key]):
            size += parameter.numel()
            if not lists or size > self.bucket_size:
                lists.append([])
                size = parameter.numel()
            lists[-1].append(parameter)
        return [_Bucket(parameters) for parameters in lists]


class _Bucket:
    """Gradients that are reduced together.

    Args:
        parameters: whose gradients.
    """

    def __init__(self, parameters: Sequence[nn.Parameter]) -> None:
        self.parameters = parameters
        self.views: list[Tensor] = []
        self.work: distributed.Work | None = None

    def send(self) -> None:
        """Begins to sum the gradients over the ranks; zeros where this one has none."""
        sizes = [p.numel() for p in self.parameters]
        flat = torch.empty(sum(sizes), device=self.parameters[0].device)
        for parameter, part in zip(self.parameters, flat.split(sizes), strict=True):
            # in the memory format of the parameter, which a fused optimizer takes for granted
            view = part.as_strided(parameter.shape, parameter.stride(), part.storage_offset())
            if parameter.grad is None:
                view.zero_()
            else:
                view.copy_(parameter.grad)
            self.views.append(view)
        self.work = distributed.begin_all_reduce_sum(flat)

    def receive(self) -> None:
        """Waits for the sums, which become the gradients."""
        assert self.work is not None
        self.work.wait()
        for parameter, view in zip(self.parameters, self.views, strict=True):
            parameter.grad = view


class _Exchange:
    """The exchange of a step: buckets are sent in their order, which is that of all ranks.

    Args:
        buckets: of all parameters that any rank uses.
        awaited: the parameters whose gradients are not complete yet.
    """

    def __init__(self, buckets: Sequence[_Bucket], awaited: Iterable[nn.Parameter]) -> None:
        self.buckets = buckets
        self.place = {p: index for index, bucket in enumerate(buckets) for p in bucket.parameters}
        self.missing = [0] * len(buckets)
        for parameter in awaited:
            self.missing[self.place[parameter]] += 1
        self.sent = 0
        self._send_complete()

    @torch.no_grad()
    def complete(self, parameter: nn.Parameter) -> None:
        """Takes note of a gradient that is complete."""
        index = self.place[parameter]
        assert index >= self.sent, "a gradient came after its bucket was sent"
        self.missing[index] -= 1
        self._send_complete()

    @torch.no_grad()
    def _send_complete(self) -> None:
        while self.sent < len(self.buckets) and self.missing[self.sent] == 0:
            self.buckets[self.sent].send()
            self.sent += 1

    def finish(self) -> None:
        """Sends what is left and waits for all sums."""
        for bucket in self.buckets[self.sent :]:
            bucket.send()
        for bucket in self.buckets:
            bucket.receive()


def part_norms(parts: Iterable[nn.Module]) -> Tensor:
    """The norm of the gradient of each part, ``[parts]``; 0 where there is none."""
    return torch.stack([_norm(part) for part in parts])


def _norm(part: nn.Module) -> Tensor:
    gradients = [p.grad for p in part.parameters() if p.grad is not None]
    zero = next(part.parameters()).new_zeros(())
    return whole(get_total_norm(gradients) if gradients else zero)
