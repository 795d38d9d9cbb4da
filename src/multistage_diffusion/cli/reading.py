"""Reading a data set for a command, and saying what was done to its images."""

from multistage_diffusion.cli.progress import warn
from multistage_diffusion.data import Images, ReadOptions, load

__all__ = ["most_of", "read"]

MOST_NAMED = 10


def read(data: str, options: ReadOptions) -> Images:
    """The images, with a line on standard error for whatever was done to them and for each that was left out."""
    images = load(data, options)
    for note in images.notes:
        warn(f"{data}: {note}")
    for line in most_of([f"left out {skipped}" for skipped in images.skipped]):
        warn(line)
    return images


def most_of(lines: list[str]) -> list[str]:
    """The first ten lines and how many more there are."""
    more = len(lines) - MOST_NAMED
    return [*lines[:MOST_NAMED], f"and {more} more"] if more > 0 else lines
