"""The preview of a run: what a network will see of its images."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from io import BytesIO
from itertools import islice
from pathlib import Path

import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from multistage_diffusion.data.examine import ExaminedImage, examine
from multistage_diffusion.data.images import Images
from multistage_diffusion.data.options import ReadOptions
from multistage_diffusion.data.sources.listing import Listing
from multistage_diffusion.files import write_atomically
from multistage_diffusion.inspection.contact_sheet import SheetImage, contact_sheet, sheet_image
from multistage_diffusion.inspection.selection import PICTURED, is_selected
from multistage_diffusion.latents import space_of_model
from multistage_diffusion.run import Run, claim

__all__ = ["preview", "write_preview"]

TITLE = "What a network of multistage-diffusion sees"
MOST_ENTRIES = 4096  # of an archive or a table, from which images are chosen


def write_preview(run: Run, images: Images, name: str, options: ReadOptions) -> None:
    """Writes ``preview.png`` into the folder of a run.

    Args:
        run: the run.
        images: its images.
        name: the data set as the user named it.
        options: how the images were read.

    Raises:
        BadInput: if a file of that name is not a preview.
    """
    claim(run.preview, "is no preview of a run", _is_preview)
    content = BytesIO()
    info = PngInfo()
    info.add_text("Title", TITLE)
    preview(images, name, options).save(content, "PNG", pnginfo=info)
    write_atomically(run.preview, content.getvalue())


def _is_preview(path: Path) -> bool:
    try:
        with Image.open(path) as image:
            return image.info.get("Title") == TITLE
    except (OSError, SyntaxError, ValueError):
        return False


def preview(images: Images, name: str, options: ReadOptions) -> Image.Image:
    """A picture of some images.

    Where images were resized, each original is shown beside what the network sees.
    """
    size = options.height_and_width
    originals = list(_originals(images, options)) if size is not None else []
    if any(image.size != size for image in originals):
        title = (
            f"some images of {name}: as they are, what {options.fit} keeps of them in a frame, and "
            "as they are read"
        )
        shown = [sheet_image(image, size, (options.fit,)) for image in originals]
        return contact_sheet(shown, title)
    count = min(PICTURED, len(images))
    how = "as they are read" if images.latents is None else "decoded from their latents"
    title = f"{count} of the {len(images):,} images of {name}, {how}"
    return contact_sheet(list(_as_read(images)), title)


def _originals(images: Images, options: ReadOptions) -> Iterator[ExaminedImage]:
    """Some images as they are stored, opened again.

    Of an archive or a table they are among the first.
    """
    original = images.original
    if original is None:
        return
    if isinstance(original, Images):
        chosen: Images | Listing = original.at(_selected_rows(len(original)))
    else:
        chosen = _selected_entries(original, len(images))
    examined = examine(chosen, options)
    yield from (image for image in examined if isinstance(image, ExaminedImage))


def _selected_entries(listing: Listing, count: int) -> Listing:
    """A listing of some of the entries."""
    entries = listing.entries()
    limit = count if isinstance(entries, Sequence) else min(count, MOST_ENTRIES)
    numbered = enumerate(islice(entries, limit))
    selected = (entry for number, entry in numbered if is_selected(number, limit))
    return replace(listing, entries=lambda: selected)


def _selected_rows(count: int) -> Tensor:
    return torch.tensor([number for number in range(count) if is_selected(number, count)])


def _as_read(images: Images) -> Iterator[SheetImage]:
    for row in _selected_rows(len(images)).tolist():
        label = "" if images.labels is None else images.classes[int(images.labels[row])]
        pixels = _pixels(images, row).permute(1, 2, 0).numpy()
        yield sheet_image(ExaminedImage("", "", label, pixels), None, ())


def _pixels(images: Images, row: int) -> Tensor:
    """An image, uint8 ``[C, H, W]``; one that is stored as latents is decoded."""
    stored = images.pixels[row]
    return (
        stored if images.latents is None else space_of_model(images.latents).decode(stored[None])[0]
    )
