"""Images from a trained model."""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from multistage_diffusion.conditions import Conditions
from multistage_diffusion.cost import check_sampling_memory
from multistage_diffusion.data.context import read_context
from multistage_diffusion.data.labels import normalised
from multistage_diffusion.data.sources.left_out import named
from multistage_diffusion.denoiser import Denoiser, NetworkDenoiser, set_compute_dtype
from multistage_diffusion.distributed import default_device
from multistage_diffusion.errors import BadInput
from multistage_diffusion.model import Model, ModelConfig, load_model, named_classes
from multistage_diffusion.run import find_model
from multistage_diffusion.sampling.boundaries import BlendedDenoiser
from multistage_diffusion.sampling.calls import guidance_of, sampling_grid
from multistage_diffusion.sampling.guidance import (
    AutoguidedDenoiser,
    GuidedDenoiser,
    weakened,
)
from multistage_diffusion.sampling.noise import noise
from multistage_diffusion.sampling.options import SampleOptions
from multistage_diffusion.sampling.reuse import ReusingDenoiser
from multistage_diffusion.sampling.solver import Callback, ignore
from multistage_diffusion.sampling.solvers import SOLVERS

__all__ = [
    "check_label",
    "context_of",
    "drawn_classes",
    "generate",
    "generate_batches",
    "labels_of",
]

CLASSES_NAMED = 10
PRECISIONS = {"float32": torch.float32, "bf16": torch.bfloat16}


def generate(
    model: Model,
    options: SampleOptions,
    indices: Sequence[int],
    device: torch.device | str = "cpu",
    callback: Callback = ignore,
) -> Tensor:
    """Draws the images with these indices: uint8 ``[len(indices), C, H, W]``, on the CPU.

    Those of a latent model are decoded. The callback is called in each step, see ``Solver``.

    Raises:
        BadInput: if the model does not have the label, or its autoencoder is missing.
    """
    # before inference mode, in which weights would become untrainable
    set_compute_dtype(model.denoiser.to(device), PRECISIONS[options.precision])
    conditions = Conditions(
        labels_of(model, options, indices), context=context_of(model, options, indices)
    ).to(device)
    grid = sampling_grid(model.config, options)
    drawn = partial(noise, options.seed, indices, model.config.shape)
    start = drawn().to(device) * float(grid[0])
    # autocast keeps the weights that it has cast until the outermost context ends
    with torch.inference_mode(), torch.autocast(start.device.type, enabled=False):
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
    device = default_device()
    largest = min(batch_size, len(indices)) * (2 if options.guidance else 1)
    check_sampling_memory(model.config, largest, device)
    for start in range(0, len(indices), batch_size):
        part = indices[start : start + batch_size]
        yield part, generate(model, options, part, device)


def _conditioned(model: Model, options: SampleOptions, conditions: Conditions) -> Denoiser:
    """The denoiser of samples with these conditions."""
    if options.reuse:
        return partial(ReusingDenoiser(model.denoiser, options.reuse), conditions=conditions)
    if options.weaker:
        weak = _weaker(model.denoiser, options.weaker)
        guidance = guidance_of(model.config, options)
        return AutoguidedDenoiser(model.denoiser, weak, guidance, conditions)
    blended = BlendedDenoiser(model.denoiser) if options.boundary == "blend" else model.denoiser
    guidance = guidance_of(model.config, options)
    if not conditions.tensors() or not guidance.weights:
        return partial(blended, conditions=conditions)
    return GuidedDenoiser(blended, conditions, guidance, model.denoiser.stages)


def _weaker(denoiser: NetworkDenoiser, path: Path) -> NetworkDenoiser:
    """The decoders of a weaker model behind a network's encoder, where and as that computes."""
    device = next(denoiser.parameters()).device
    weak = load_model(find_model(path)).denoiser.to(device)
    return weakened(denoiser, set_compute_dtype(weak, denoiser.dtype))


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
    """The context of each image, ``[len(indices), tokens, channels]``; None without a file.

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
