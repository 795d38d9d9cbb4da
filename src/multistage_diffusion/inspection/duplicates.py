"""Images that a data set holds more than once: copies, near-duplicates and mirrored ones.

Copies have the same decoded pixels. Near-duplicates are found by a difference hash (64 bits:
whether each of 9x8 grey values is brighter than its left neighbour) that differs in few bits, and
confirmed on the 9x8 grey values themselves, whose difference must be small in grey levels and
against the contrast of the image. That finds files that were compressed again, resized or
recoloured at equal brightness, and not those that were cut or brightened.

Pairs are compared only where their mean grey values are near enough for the second condition to
hold, so that all pairs that meet both are found without comparing all pairs.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from multistage_diffusion.data.decoding import Pixels

__all__ = ["Pair", "copies", "digest", "near_duplicates", "thumbnail"]

# root mean square difference of two thumbnails; JPEG of quality 30 and halving give up to 2.5 on
# CIFAR-10
GREY_LEVELS = 4.0
# the same as a share of the standard deviation of a thumbnail; 99 % of such copies are below 0.1
OF_CONTRAST = 0.12
BITS = 14
ROWS, CANDIDATES = 128, 1 << 17  # compared and confirmed at a time


@dataclass(frozen=True)
class Pair:
    """Two images that are nearly the same."""

    first: int
    second: int
    mirrored: bool = False
    """Whether one is nearly the mirror image of the other."""


def digest(pixels: Pixels) -> bytes:
    """A hash of the pixels and the size of an image."""
    return hashlib.blake2b(repr(pixels.shape).encode() + pixels.tobytes(), digest_size=16).digest()


def thumbnail(pixels: Pixels) -> Pixels:
    """The grey values of an image ``[H, W, C]`` in eight rows and nine columns."""
    colours = pixels.shape[2] == 3
    plain = pixels if colours else pixels.mean(2).round().astype(np.uint8)
    small = Image.fromarray(plain).resize((9, 8), Image.Resampling.BICUBIC, reducing_gap=3.0)
    return np.asarray(small.convert("L"))


def copies(digests: list[bytes]) -> list[list[int]]:
    """Groups of images with the same digest, each of two or more, in order."""
    groups: dict[bytes, list[int]] = {}
    for index, value in enumerate(digests):
        groups.setdefault(value, []).append(index)
    return [group for group in groups.values() if len(group) > 1]


def near_duplicates(thumbnails: Pixels) -> list[Pair]:
    """For each image that nearly repeats others, one of these.

    Args:
        thumbnails: uint8 ``[N, 8, 9]``.
    """
    order = np.argsort(thumbnails.mean((1, 2)), kind="stable")
    found = _search(thumbnails[order])
    pairs = [
        Pair(min(order[a], order[b]), max(order[a], order[b]), mirrored) for a, b, mirrored in found
    ]
    return sorted(pairs, key=lambda pair: (pair.first, pair.second))


def _search(thumbnails: Pixels) -> Iterator[tuple[int, int, bool]]:
    """Pairs of positions of which the second is not found again, by their means."""
    mean = thumbnails.mean((1, 2))
    views = [(False, thumbnails), (True, thumbnails[:, :, ::-1])]
    hashes = [_hashes(view) for _, view in views]
    free = np.ones(len(mean), bool)
    for start in range(0, len(mean), ROWS):
        rows = np.arange(start, min(len(mean), start + ROWS))
        others = start + np.flatnonzero(
            free[start : np.searchsorted(mean, mean[rows[-1]] + GREY_LEVELS, "right")]
        )
        for (mirrored, view), hashed in zip(views, hashes, strict=True):
            first, second = _candidates(hashes[0], hashed, rows, others)
            for chunk in range(0, len(first), CANDIDATES):
                a, b = _confirmed(
                    thumbnails,
                    view,
                    free,
                    first[chunk : chunk + CANDIDATES],
                    second[chunk : chunk + CANDIDATES],
                )
                free[b] = False
                yield from (
                    (int(one), int(other), mirrored) for one, other in zip(a, b, strict=True)
                )


def _hashes(thumbnails: Pixels) -> NDArray[np.uint64]:
    """The difference hash, ``[N]``."""
    brighter = thumbnails[:, :, 1:] > thumbnails[:, :, :-1]
    return np.packbits(brighter.reshape(len(thumbnails), -1), axis=1).view(np.uint64)[:, 0]


def _candidates(
    hashed: NDArray[np.uint64],
    views: NDArray[np.uint64],
    rows: NDArray[np.intp],
    others: NDArray[np.intp],
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Pairs of a row and a later one among the others whose hashes differ in few bits."""
    bits = np.bitwise_count(hashed[rows][:, None] ^ views[others][None])
    first, second = np.nonzero((bits <= BITS) & (others[None] > rows[:, None]))
    return rows[first], others[second]


def _confirmed(
    thumbnails: Pixels,
    views: Pixels,
    free: NDArray[np.bool_],
    first: NDArray[np.intp],
    second: NDArray[np.intp],
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """The pairs that are near enough, one for each second image that is still free."""
    first, second = first[free[second]], second[free[second]]
    ours, theirs = thumbnails[first].astype(np.float32), views[second].astype(np.float32)
    contrast = np.maximum(ours.std((1, 2)), theirs.std((1, 2)))
    near = np.sqrt(np.square(ours - theirs).mean((1, 2))) <= np.minimum(
        GREY_LEVELS, OF_CONTRAST * contrast
    )
    others, place = np.unique(second[near], return_index=True)
    return first[near][place], others
