"""Which arrays of a ``.npz`` file are images and labels."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from multistage_diffusion.data.options import ReadOptions
from multistage_diffusion.data.sources.left_out import named
from multistage_diffusion.data.sources.splits import choose_split
from multistage_diffusion.errors import BadInput

__all__ = ["ChosenArrays", "choose_arrays"]

PLAIN = (("images", "labels"), ("arr_0", "arr_1"), ("x", "y"))
OF_PARTS = (("{}_images", "{}_labels"), ("x_{}", "y_{}"))
"""Of MedMNIST, and of Keras."""


@dataclass(frozen=True)
class ChosenArrays:
    """The names of the arrays that are read."""

    images: str
    labels: str | None
    notes: tuple[str, ...] = ()


def choose_arrays(names: Sequence[str], where: str, options: ReadOptions) -> ChosenArrays:
    """The arrays of images and labels among those of a file.

    Args:
        names: the names of all arrays.
        where: the file, for messages.
        options: ``image_key`` or ``split`` may choose.

    Raises:
        BadInput: if no array is known to hold images, or there are several.
    """
    if options.image_key is not None:
        if options.image_key not in names:
            raise BadInput(f"{where} has no array {options.image_key}; it holds {named(names, 9)}.")
        return ChosenArrays(options.image_key, None, _unread(names, [options.image_key]))
    known = {name.lower(): name for name in names}
    for images, labels in PLAIN:
        if images in known and options.split is None:
            return _pair(known, images, labels, names)
    for images, labels in OF_PARTS:
        parts = _parts(images, known)
        if parts:
            part, notes = choose_split(parts, where, options.split)
            found = _pair(known, images.format(part), labels.format(part), names)
            return ChosenArrays(found.images, found.labels, (*notes, *found.notes))
    if options.split is not None:
        raise BadInput(f"--split: {where} has no parts; it holds {named(names, 9)}.")
    if len(names) == 1:
        return ChosenArrays(names[0], None)
    raise BadInput(
        f"{where} needs an array 'images', uint8 [N, H, W] or [N, H, W, C]; it holds "
        f"{named(names, 9)}. Choose one with --image-key."
    )


def _parts(pattern: str, known: dict[str, str]) -> list[str]:
    """The parts that arrays of images are named after."""
    matches = (re.fullmatch(pattern.format("(train|val|valid|test)"), name) for name in known)
    return [match[1] for match in matches if match]


def _pair(known: dict[str, str], images: str, labels: str, names: Sequence[str]) -> ChosenArrays:
    chosen = [known[name] for name in (images, labels) if name in known]
    return ChosenArrays(known[images], known.get(labels), _unread(names, chosen))


def _unread(names: Sequence[str], chosen: Sequence[str]) -> tuple[str, ...]:
    others = [name for name in names if name not in chosen]
    count = "1 array is" if len(others) == 1 else f"{len(others)} arrays are"
    return (f"{count} not read: {named(others)}",) if others else ()
