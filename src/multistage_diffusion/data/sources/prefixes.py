"""Classes in the names of files, such as ``cat_0001.png`` or ``dog.12.jpg``, which are not read."""

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import PurePosixPath

from multistage_diffusion.data.labels import in_order_of_names
from multistage_diffusion.data.sources.left_out import named

__all__ = ["about_prefixes"]

BEFORE_NUMBER = re.compile(r"(.*[^\W\d_])[ _.\-]*\(?\d+\)?")


def about_prefixes(names: Sequence[str]) -> tuple[str, ...]:
    """A note about names of images without labels that begin with one of a few words.

    Args:
        names: the paths of the images inside the data set.
    """
    stems = [PurePosixPath(name).stem for name in names]
    for found in (list(map(_before_number, stems)), list(map(_before_underscore, stems))):
        counts = Counter(found)
        if "" not in counts and 2 <= len(counts) <= len(names) / 2:
            words = [f"{word} ({counts[word]:,})" for word in in_order_of_names(set(counts))]
            return (
                f"no labels: names begin with {named(words)}, which is not read as a class; if it "
                "is one, put the images into folders of these names or give --labels FILE",
            )
    return ()


def _before_number(stem: str) -> str:
    match = BEFORE_NUMBER.fullmatch(stem)
    return match[1] if match else ""


def _before_underscore(stem: str) -> str:
    """Where OpenAI's guided-diffusion expects the class."""
    word, found, _ = stem.partition("_")
    return word if found else ""
