"""Pages and frames of image files as images of their own."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import cache

from PIL import Image

from multistage_diffusion.data.decoding import pages_of
from multistage_diffusion.data.options import ReadOptions
from multistage_diffusion.data.pillow import DAMAGE, quiet
from multistage_diffusion.data.sources.listing import Entry, Listing

__all__ = ["with_pages"]


def with_pages(listing: Listing, options: ReadOptions) -> Listing:
    """A listing in which each page of a file is an image, if all pages are to be read."""
    if options.pages == "first":
        return listing

    def entries() -> Iterable[Entry]:
        return (page for entry in listing.entries() for page in _pages(entry))

    count = cache(lambda: sum(1 for _ in entries()))
    return replace(listing, entries=entries, count=count)


def _pages(entry: Entry) -> Iterator[Entry]:
    pages = _count(entry)
    if pages == 1:
        yield entry
        return
    for page in range(pages):
        yield replace(entry, where=f"{entry.where} page {page + 1}", page=page)


def _count(entry: Entry) -> int:
    """How many pages a file has; 1 for a broken one."""
    try:
        with quiet(), entry.open() as file, Image.open(file) as image:
            return max(1, pages_of(image))
    except DAMAGE:
        return 1
