"""Which samples of a batch each rank computes, and in which micro-batches.

Samples cost as much as their stage. Parts are nearly equal in cost, and since the samples of each
stage are spread over all of them, in memory too. The draws do not depend on it.
"""

import heapq
from collections.abc import Sequence

import torch
from torch import Tensor

from multistage_diffusion.errors import BadInput
from multistage_diffusion.training.batches.levels import Levels
from multistage_diffusion.training.config import RunConfig
from multistage_diffusion.training.randomness import Stream, generator

__all__ = ["balance", "check_sharing", "expected_balance", "share_out"]

DRAWN = 16  # batches whose balance is averaged


def share_out(costs: Tensor, world_size: int, accumulate: int) -> list[list[Tensor]]:
    """Shares the samples of a batch out.

    Args:
        costs: of each sample, ``[B]``.
        world_size: number of ranks.
        accumulate: micro-batches of each rank.

    Returns:
        The samples, int64 in increasing order, by rank and micro-batch.
    """
    everything = torch.arange(len(costs))
    ranks = _equal_parts(everything, costs, world_size)
    return [_equal_parts(part, costs, accumulate) for part in ranks]


def _equal_parts(samples: Tensor, costs: Tensor, count: int) -> list[Tensor]:
    """Parts of nearly equal cost: the most expensive sample left goes to the cheapest part.

    Graham 1969, longest processing time first.
    """
    if count == 1:
        return [samples]
    order = costs[samples].argsort(descending=True, stable=True)
    parts: list[list[int]] = [[] for _ in range(count)]
    loads = [(0.0, part) for part in range(count)]
    for sample in samples[order].tolist():
        load, part = loads[0]
        heapq.heapreplace(loads, (load + float(costs[sample]), part))
        parts[part].append(sample)
    return [torch.tensor(sorted(part), dtype=torch.int64) for part in parts]


def check_sharing(batch: int, world_size: int, accumulate: int) -> None:
    """Raises BadInput if there are fewer samples than micro-batches."""
    if batch < world_size * accumulate:
        raise BadInput(
            f"Batches of {batch} images are too small for {world_size} processes and {accumulate} "
            "parts in each: give a larger --batch-size."
        )


def balance(costs: Tensor, parts: Sequence[Tensor]) -> float:
    """The mean cost of parts over that of the most expensive one: 1 if they are equal."""
    sums = torch.stack([costs[part].sum() for part in parts])
    return float(sums.mean() / sums.max())


def expected_balance(config: RunConfig, stage_costs: Sequence[float], world_size: int) -> float:
    """The mean balance of the ranks over some batches of a run.

    Args:
        config: the run.
        stage_costs: of a sample in each stage.
        world_size: number of ranks.

    Raises:
        BadInput: if there are fewer samples in a batch than ranks.
    """
    batch = config.training.batch_size
    check_sharing(batch, world_size, 1)
    levels = Levels.of(config)
    by_stage = torch.tensor(stage_costs, dtype=torch.float64)
    found = []
    for number in range(DRAWN):
        source = generator(config.training.seed, Stream.STEP, number * batch)
        costs = by_stage[config.model.stages.index(levels.draw(batch, source))]
        ranks = [part for (part,) in share_out(costs, world_size, 1)]
        found.append(balance(costs, ranks))
    return sum(found) / DRAWN
