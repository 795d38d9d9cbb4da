"""``multistage sample``: images from a trained model."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import torch
import tyro
from torch import Tensor

from multistage_diffusion.cli.progress import show_progress
from multistage_diffusion.cli.terminal import print_line, print_settings
from multistage_diffusion.config import to_json
from multistage_diffusion.data.decoding import load_image
from multistage_diffusion.data.png import grid_image, save_png, to_image
from multistage_diffusion.errors import BadInput
from multistage_diffusion.files import read_json, write_json
from multistage_diffusion.model import Model, load_model
from multistage_diffusion.run import find_model
from multistage_diffusion.sampling.draw import (
    SampleOptions,
    check_label,
    evaluations_per_stage,
    generate,
)

__all__ = ["Sample", "batches", "sample_run"]

GRID_IMAGES = 100


@dataclass(frozen=True, kw_only=True)
class Sample:
    """Draw images from a trained model. The same command again completes an interrupted one."""

    run_folder: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Folder of a run, or a model file."""
    out: Path | None = None
    """Folder for the images 000000.png, 000001.png, ...; a grid of the first 100 goes beside it. Default: RUN/samples."""
    images: int = 64
    """Number of images."""
    batch_size: int = 64
    """Images at a time; changes the memory needed, not the images."""
    sampling: Annotated[SampleOptions, tyro.conf.OmitArgPrefixes] = field(
        default_factory=SampleOptions
    )
    dry_run: bool = False
    """Print the resolved settings and stop."""

    def run(self) -> None:
        file = find_model(self.run_folder)
        model = load_model(file)
        folder = self.run_folder.parent if self.run_folder.is_file() else self.run_folder
        out = self.out or folder / "samples"
        if self.dry_run:
            return print_settings(
                {
                    **to_json(self),
                    "out": str(out),
                    "model": str(file),
                    "trained_images": model.images,
                }
            )
        sample_run(model, self.sampling, self.images, self.batch_size, out)


def sample_run(
    model: Model, options: SampleOptions, images: int, batch_size: int, out: Path
) -> None:
    """Draws what is missing of ``images`` images in ``out``, and the grid beside it."""
    if images < 1 or batch_size < 1:
        raise BadInput(
            f"Give at least 1 image and a batch size of at least 1, not {images} and {batch_size}."
        )
    channels = model.config.shape[0]
    if channels not in (1, 3):
        raise BadInput(
            f"The images of this model have {channels} channels; PNG files are written for 1 (grey) and 3 (colour)."
        )
    check_label(model, options)
    grid = _claim_folder(model, options, out)
    missing = [i for i in range(images) if not _file(out, i).exists()]
    for indices, pixels in show_progress(
        batches(model, options, missing, batch_size), "images", len(missing), lambda b: len(b[0])
    ):
        for index, image in zip(indices, pixels, strict=True):
            save_png(_file(out, index), to_image(image))
    shown = torch.stack(
        [load_image(_file(out, index)) for index in range(min(images, GRID_IMAGES))]
    )
    save_png(grid, grid_image(shown, columns=10 if images >= GRID_IMAGES else 8))
    calls = ", ".join(map(str, evaluations_per_stage(model.config, options)))
    print_line(
        f"{images} images in {out}, a grid of them in {grid}; evaluations per image by stage: {calls}"
    )


def batches(
    model: Model, options: SampleOptions, indices: Sequence[int], batch_size: int
) -> Iterator[tuple[Sequence[int], Tensor]]:
    """Indices and images, a batch at a time."""
    device = torch.accelerator.current_accelerator() or "cpu"
    for start in range(0, len(indices), batch_size):
        part = indices[start : start + batch_size]
        yield part, generate(model, options, part, device)


def _file(out: Path, index: int) -> Path:
    return out / f"{index:06d}.png"


def _claim_folder(model: Model, options: SampleOptions, out: Path) -> Path:
    """Notes in ``out`` what its images are, or checks that they are the same; returns the path of the grid.

    Raises:
        BadInput: if the folder holds other files.
    """
    note, grid = out / "samples.json", out.with_name(out.name + ".png")
    identity = {
        "options": to_json(options),
        "trained_images": model.images,
        "config": {"model": to_json(model.config), **model.run},
    }
    if note.exists():
        if read_json(note) != identity:
            raise BadInput(
                f"{out} holds images of another model or other settings; choose another --out or remove it."
            )
    elif grid.exists() or (out.exists() and (not out.is_dir() or any(out.iterdir()))):
        raise BadInput(
            f"{grid if grid.exists() else out} exists and was not made by this command; choose another --out."
        )
    write_json(note, identity)
    return grid


COMMAND = Sample
