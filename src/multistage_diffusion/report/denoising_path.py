"""The path of one sample from noise to an image, step by step."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from multistage_diffusion.data.png import shown_bands
from multistage_diffusion.errors import BadInput
from multistage_diffusion.model import Model, ModelConfig, load_model
from multistage_diffusion.report.colours import stage_look
from multistage_diffusion.report.pictures import data_url, thumbnail
from multistage_diffusion.run import Run, find_model
from multistage_diffusion.sampling import SampleOptions, evaluations_per_stage, generate
from multistage_diffusion.stages import Stages

__all__ = ["DenoisingPath", "PathStep", "denoising_path"]

OPTIONS = SampleOptions(solver="dpmpp-2m", steps=12)
MOST_MACS = 5e11
"""What a path may cost: some seconds of a processor core."""


@dataclass(frozen=True)
class PathStep:
    """A state on the path."""

    sigma: float
    stage: int
    look: str
    noisy: str
    """The state, divided by its standard deviation."""
    denoised: str
    """The denoised image."""


@dataclass(frozen=True)
class DenoisingPath:
    """The steps of a sample, or why there are none."""

    steps: Sequence[PathStep] = ()
    problem: str = ""


def denoising_path(run: Run, config: ModelConfig, macs: Sequence[int]) -> DenoisingPath:
    """The path of a run's first sample, in few steps.

    Args:
        run: holds the model.
        config: of the model.
        macs: multiply-accumulates of an evaluation in each stage.
    """
    calls = evaluations_per_stage(config, OPTIONS)
    price = sum(cost * number for cost, number in zip(macs, calls, strict=True))
    if price > MOST_MACS:
        return DenoisingPath(problem=f"It would take {price / 1e9:,.0f} G multiply-accumulates.")
    try:
        if not config.space.decodes_to_pixels:
            return DenoisingPath(problem="The network draws latents, not images.")
        return DenoisingPath(_steps(load_model(find_model(run.path))))
    except (BadInput, OSError) as error:
        return DenoisingPath(problem=str(error))


def _steps(model: Model) -> list[PathStep]:
    found = list[tuple[float, Tensor, Tensor]]()
    generate(model, OPTIONS, [0], callback=lambda _, sigma, *both: found.append((sigma, *both)))
    return [_step(model.config, *one) for one in found]


def _step(config: ModelConfig, sigma: float, state: Tensor, denoised: Tensor) -> PathStep:
    stage = int(Stages(config.boundaries).index(torch.tensor(sigma, dtype=torch.float64)))
    scaled = state / (1 + (sigma / config.sigma_data) ** 2) ** 0.5
    noisy, clean = (_url(config, values) for values in (scaled, denoised))
    return PathStep(sigma, stage + 1, stage_look(stage), noisy, clean)


def _url(config: ModelConfig, values: Tensor) -> str:
    return data_url(thumbnail(shown_bands(config.space.decode(values)[0].cpu())))
