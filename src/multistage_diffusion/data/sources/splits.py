"""The parts of a data set: for training, validation and test."""

import re
from collections.abc import Sequence

from multistage_diffusion.errors import BadInput

__all__ = ["are_splits", "choose_split", "parts_among", "split_of"]

SPLITS = {
    "train": {"train", "training"},
    "validation": {"validation", "valid", "val", "dev"},
    "test": {"test", "testing", "eval", "evaluation"},
}
WORDS = frozenset().union(*SPLITS.values())
COMMON = frozenset({"set", "data", "image", "images", "img", "imgs", ""})
"""Words that say nothing beside these, as in ``training_set`` and ``val2017``."""


def split_of(name: str) -> str:
    """The part a file belongs to, by the words of its path."""
    words = _words(name)
    return next((split for split, names in SPLITS.items() if words & names), "train")


def _words(name: str) -> set[str]:
    apart = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)  # trainA
    return set(re.split(r"[^a-z]+", apart.lower()))


def are_splits(folders: Sequence[str]) -> bool:
    """Whether all of these folders are named as parts, such as ``train`` and ``val``.

    With other words, as in ``train2017``, only if each is another part: ``train1`` and ``train2``
    may be anything.
    """
    if all(folder.lower() in WORDS for folder in folders):
        return True
    return all(map(_is_split, folders)) and len(set(map(split_of, folders))) == len(folders)


def _is_split(folder: str) -> bool:
    words = {word for word in _words(folder) - COMMON if len(word) > 1}
    return bool(words) and words <= WORDS


def parts_among(folders: Sequence[str]) -> list[str]:
    """Those of some folders that are named as parts, if they are of different ones or if other
    folders lie beside them.
    """
    parts = [folder for folder in folders if _is_split(folder)]
    return parts if len(set(map(split_of, parts))) > 1 or len(parts) < len(folders) else []


def choose_split(
    splits: Sequence[str], source: str, wanted: str | None
) -> tuple[str, tuple[str, ...]]:
    """The part to read, and a note about those that are not read.

    Args:
        splits: the names of the parts.
        source: the data set, for messages.
        wanted: the name that was asked for, or another one of the same meaning.

    Raises:
        BadInput: if there is none of the name that is wanted, or no obvious one.
    """
    training = [split for split in splits if _is_split(split) and split_of(split) == "train"]
    usual = training[0] if training else splits[0]
    name = usual if wanted is None else _named(splits, wanted)
    is_obvious = len(training) == 1 or len(splits) == 1
    if name is None or (wanted is None and not is_obvious):
        raise BadInput(f"{source} has the parts {', '.join(splits)}; choose one with --split.")
    others = [split for split in splits if split != name]
    if wanted is not None or not others:
        return name, ()
    return name, (f"the part {name} is read, not {', '.join(others)} (--split)",)


def _named(splits: Sequence[str], wanted: str) -> str | None:
    """The part of a name, or the only one of the same meaning."""
    if wanted in splits:
        return wanted
    alike = [split for split in splits if split_of(split) == split_of(wanted)]
    return alike[0] if len(alike) == 1 and _is_split(wanted) else None
