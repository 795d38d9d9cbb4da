"""What a data source declares about itself: the names it takes, its options, and how it is read."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from multistage_diffusion.data.images import Images
from multistage_diffusion.data.options import ReadOptions
from multistage_diffusion.data.sources.listing import Listing
from multistage_diffusion.data.sources.location import Location
from multistage_diffusion.errors import BadInput

__all__ = ["Option", "Source"]

Option = Literal["labels", "label_column", "image_key", "split", "layout", "value_range", "latents"]
REFUSALS: dict[Option, str] = {
    "labels": "--labels names files, and {} has none; leave it out.",
    "label_column": (
        "--label-column is for tables, WebDataset shards and metadata.csv, and {} is none; use "
        "--labels FILE."
    ),
    "image_key": "--image-key is for tables and WebDataset shards, and {} is none; leave it out.",
    "split": (
        "--split is for data sets in parts such as train, val and test, and {} has no parts; leave "
        "it out."
    ),
    "layout": "--layout is for arrays, and {} holds none; leave it out.",
    "value_range": "--value-range is for floating-point arrays, and {} holds none; leave it out.",
    "latents": "--latents is for floating-point arrays, and {} holds none; leave it out.",
}


def _any_location(_: Location) -> bool:
    return True


@dataclass(frozen=True, kw_only=True)
class Source:
    """One kind of data set."""

    read: Callable[[Location, ReadOptions], Listing | Images]
    """Lists the images at a location without decoding them; or returns arrays as they are."""
    options: frozenset[Option]
    """Which of the options that depend on the source it understands; the others are refused."""
    suffixes: tuple[str, ...] = ()
    """How the names of its files end, the most common first; empty if it is not read from files."""
    accepts: Callable[[Location], bool] = _any_location
    """What a location has to fulfil in addition to the suffixes."""
    takes_patterns: bool = False
    """Whether it reads several files, which a pattern stands for, as one data set."""

    def matches(self, location: Location) -> bool:
        """Whether a location is of this kind."""
        if self.suffixes and not location.are_files(self.suffixes):
            return False
        if location.is_pattern and not self.takes_patterns:
            return False
        return self.accepts(location)

    def check_options(self, location: Location, options: ReadOptions) -> None:
        """Raises BadInput about the first option that is given but not understood."""
        for name, message in REFUSALS.items():
            is_given = getattr(options, name) not in (None, False)
            if is_given and name not in self.options:
                raise BadInput(message.format(location.name))
