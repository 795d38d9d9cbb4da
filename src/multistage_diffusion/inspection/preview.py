"""A picture of what a network will see of a data set."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice

import torch
from PIL.Image import Image
from torch import Tensor

from multistage_diffusion.data.images import Images
from multistage_diffusion.data.options import ReadOptions
from multistage_diffusion.data.sources.listing import Listing
from multistage_diffusion.data.sources.load import list_images
from multistage_diffusion.inspection.looks import PICTURED, Look, evenly, looks
from multistage_diffusion.inspection.sheet import Shown, draw, show

__all__ = ["preview"]

MOST_PASSED = 4096  # entries of an archive or a table that are gone through to choose from


def preview(source: str, options: ReadOptions, images: Images) -> Image:
    """Originals beside what a network sees if images were brought to another size, else the images.

    Args:
        source, options: what the images were read from, and how.
        images: the data set as it was read.
    """
    size = options.height_and_width
    if size is not None:
        some = list(_originals(source, options, len(images)))
        if any(look.size != size for look in some):
            title = (
                f"some images of {source}: as they are, what {options.fit} keeps of them in a "
                "frame, "
                "and as they are read"
            )
            return draw([show(look, size, (options.fit,)) for look in some], title)
    return draw(
        list(_as_read(images)),
        f"{min(PICTURED, len(images))} of the {len(images):,} images of {source}, as they are read",
    )


def _originals(source: str, options: ReadOptions, count: int) -> Iterator[Look]:
    """Some of ``count`` images as they are stored, opened again; of an archive or a table some of
    the first.
    """
    found = list_images(source, options)
    if isinstance(found, Images):
        chosen: Images | Listing = found.at(_rows(len(found)))
    else:
        entries = found.entries()
        count = count if isinstance(entries, Sequence) else min(count, MOST_PASSED)
        passed = enumerate(islice(entries, count))
        chosen = replace(
            found, entries=lambda: (entry for number, entry in passed if evenly(number, count))
        )
    yield from (look for look in looks(chosen) if isinstance(look, Look))


def _rows(count: int) -> Tensor:
    return torch.tensor([number for number in range(count) if evenly(number, count)])


def _as_read(images: Images) -> Iterator[Shown]:
    for row in _rows(len(images)).tolist():
        label = "" if images.labels is None else images.classes[int(images.labels[row])]
        yield show(Look("", "", label, images.pixels[row].permute(1, 2, 0).numpy()), None, ())
