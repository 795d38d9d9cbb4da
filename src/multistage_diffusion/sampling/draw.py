"""Images from a trained model."""

import math
from collections.abc import Iterator, Sequence
from functools import partial

import torch
from torch import Tensor

from multistage_diffusion.conditions import Conditions
from multistage_diffusion.cost import check_sampling_memory
from multistage_diffusion.data.context import read_context
from multistage_diffusion.data.labels import normalised
from multistage_diffusion.data.sources.left_out import named
from multistage_diffusion.denoiser import Denoiser, set_compute_dtype
from multistage_diffusion.errors import BadInput
from multistage_diffusion.model import Model, ModelConfig, named_classes
from multistage_diffusion.sampling.boundaries import (
    BlendedDenoiser,
    blend_weight,
    snapped,
)
from multistage_diffusion.sampling.grids import GRIDS
from multistage_diffusion.sampling.guidance import Guidance, GuidedDenoiser
from multistage_diffusion.sampling.noise import noise
from multistage_diffusion.sampling.options import SampleOptions
from multistage_diffusion.sampling.reuse import ReusingDenoiser
from multistage_diffusion.sampling.solver import Callback, ignore
from multistage_diffusion.sampling.solvers import SOLVERS
from multistage_diffusion.stages import Stages

__all__ = [
    "check_label",
    "context_of",
    "drawn_classes",
    "evaluations_per_stage",
    "generate",
    "generate_batches",
    "labels_of",
    "sampling_grid",
]

CLASSES_NAMED = 10
PRECISIONS = {"float32": torch.float32, "bf16": torch.bfloat16}


def sampling_grid(config: ModelConfig, options: SampleOptions) -> Tensor:
    """The noise levels that a solver visits, decreasing to 0: float64 ``[steps + 1]``."""
    options = options.with_levels_of_file()
    if options.levels:
        return torch.tensor([*options.levels, 0.0], dtype=torch.float64)
    ends = _ends(config, options)
    grid = GRIDS[str(options.grid)].levels(options.steps, config.density, ends)
    return snapped(grid, Stages(config.boundaries)) if options.boundary == "snap" else grid


def _ends(config: ModelConfig, options: SampleOptions) -> tuple[float, float]:
    """The smallest and the largest noise level of a grid."""
    low, high = config.density.sampling_range
    low = low if options.sigma_min is None else options.sigma_min
    high = high if options.sigma_max is None else options.sigma_max
    if not 0 < low < high < math.inf:
        raise BadInput(f"--sigma-min must be above 0 and below --sigma-max, not {low} and {high}.")
    return low, high


def generate(
    model: Model,
    options: SampleOptions,
    indices: Sequence[int],
    device: torch.device | str = "cpu",
    callback: Callback = ignore,
) -> Tensor:
    """Draws the images with these indices: uint8 ``[len(indices), C, H, W]``, on the CPU.

    Those of a latent model are decoded. The callback is told of each step, as in ``Solver``.

    Raises:
        BadInput: if the model does not have the label, or its autoencoder is not there any more.
    """
    # before inference mode, in which weights would become untrainable
    set_compute_dtype(model.denoiser.to(device), PRECISIONS[options.precision])
    conditions = Conditions(
        labels_of(model, options, indices), context=context_of(model, options, indices)
    ).to(device)
    grid = sampling_grid(model.config, options)
    drawn = partial(noise, options.seed, indices, model.config.shape)
    start = drawn().to(device) * float(grid[0])
    with torch.inference_mode():
        images = SOLVERS[options.solver](
            _conditioned(model, options, conditions),
            start,
            grid,
            noise=lambda draw: drawn(draw=draw),
            callback=callback,
            restart_at=model.config.boundaries if options.boundary == "restart" else (),
            **options.settings,
        )
        return model.config.space.decode(images).cpu()


def generate_batches(
    model: Model, options: SampleOptions, indices: Sequence[int], batch_size: int
) -> Iterator[tuple[Sequence[int], Tensor]]:
    """Draws images a batch at a time, on the accelerator if there is one.

    Yields:
        Indices, and their images as ``generate`` returns them.
    """
    device = torch.accelerator.current_accelerator() or "cpu"
    largest = min(batch_size, len(indices)) * (2 if options.guidance else 1)
    check_sampling_memory(model.config, largest, device)
    for start in range(0, len(indices), batch_size):
        part = indices[start : start + batch_size]
        yield part, generate(model, options, part, device)


def _conditioned(model: Model, options: SampleOptions, conditions: Conditions) -> Denoiser:
    """The denoiser of samples with these conditions."""
    if options.reuse:
        return partial(ReusingDenoiser(model.denoiser, options.reuse), conditions=conditions)
    blended = BlendedDenoiser(model.denoiser) if options.boundary == "blend" else model.denoiser
    guidance = guidance_of(model.config, options)
    if not conditions.tensors() or not guidance.weights:
        return partial(blended, conditions=conditions)
    return GuidedDenoiser(blended, conditions, guidance, model.denoiser.stages)


def guidance_of(config: ModelConfig, options: SampleOptions) -> Guidance:
    """The guidance that options ask for.

    Raises:
        BadInput: if the model cannot be guided, or there is not a weight for each stage.
    """
    weights = options.guidance
    stages = len(config.boundaries) + 1
    conditional = config.classes or config.network.context_channels
    if weights and not (conditional and config.network.label_dropout):
        raise BadInput("Guidance needs a conditional model that was trained with --label-dropout.")
    if weights and len(weights) not in (1, stages):
        raise BadInput(f"--guidance takes 1 weight or {stages}, one for each stage.")
    return Guidance(weights, options.guidance_range)


def check_label(model: Model, options: SampleOptions) -> None:
    """Raises BadInput if the model does not have a label that is asked for."""
    drawn_classes(model.config, options)


def drawn_classes(config: ModelConfig, options: SampleOptions) -> list[int]:
    """The classes that take turns, as the network counts them; none of an unconditional model.

    Raises:
        BadInput: if the model does not have one that is asked for.
    """
    wanted = options.turns if options.label is None else (options.label,)
    return [_class(config, label) for label in wanted] or list(range(config.classes))


def _class(config: ModelConfig, label: str | int) -> int:
    """The class of a name, or else of a number."""
    known = named_classes(config)
    text = normalised(str(label))
    names = [name for _, name in known]
    numbers = [str(number) for number, _ in known]
    if text in names:
        return names.index(text)
    if text in numbers:
        return numbers.index(text)
    raise BadInput(f"There is no class {label}: the model {_about_classes(config)}.")


def _about_classes(config: ModelConfig) -> str:
    known = [
        name if name == str(number) else f"{number} {name}"
        for number, name in named_classes(config)
    ]
    if not known:
        return "is unconditional"
    if not config.class_names:
        return f"has the classes 0 to {len(known) - 1}"
    return f"has the classes {named(known, CLASSES_NAMED)} (sample --label-names lists all)"


def labels_of(model: Model, options: SampleOptions, indices: Sequence[int]) -> Tensor | None:
    """The label of each image, int64 ``[len(indices)]``; None for an unconditional model."""
    turns = drawn_classes(model.config, options)
    return torch.tensor([turns[index % len(turns)] for index in indices]) if turns else None


def context_of(model: Model, options: SampleOptions, indices: Sequence[int]) -> Tensor | None:
    """What the network attends to for each image, ``[len(indices), tokens, channels]``.

    Raises:
        BadInput: if the model takes none, or contexts of other channels.
    """
    if options.context is None:
        return None
    context, channels = read_context(options.context), model.config.network.context_channels
    if context.shape[2] != channels:
        takes = f"of {channels} channels" if channels else "none"
        raise BadInput(
            f"{options.context} holds contexts of {context.shape[2]} channels; the model takes "
            f"{takes}."
        )
    return context[[index % len(context) for index in indices]].float()


def evaluations_per_stage(config: ModelConfig, options: SampleOptions) -> list[int]:
    """How often a solver evaluates the network for one image, by the stage of the noise level.

    Guidance and blending evaluate twice where they act.

    Of an adaptive solver: for data from a Gaussian of the same standard deviation.
    """
    levels: list[float] = []

    def gaussian(x: Tensor, sigma: Tensor | float) -> Tensor:
        levels.append(float(sigma))
        return x / (1 + (levels[-1] / config.sigma_data) ** 2)

    grid = sampling_grid(config, options)
    start = torch.full((1, 1, 1, 1), float(grid[0]))
    SOLVERS[options.solver](gaussian, start, grid, noise=lambda _: start * 0, **options.settings)
    stages = Stages(config.boundaries)
    sigma = torch.tensor(levels, dtype=torch.float64)
    number = 1 + (guidance_of(config, options).at(sigma, stages) != 1).long()
    if options.boundary == "blend":
        number = number * (1 + (blend_weight(sigma, stages) > 0).long())
    counts = torch.zeros(len(stages), dtype=torch.long).index_add(0, stages.index(sigma), number)
    total: list[int] = counts.tolist()
    return total
