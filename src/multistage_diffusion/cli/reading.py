"""Reading a data set for a command, and saying what was done to its images."""

from collections.abc import Iterator

from multistage_diffusion.cli.progress import show_progress
from multistage_diffusion.cli.terminal import print_warning
from multistage_diffusion.data import Images, ReadOptions, load
from multistage_diffusion.data.decoding import Pixels

__all__ = ["most_of", "read"]

MOST_NAMED = 10
FEW = 1000  # images that are decoded before a person would read of it


def read(data: str, options: ReadOptions) -> Images:
    """The images, with a line on standard error for whatever was done to them and for each that was
    left out.
    """
    images = load(data, options, _shown)
    for note in images.notes:
        print_warning(f"{data}: {note}")
    for line in most_of([f"left out {skipped}" for skipped in images.skipped]):
        print_warning(line)
    return images


def _shown(images: Iterator[Pixels], total: int, before: int) -> Iterator[Pixels]:
    """Shows how far decoding has come."""
    if total - before < FEW:
        return images
    return show_progress(images, "images decoded", total, lambda _: 1, start=before)


def most_of(lines: list[str]) -> list[str]:
    """The first ten lines and how many more there are."""
    more = len(lines) - MOST_NAMED
    return [*lines[:MOST_NAMED], f"and {more} more"] if more > 0 else lines
