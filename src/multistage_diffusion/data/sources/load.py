"""Reading a data set: which source a name belongs to, and its images.

To add a source, write its ``Source`` (the names it takes, the options it understands, how it is
read) and put it into ``SOURCES``. The first source in that list that matches a name reads it.
Everything else follows from the list: refused options, messages about names that no source takes,
decoding, resizing and the cache. A source that belongs to a module which is there already
(another archive, another array file) is added to that module. A ``Listing`` is decoded, resized
and cached by what calls it; ``Images`` are taken as they are and only resized.

Whatever a user can fix in the data raises ``BadInput`` with the name of the file concerned.
"""

from dataclasses import replace
from pathlib import Path

from multistage_diffusion.data.assemble import Progress, assemble
from multistage_diffusion.data.cache import Cache
from multistage_diffusion.data.images import Images
from multistage_diffusion.data.options import ReadOptions
from multistage_diffusion.data.sources.archives import TAR, ZIP
from multistage_diffusion.data.sources.arrays import DIGITS, NPY, NPZ, resized
from multistage_diffusion.data.sources.folder import FOLDER
from multistage_diffusion.data.sources.hugging_face import ARROW, HUB, TABLE_FOLDER
from multistage_diffusion.data.sources.labelled import labelled
from multistage_diffusion.data.sources.latents import LATENT_FOLDER
from multistage_diffusion.data.sources.listing import Listing
from multistage_diffusion.data.sources.location import Location, locate
from multistage_diffusion.data.sources.pages import with_pages
from multistage_diffusion.data.sources.parquet import PARQUET
from multistage_diffusion.data.sources.source import Source
from multistage_diffusion.data.sources.webdataset import WEBDATASET
from multistage_diffusion.errors import BadInput

__all__ = ["SOURCES", "list_images", "load"]

SOURCES: tuple[Source, ...] = (
    DIGITS,
    LATENT_FOLDER,
    TABLE_FOLDER,
    FOLDER,
    ZIP,
    WEBDATASET,
    TAR,
    NPZ,
    NPY,
    PARQUET,
    ARROW,
)
"""In order of precedence. Names that none of them takes may be data sets on the hub."""
DEFAULT = ReadOptions()


def load(
    source: Path | str,
    options: ReadOptions = DEFAULT,
    progress: Progress = lambda images, *_: images,
) -> Images:
    """Reads and decodes a whole data set, or takes it from the cache if it is a large one.

    Args:
        source: one of

            - ``digits``, the 1,797 handwritten digits of scikit-learn (8x8, grey);
            - a folder of images, or a ``.zip`` or ``.tar`` archive of one. Its subfolders, if any,
              are the labels, unless it has a ``dataset.json`` as EDM's tools write it;
            - WebDataset shards: a pattern like ``shards/{000..004}.tar`` or ``shards/*.tar``;
            - a ``.npz`` file with ``images`` and optionally ``labels``, or ``train_images`` and
              ``train_labels``: see ``arrays``;
            - a ``.npy`` file with images, or with latents, floating point ``[N, C, H, W]``. It is
              read in parts and may be larger than memory;
            - a folder of latents from ``multistage encode``, which are normalised;
            - a ``.parquet`` file with a Hugging Face image column, a folder of such files, or the
              output of ``save_to_disk``;
            - the name of a data set on the Hugging Face hub.
        options: size, labels and what to do about broken images.
        progress: passes decoded images through and shows how many there have been.

    Raises:
        BadInput: if nothing is there, a file cannot be read, or sizes differ and none is given.
    """
    listed = list_images(source, options)
    if isinstance(listed, Images):
        return resized(listed, options)
    cache = Cache(listed, options)
    return cache.load(progress) if cache.wanted() else assemble(listed, options, progress)


def list_images(source: Path | str, options: ReadOptions = DEFAULT) -> Listing | Images:
    """The images of a source before they are decoded; arrays as they are.

    Raises:
        BadInput: as ``load``, for all that is noticed before images are decoded.
    """
    location = locate(source)
    kind = _source_of(location)
    kind.check_options(location, options)
    listed = kind.read(location, options)
    if location.paths and DIGITS.matches(Location(location.given)):
        note = f"this is the {location.given} that lies here, not the data set of that name"
        listed = replace(listed, notes=(note, *listed.notes))
    if isinstance(listed, Images):
        return listed
    return with_pages(labelled(listed, options), options)


def _source_of(location: Location) -> Source:
    """The source that reads a location.

    Raises:
        BadInput: if none does.
    """
    for source in SOURCES:
        if source.matches(location):
            return source
    # A file that is missing should not be looked for on the hub
    if HUB.matches(location) and not location.given.lower().endswith(_suffixes()):
        return HUB
    raise BadInput(_unknown(location))


def _suffixes() -> tuple[str, ...]:
    return tuple(suffix for source in SOURCES for suffix in source.suffixes)


def _unknown(location: Location) -> str:
    """The message about a location that no source reads."""
    if not location.paths:
        return f"There is no folder or file {Path(location.given)} to read images from."
    if location.is_pattern:
        allowed = " or for ".join(f"{suffix} files" for suffix in _main_suffixes(of_patterns=True))
        first = location.paths[0]
        return f"{location.name} stands for {first} and others; a pattern may stand for {allowed}."
    *others, last = _main_suffixes()
    known = f"a folder of images, a {', '.join(others)} or {last} file"
    return f"{location.name} is not a data set this program reads: give {known}."


def _main_suffixes(of_patterns: bool = False) -> list[str]:
    """The most common suffix of each source that is read from files, or of those for patterns."""
    chosen = [source for source in SOURCES if source.takes_patterns or not of_patterns]
    return list(dict.fromkeys(source.suffixes[0] for source in chosen if source.suffixes))
