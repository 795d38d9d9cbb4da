"""Classes in the names of files, such as ``cat_0001.png`` or ``12_dog.jpg``, which are not read."""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import PurePosixPath

from multistage_diffusion.data.labels import in_order_of_names
from multistage_diffusion.data.sources.left_out import named

__all__ = ["about_prefixes"]


def _word(pattern: str) -> Callable[[str], str]:
    """The word that a pattern finds in the name of a file; empty if there is none."""
    compiled = re.compile(pattern)

    def found(stem: str) -> str:
        match = compiled.fullmatch(stem)
        return match[1] if match else ""

    return found


WORDS = {
    "begin with": (
        _word(r"(.*[^\W\d_])[ _.\-]*\(?\d+\)?"),  # before a number
        _word(r"([^\W\d][^_]*)_.*"),  # before an underscore, as OpenAI's guided-diffusion has it
    ),
    "end with": (_word(r".*\d[ _.\-]+([^\W\d].*)"),),  # behind a number
}


def about_prefixes(names: Sequence[str]) -> tuple[str, ...]:
    """A note about names of images without labels that begin or end with one of a few words.

    Args:
        names: the paths of the images inside the data set.
    """
    stems = [PurePosixPath(name).stem for name in names]
    for verb, rules in WORDS.items():
        for word in rules:
            counts = Counter(map(word, stems))
            if "" not in counts and 2 <= len(counts) <= len(names) / 2:
                return (_note(verb, counts),)
    return ()


def _note(verb: str, counts: Counter[str]) -> str:
    words = [f"{word} ({counts[word]:,})" for word in in_order_of_names(set(counts))]
    return (
        f"no labels: names {verb} {named(words)}, which is not read as a class; if it is one, put "
        "the images into folders of these names or give --labels FILE"
    )
