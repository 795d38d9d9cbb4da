"""A folder of samples: 000000.png, 000001.png, ..., a note of what they are, and a grid beside it.

Images with other numbers of channels than PNG files hold are ``000000.npy``, uint8 ``[C, H, W]``,
and the PNG files are previews of some channels.

The same request completes an interrupted one; another one is refused.
"""

import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import MISSING, dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from multistage_diffusion import distributed
from multistage_diffusion.config import Settings, from_json, read_config, setting, to_json
from multistage_diffusion.data.decoding import load_image
from multistage_diffusion.data.png import (
    AS_PNG,
    check_bands,
    grid_image,
    save_png,
    shown_bands,
    to_image,
)
from multistage_diffusion.errors import BadInput
from multistage_diffusion.files import write_atomically, write_json
from multistage_diffusion.model import Model, ModelConfig
from multistage_diffusion.run import claim
from multistage_diffusion.sampling.calls import evaluations_per_stage
from multistage_diffusion.sampling.draw import check_label, generate_batches
from multistage_diffusion.sampling.options import SampleOptions

__all__ = ["SampleFolder", "SampleNote", "draw_samples"]

Batches = Iterable[tuple[Sequence[int], Tensor]]
NOTE = "samples.json"
GRID_IMAGES = 100


@dataclass(frozen=True, kw_only=True)
class SampleNote(Settings):
    """The model and the settings of the samples in a folder."""

    options: dict[str, Any]
    """How they were drawn."""
    trained_images: int = setting(MISSING, at_least=0)
    """Images that the model had seen."""
    config: dict[str, Any]
    """Of the model's run."""


@dataclass(frozen=True)
class SampleFolder:
    """The files of a folder of samples."""

    path: Path
    channels: int = 3
    """Of the images."""
    bands: tuple[int, ...] = ()
    """Which of them previews show, where PNG files do not hold all: see ``shown_bands``."""

    @property
    def note(self) -> Path:
        """What the samples are: model and settings."""
        return self.path / NOTE

    @property
    def grid(self) -> Path:
        """The first samples as one picture, beside the folder."""
        named = self.path.name not in ("", "..")
        path = self.path if named else Path(os.path.abspath(self.path))  # noqa: PTH100  (keeps links)
        return path.with_name(f"{path.name}.png")

    def image(self, index: int) -> Path:
        """The file of a sample."""
        return self.path / _file_name(index)

    def array(self, index: int) -> Path:
        """The file of all channels of a sample, if a PNG file does not hold them."""
        return self.path / f"{index:06d}.npy"

    def missing(self, count: int) -> list[int]:
        """The indices of the first ``count`` samples that are not there."""
        found = {path.name for path in self.path.iterdir()} if self.path.is_dir() else set[str]()
        return [index for index in range(count) if _file_name(index) not in found]

    def check(self, identity: dict[str, Any]) -> None:
        """Checks that the folder is free or holds samples of the same kind.

        Raises:
            BadInput: if the folder holds other files.
        """
        if not self.note.exists():
            claim(self.path, "was not made by this command", folder=True)
            claim(self.grid, "was not made by this command")
        elif _completed(read_config(SampleNote, self.note)) != identity:
            raise BadInput(
                f"{self.path} holds images of another model or other settings; choose another "
                "--out or remove it."
            )

    def write(self, indices: Sequence[int], pixels: Tensor) -> None:
        """Writes samples, uint8 ``[n, C, H, W]``."""
        for index, image in zip(indices, pixels, strict=True):
            if self.channels in AS_PNG:
                save_png(self.image(index), to_image(image))
            else:
                _save_array(self.array(index), image)
                save_png(self.image(index), to_image(shown_bands(image, self.bands)))

    def write_grid(self, count: int) -> None:
        """Draws the grid of the first ``count`` samples, or of fewer."""
        shown = range(min(count, GRID_IMAGES))
        alpha = self.channels == 4
        pixels = torch.stack([load_image(self.image(index), alpha) for index in shown])
        save_png(self.grid, grid_image(pixels, columns=10 if count >= GRID_IMAGES else 8))


def _file_name(index: int) -> str:
    return f"{index:06d}.png"


def draw_samples(
    model: Model,
    options: SampleOptions,
    images: int,
    batch_size: int,
    out: Path,
    progress: Callable[[Batches, int], Batches] = lambda batches, _: batches,
    bands: tuple[int, ...] = (),
) -> SampleFolder:
    """Draws what is missing of a number of images in a folder, and their grid.

    Several processes share the images; each is a function of the seed and its index. Files are
    written while the next images are computed.

    Args:
        model: the model.
        options: how images are drawn.
        images: how many.
        batch_size: how many at a time.
        out: the folder.
        progress: passes batches through and may show progress; it is also given the number of
            images.
        bands: channels that previews show, for images that PNG files do not hold.

    Raises:
        BadInput: if the folder holds something else, or the request cannot be met.
    """
    options = options.with_levels_of_file()
    _check(model, options, images, batch_size)
    if not out.resolve().name:
        raise BadInput(f"{out} is no folder for samples; choose another --out.")
    channels = model.config.image_shape[0]
    check_bands(channels, bands)
    folder = SampleFolder(out, channels, bands)
    identity = _identity(model, options)
    folder.check(identity)
    missing = folder.missing(images)
    distributed.barrier()
    if distributed.is_main_process():
        write_json(folder.note, identity)
    own = missing[distributed.rank() :: distributed.world_size()]
    batches = generate_batches(model, options, own, batch_size)
    _write_behind(folder, progress(batches, len(own)))
    distributed.barrier()
    if distributed.is_main_process():
        folder.write_grid(images)
    return folder


def _write_behind(folder: SampleFolder, batches: Batches) -> None:
    """Writes each batch while the next one is computed."""
    with ThreadPoolExecutor(max_workers=1) as writer:
        pending: Future[None] | None = None
        for indices, pixels in batches:
            if pending is not None:
                pending.result()
            pending = writer.submit(folder.write, indices, pixels)
        if pending is not None:
            pending.result()


def _check(model: Model, options: SampleOptions, images: int, batch_size: int) -> None:
    if images < 1 or batch_size < 1:
        raise BadInput(
            f"Give at least 1 image and a batch size of at least 1, not {images} and {batch_size}."
        )
    check_label(model, options)
    evaluations_per_stage(model.config, options)  # raises an error for options that do not fit


def _completed(note: SampleNote) -> dict[str, Any]:
    """A note as JSON; one of an earlier version gets the settings that it did not have yet."""
    model = to_json(from_json(ModelConfig, note.config.get("model"), NOTE))
    options = {**to_json(SampleOptions()), **note.options}
    return {**to_json(note), "options": options, "config": {**note.config, "model": model}}


def _save_array(path: Path, pixels: Tensor) -> None:
    content = BytesIO()
    np.save(content, pixels.numpy())
    write_atomically(path, content.getvalue())


def _identity(model: Model, options: SampleOptions) -> dict[str, Any]:
    """Everything that determines the samples, as JSON."""
    config = {"model": to_json(model.config), **model.run}
    return {"options": to_json(options), "trained_images": model.images, "config": config}
