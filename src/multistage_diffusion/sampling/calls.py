"""Where a solver evaluates the network for an image, and what that costs."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from multistage_diffusion.cost import reused_macs, stage_costs
from multistage_diffusion.errors import BadInput
from multistage_diffusion.model import ModelConfig, load_model
from multistage_diffusion.run import find_model
from multistage_diffusion.sampling.boundaries import BLEND, blend_weight, shifted, snapped
from multistage_diffusion.sampling.grids import GRIDS
from multistage_diffusion.sampling.guidance import Guidance
from multistage_diffusion.sampling.options import SampleOptions
from multistage_diffusion.sampling.solvers import SOLVERS
from multistage_diffusion.stages import Stages

__all__ = ["evaluations_per_stage", "guidance_of", "sampling_grid", "sampling_macs"]


def sampling_grid(config: ModelConfig, options: SampleOptions) -> Tensor:
    """The noise levels that a solver visits, decreasing to 0: float64 ``[steps + 1]``."""
    options = options.with_levels_of_file()
    if options.levels:
        return torch.tensor([*options.levels, 0.0], dtype=torch.float64)
    ends = _ends(config, options)
    grid = GRIDS[str(options.grid)].levels(options.steps, config.density, ends)
    return snapped(grid, config.stages) if options.boundary == "snap" else grid


def _ends(config: ModelConfig, options: SampleOptions) -> tuple[float, float]:
    """The smallest and the largest noise level of a grid."""
    low, high = config.density.sampling_range
    low = low if options.sigma_min is None else options.sigma_min
    high = high if options.sigma_max is None else options.sigma_max
    if not 0 < low < high < math.inf:
        raise BadInput(f"--sigma-min must be above 0 and below --sigma-max, not {low} and {high}.")
    return low, high


def guidance_of(config: ModelConfig, options: SampleOptions) -> Guidance:
    """The guidance that options ask for.

    Raises:
        BadInput: if the model cannot be guided, or there is not a weight for each stage.
    """
    weights = options.guidance
    stages = len(config.boundaries) + 1
    conditional = config.classes or config.network.context_channels
    droppable = conditional and config.network.label_dropout
    if weights and not (options.weaker or droppable):
        raise BadInput(
            "Guidance needs a conditional model that was trained with --label-dropout, or --weaker."
        )
    if weights and len(weights) not in (1, stages):
        raise BadInput(f"--guidance takes 1 weight or {stages}, one for each stage.")
    return Guidance(weights, options.guidance_range)


def evaluations_per_stage(config: ModelConfig, options: SampleOptions) -> list[int]:
    """How often a solver evaluates the network for one image, by the stage of the noise level.

    Classifier-free guidance and blending evaluate twice where they are applied. An evaluation with
    reused features counts, a weaker model's decoder does not.

    The steps of an adaptive solver are those for Gaussian data of the same standard deviation.
    """
    sigma = _visited(config, options)
    number = torch.ones_like(sigma, dtype=torch.long)
    if not options.weaker:
        number += _guided(config, options, sigma)
    if options.boundary != "blend":
        return _counts(config.stages, sigma, number)
    blended = number * (blend_weight(sigma, config.stages) > 0)
    below = _counts(shifted(config.stages), sigma, number)
    above = _counts(shifted(config.stages, 1 / BLEND), sigma, blended)
    return [sum(calls) for calls in zip(below, above, strict=True)]


def _counts(stages: Stages, sigma: Tensor, number: Tensor) -> list[int]:
    """Sums of numbers by the stage of their noise level."""
    total = torch.zeros(len(stages), dtype=torch.long).index_add(0, stages.index(sigma), number)
    counts: list[int] = total.tolist()
    return counts


def sampling_macs(config: ModelConfig, options: SampleOptions) -> int:
    """Multiply-accumulates of all evaluations for one image, see ``evaluations_per_stage``."""
    whole = [cost.macs for cost in stage_costs(config)]
    calls = evaluations_per_stage(config, options)
    total = sum(count * macs for count, macs in zip(calls, whole, strict=True))
    if options.reuse:
        decoder = reused_macs(config)
        total -= sum(whole[k] - decoder[k] for k in _reused_stages(config, options))
    return total + (_weaker_macs(config, options) if options.weaker else 0)


def _visited(config: ModelConfig, options: SampleOptions) -> Tensor:
    """The noise levels at which a solver evaluates the denoiser, in turn: float64."""
    levels: list[float] = []

    def gaussian(x: Tensor, sigma: Tensor | float) -> Tensor:
        levels.append(float(sigma))
        return x / (1 + (levels[-1] / config.sigma_data) ** 2)

    grid = sampling_grid(config, options)
    start = torch.full((1, 1, 1, 1), float(grid[0]))
    SOLVERS[options.solver](gaussian, start, grid, noise=lambda _: start * 0, **options.settings)
    return torch.tensor(levels, dtype=torch.float64)


def _guided(config: ModelConfig, options: SampleOptions, sigma: Tensor) -> Tensor:
    """Whether guidance is applied at each level: int64, 0 or 1."""
    return (guidance_of(config, options).at(sigma, config.stages) != 1).long()


def _reused_stages(config: ModelConfig, options: SampleOptions) -> Iterator[int]:
    """The stage of each evaluation with the features of an earlier one."""
    sigma, before = _visited(config, options), -1
    for level, stage in zip(sigma.tolist(), config.stages.index(sigma).tolist(), strict=True):
        if stage == before and level in options.reuse:
            yield stage
        before = stage


def _weaker_macs(config: ModelConfig, options: SampleOptions) -> int:
    """Multiply-accumulates of the weaker model's decoders for one image."""
    assert options.weaker
    sigma = _visited(config, options)
    decoder = torch.tensor(reused_macs(load_model(find_model(options.weaker)).config))
    return int((decoder[config.stages.index(sigma)] * _guided(config, options, sigma)).sum())
