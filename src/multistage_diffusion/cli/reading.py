"""Reading a data set for a command, and reporting what was done to its images."""

from collections.abc import Iterator

from multistage_diffusion.cli.progress import show_progress
from multistage_diffusion.cli.terminal import print_warning
from multistage_diffusion.data import Images, ReadOptions, load
from multistage_diffusion.data.decoding import Pixels

__all__ = ["first_lines", "read", "report_reading"]

MOST_LINES = 10
FEW_IMAGES = 1000  # decoded before a user could read how many there are


def read(data: str, options: ReadOptions) -> Images:
    """The images of a data set.

    Whatever was done to them, and each image that was left out, is reported on standard error.

    Args:
        data, options: as for ``load``.
    """
    images = load(data, options, _progress)
    report_reading(data, images)
    return images


def report_reading(data: str, images: Images) -> None:
    """Prints what was done to images as they were read, and what was left out."""
    for note in images.notes:
        print_warning(f"{data}: {note}")
    for line in first_lines([f"left out {skipped}" for skipped in images.skipped]):
        print_warning(line)


def _progress(images: Iterator[Pixels], total: int, before: int) -> Iterator[Pixels]:
    """Shows how many images are decoded, unless there are few."""
    if total - before < FEW_IMAGES:
        return images
    return show_progress(images, "images decoded", total, lambda _: 1, start=before)


def first_lines(lines: list[str]) -> list[str]:
    """The first ten lines and how many more there are."""
    more = len(lines) - MOST_LINES
    return [*lines[:MOST_LINES], f"and {more} more"] if more > 0 else lines
