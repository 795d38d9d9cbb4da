"""The price of a run before it begins.

Multiply-accumulates, bytes and, measured for a few seconds, time.
"""

from dataclasses import dataclass, replace

import torch

from multistage_diffusion.cost import (
    StageCost,
    activation_bytes,
    mean_training_macs,
    stage_costs,
    total_parameters,
)
from multistage_diffusion.model import ModelConfig
from multistage_diffusion.planning.speed import Speed, measure_speed
from multistage_diffusion.sampling.calls import evaluations_per_stage
from multistage_diffusion.sampling.options import SampleOptions
from multistage_diffusion.sampling.solvers import SOLVERS, SolverName
from multistage_diffusion.training.batches.levels import stage_shares
from multistage_diffusion.training.config import RunConfig
from multistage_diffusion.training.precision import dtype_of

__all__ = ["Price", "price"]


@dataclass(frozen=True)
class Price:
    """The cost of a network, of its training and of its samples."""

    costs: list[StageCost]
    """Of each stage."""
    share: list[float]
    """Share of each stage in the training images."""
    evaluations: dict[str, list[int]]
    """Evaluations of each stage for one sample, by solver; without adaptive ones."""
    parameters: int
    """Of the whole network."""
    activations: list[int]
    """Bytes that one training image of each stage keeps for the backward pass, in the run's number
    format."""
    speed: Speed | None
    """Measured on this machine, if so asked for."""

    @property
    def kinds(self) -> list[SolverName]:
        """The solvers that differ in their evaluations, the first of each kind."""
        first: dict[tuple[int, ...], SolverName] = {}
        for name, counts in self.evaluations.items():
            first.setdefault(tuple(counts), name)
        return list(first.values())

    @property
    def training_macs(self) -> float:
        """Multiply-accumulates for one training image, forward and backward.

        Averaged over the stages.
        """
        return mean_training_macs(self.costs, self.share)

    @property
    def image_bytes(self) -> float:
        """Activation bytes for one training image, averaged over the stages."""
        return sum(share * size for share, size in zip(self.share, self.activations, strict=True))

    def sample_macs(self, solver: SolverName) -> int:
        """Multiply-accumulates for one sample."""
        return sum(
            calls * cost.macs
            for calls, cost in zip(self.evaluations[solver], self.costs, strict=True)
        )

    def training_seconds(self, batch_size: int) -> float:
        """Seconds for one training image, with its part of the optimiser's step."""
        assert self.speed is not None, "the speed was not measured"
        seconds = sum(
            share * time for share, time in zip(self.share, self.speed.training, strict=True)
        )
        return seconds + self.speed.step / batch_size

    def sample_seconds(self, solver: SolverName) -> float:
        """Seconds for one sample."""
        assert self.speed is not None, "the speed was not measured"
        return sum(
            calls * time
            for calls, time in zip(self.evaluations[solver], self.speed.sampling, strict=True)
        )


def price(
    config: RunConfig, steps: int, measure: bool, device: torch.device | str = "cpu"
) -> Price:
    """The price of a run.

    Args:
        config: the run.
        steps: steps of every solver.
        measure: whether to build the network and measure its speed, which takes seconds.
        device: where to measure.
    """
    stages = range(len(config.model.boundaries) + 1)
    dtype = dtype_of(config.training.precision)
    options = SampleOptions(steps=steps)
    return Price(
        costs=stage_costs(config.model),
        share=list(stage_shares(config)),
        evaluations=_evaluations(config.model, options),
        parameters=total_parameters(config.model),
        activations=[activation_bytes(config.model, stage, dtype) for stage in stages],
        speed=measure_speed(config, device) if measure else None,
    )


def _evaluations(config: ModelConfig, options: SampleOptions) -> dict[SolverName, list[int]]:
    fixed = (name for name, entry in SOLVERS.items() if not entry.adaptive)
    return {name: evaluations_per_stage(config, replace(options, solver=name)) for name in fixed}
