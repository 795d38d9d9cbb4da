"""A network's price beside that of its unified twin."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

import torch

from multistage_diffusion.config import replace_settings
from multistage_diffusion.cost import unified
from multistage_diffusion.planning.price import Price, price
from multistage_diffusion.planning.widths import propose_widths
from multistage_diffusion.training.config import RunConfig

__all__ = ["Comparison", "Total", "compare", "unified_run", "with_proposed_widths"]

TRAINING = "training"


@dataclass(frozen=True)
class Total:
    """A cost of both networks."""

    name: str
    ours: float
    unified: float
    unit: Literal["number", "bytes", "MACs", "seconds"]


@dataclass(frozen=True)
class Comparison:
    """The price of a run and of its unified twin."""

    config: RunConfig
    ours: Price
    twin: Price

    def totals(self) -> list[Total]:
        """All costs, times only if they were measured."""
        times = self._times() if self.ours.speed else ()
        return [*self._sizes(), *self._macs(), *times]

    def _sizes(self) -> Iterator[Total]:
        ours = self.ours.parameters
        twin = self.twin.parameters
        batch = self.config.training.batch_size
        yield Total("parameters", ours, twin, "number")
        for name, size in (("weights", 4), ("gradients", 4), ("Adam's moments", 8)):
            yield Total(name, size * ours, size * twin, "bytes")
        yield Total("averaged weights", 4 * ours, 4 * twin, "bytes")
        activations = f"activations, batch of {batch}"
        yield Total(
            activations, batch * self.ours.image_bytes, batch * self.twin.image_bytes, "bytes"
        )

    def _macs(self) -> Iterator[Total]:
        yield Total(
            "MACs for a training image", self.ours.training_macs, self.twin.training_macs, "MACs"
        )
        for solver in self.ours.kinds:
            calls = sum(self.ours.evaluations[solver])
            name = f"MACs for a sample, {solver}, {calls} evaluations"
            ours = self.ours.sample_macs(solver)
            yield Total(name, ours, self.twin.sample_macs(solver), "MACs")

    def _times(self) -> Iterator[Total]:
        training = self.config.training
        ours = self.ours.training_seconds(training.batch_size)
        twin = self.twin.training_seconds(training.batch_size)
        images = training.images
        yield Total("time for a training image", ours, twin, "seconds")
        run = f"time for the run of {images:,} images"
        yield Total(run, images * ours, images * twin, "seconds")
        for solver in self.ours.kinds:
            name = f"time for a sample, {solver}"
            seconds = self.ours.sample_seconds(solver)
            yield Total(name, seconds, self.twin.sample_seconds(solver), "seconds")


def compare(
    config: RunConfig, steps: int, measure: bool, device: torch.device | str = "cpu"
) -> Comparison:
    """Prices a run and its unified twin; the arguments are those of ``price``."""
    ours = price(config, steps, measure, device)
    twin = price(unified_run(config), steps, measure, device)
    return Comparison(config, ours, twin)


def unified_run(config: RunConfig) -> RunConfig:
    """The run of the unified network, with the same density of noise levels."""
    training = replace_settings(config.training, share_boundaries=config.model.boundaries)
    return replace(config, model=unified(config.model), training=training)


def with_proposed_widths(
    config: RunConfig, ratio: float, steps: int, budget_for: str = TRAINING
) -> RunConfig:
    """A run whose decoder widths meet a budget.

    Args:
        config: the run.
        ratio: the largest cost, as a multiple of the unified network's.
        steps: steps of the solver.
        budget_for: ``training``, or the solver whose samples the budget is for.

    Raises:
        BadInput: if no widths meet the budget.
    """
    now = price(config, steps, measure=False)
    calls = now.share if budget_for == TRAINING else now.evaluations[budget_for]
    share = [count / sum(calls) for count in calls]
    widths = propose_widths(config.model, share, ratio)
    return replace(config, model=replace_settings(config.model, decoder_widths=widths))
