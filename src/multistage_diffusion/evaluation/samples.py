"""What is evaluated: generated images, and the real ones they are compared with."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import MISSING, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from multistage_diffusion.config import Settings, from_json, setting, to_json
from multistage_diffusion.cost import stage_costs, total_parameters
from multistage_diffusion.data import Images, ReadOptions, load
from multistage_diffusion.data.png import AS_PNG
from multistage_diffusion.data.sources.arrays import resized
from multistage_diffusion.errors import BadInput
from multistage_diffusion.files import read_json, write_json
from multistage_diffusion.latents.cost import decoding_macs
from multistage_diffusion.memory import check_memory
from multistage_diffusion.model import Model
from multistage_diffusion.run import Run
from multistage_diffusion.sampling import (
    SampleOptions,
    evaluations_per_stage,
    generate_batches,
    sampling_macs,
)

__all__ = [
    "append_results",
    "check_shapes",
    "describe_samples",
    "draw_images",
    "read_images",
    "read_results",
]

Batches = Iterable[tuple[Sequence[int], Tensor]]
Shape = tuple[int, int, int]


def read_images(folder: Path, count: int | None, real: Shape, reading: ReadOptions) -> Images:
    """The first images of a folder; all of them without a count.

    Args:
        folder: the folder; of ``sample``, it may hold ``000000.npy`` and so on.
        count: how many.
        real: channels, height and width of the real images.
        reading: how these were read. Size, fit and whether broken images are left out apply to
            the folder too.

    Returns:
        As many images as were asked for, of the shape of the real ones.

    Raises:
        BadInput: if they are too few, or of another shape than the real ones.
    """
    images = _as_channels(_read(folder, real, reading), real, folder)
    check_shapes(images.shape, real)
    wanted = len(images) if count is None else count
    if wanted > len(images):
        raise BadInput(
            f"{folder} holds {len(images)} images, fewer than the {wanted} asked for: lower "
            "--images, or draw more."
        )
    return images.at(torch.arange(wanted))


def _read(folder: Path, real: Shape, reading: ReadOptions) -> Images:
    arrays = sorted(folder.glob("[0-9]*.npy")) if real[0] not in AS_PNG else []
    if arrays:
        return _of_arrays(arrays, folder, reading)
    options = replace(
        ReadOptions(),
        size=reading.size,
        fit=reading.fit,
        skip_broken=reading.skip_broken,
        max_pixels=reading.max_pixels,
        max_value=reading.max_value,
        pages=reading.pages,
        transparency="keep" if real[0] == 4 else "white",
    )
    return load(folder, options)


def _of_arrays(paths: Sequence[Path], folder: Path, reading: ReadOptions) -> Images:
    """Images of a file each, brought to the size that is asked for."""
    stored = [Images(torch.from_numpy(_array(path))[None], source=str(path)) for path in paths]
    images = [resized(image, reading) for image in stored]
    for path, image in zip(paths, images, strict=True):
        if image.shape != images[0].shape:
            raise BadInput(
                f"{path} is {list(image.shape)} (channels, height, width), but {paths[0]} is "
                f"{list(images[0].shape)}: give --size H W to make all images equal."
            )
    changed = sum(image.resized for image in images)
    pixels = torch.cat([image.pixels[:] for image in images])
    return Images(pixels, source=str(folder), resized=changed)


def _array(path: Path) -> NDArray[np.uint8]:
    try:
        pixels = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise BadInput(f"Cannot read {path}: {error}.") from error
    if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8 or pixels.ndim != 3:
        raise BadInput(f"{path} holds no image, uint8 [C, H, W]; remove it.")
    return pixels


def _as_channels(images: Images, real: Shape, folder: Path) -> Images:
    """Grey images among coloured real ones as colour, and the other way round if nothing is lost.

    Raises:
        BadInput: if images are coloured and the real ones grey.
    """
    channels = images.shape[0]
    if (channels, real[0]) == (1, 3):
        note = (
            f"the {len(images)} generated images are grey, the real ones coloured: grey became RGB"
        )
        pixels = images.pixels[:].expand(-1, 3, -1, -1)
        return replace(images, pixels=pixels, notes=(*images.notes, note))
    if (channels, real[0]) == (3, 1):
        pixels = images.pixels[:]
        coloured = int((pixels != pixels[:, :1]).flatten(1).any(1).sum())
        if coloured:
            raise BadInput(
                f"{coloured} of the {len(images)} images of {folder} are coloured, and the real "
                "ones are grey: give data of the same kind."
            )
        note = f"the {len(images)} generated images are grey stored as RGB, the real ones grey"
        return replace(images, pixels=pixels[:, :1], notes=(*images.notes, note))
    return images


def draw_images(
    model: Model,
    options: SampleOptions,
    count: int,
    batch_size: int,
    progress: Callable[[Batches, int], Batches] = lambda batches, _: batches,
) -> Tensor:
    """Images drawn from a model, uint8 ``[count, C, H, W]``."""
    size = math.prod(model.config.shape)
    check_memory(2 * count * size, f"Comparing {count:,} images", "give fewer --images")
    batches = generate_batches(model, options, range(count), batch_size)
    return torch.cat([pixels for _, pixels in progress(batches, count)])


def check_shapes(generated: Shape, real: Shape) -> None:
    """Raises BadInput if generated images have another shape than real ones."""
    if generated != real:
        raise BadInput(
            f"The generated images are {'x'.join(map(str, generated))} (channels, height, width), "
            f"the real ones {'x'.join(map(str, real))}: give data of the same kind, or --size for "
            "both."
        )


def describe_samples(model: Model, options: SampleOptions) -> dict[str, Any]:
    """How images are drawn from a model and what that costs, as JSON.

    The multiply-accumulates of a sample include those that decode it.
    """
    config = model.config
    decoding = 0 if config.latents is None else decoding_macs(config.latents)
    cost = {
        "parameters": total_parameters(config),
        "stages": [to_json(stage) for stage in stage_costs(config)],
        "evaluations_per_stage": evaluations_per_stage(config, options),
        "macs": sampling_macs(config, options) + decoding,
        "decoding_macs": decoding,
    }
    return {"options": to_json(options), "trained_images": model.images, "cost": cost}


@dataclass(frozen=True, kw_only=True)
class Loss(Settings):
    """A loss and its 95 % interval."""

    value: float
    interval: tuple[float, float] | None = None


@dataclass(frozen=True, kw_only=True)
class ResultData(Settings):
    """The images that were compared with."""

    path: str
    images: int = setting(MISSING, at_least=0)


@dataclass(frozen=True, kw_only=True)
class Result(Loss):
    """The fields of a result that are read."""

    metric: str
    images: int = setting(MISSING, at_least=0)
    trained_images: int = setting(0, at_least=0)
    request: str = ""
    tag: str = ""
    samples: str
    """The run, model or folder that was measured."""
    data: ResultData
    stages: tuple[Loss, ...] = ()
    """Of the denoising loss."""


def read_results(path: Path) -> list[dict[str, Any]]:
    """The results in a JSON file; none if there is no file.

    Raises:
        BadInput: if the file holds something else.
    """
    results: Any = read_json(path) if path.exists() else []
    if not isinstance(results, list):
        raise BadInput(f"{path} is not a list of results; move or remove it.")
    for number, result in enumerate(results):
        from_json(Result, result, f"{path}, result {number}")
    return results


def results_of_run(run: Run) -> list[dict[str, Any]]:
    """What was measured on a run and on the samples in it.

    Raises:
        BadInput: if a file of results holds something else.
    """
    paths = (run.evaluations, Run(run.samples).evaluations)
    return [result for path in paths for result in read_results(path)]


def append_results(path: Path, results: Sequence[dict[str, Any]]) -> None:
    """Adds results to those in a JSON file, as ``read_results`` reads them."""
    write_json(path, [*read_results(path), *results])
