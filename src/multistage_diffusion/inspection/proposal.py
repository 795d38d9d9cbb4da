"""A proposal for a data set: size, preset, boundaries."""

import statistics
from collections import Counter
from dataclasses import dataclass

from multistage_diffusion.clustering import Clustering, ClusterOptions, cluster
from multistage_diffusion.data.images import Images
from multistage_diffusion.errors import BadInput
from multistage_diffusion.presets import PRESETS, Preset
from multistage_diffusion.schedule import VP

__all__ = ["Proposal", "Size", "closed_form", "enlarged", "propose", "propose_size"]

Size = tuple[int, int]
SIDES = (64, 48, 32, 24, 16, 8)
STEP = 4  # small halves the resolution twice
TINY = 12  # up to this side the preset for digits of 8x8 fits
ENLARGED = 0.05  # share of the images that may be enlarged
LIKE = 1.1  # ratios of width to height that count as equal
MOST_LIKE = 0.9  # share of the images that must be so for a size that is not square
MOST_ATTENTION = 32
PAPER_IMAGES = 20_000  # with fewer, networks of a hundred million parameters memorise them
HELD_OUT_IMAGES = 100  # with fewer, a twentieth says nothing
LARGE = 192  # pixels of the shorter side
PAIRS = 64


@dataclass(frozen=True)
class Proposal:
    """A preset and what to know about it."""

    name: str
    options: tuple[str, ...]
    """Options of ``multistage train`` beyond the preset."""
    remarks: tuple[str, ...]
    """Sentences: the reasons, and alternatives."""

    @property
    def preset(self) -> Preset:
        """The preset itself."""
        return PRESETS[self.name]


def propose_size(sizes: Counter[Size]) -> Size | None:
    """The height and width to bring images to; None where they can be taken as they are.

    Args:
        sizes: heights and widths, and how often each occurs.
    """
    if len(sizes) <= 1:
        height, width = next(iter(sizes), (0, 0))
        even = (height - height % STEP, width - width % STEP)
        if max(height, width) <= SIDES[0] and (
            even == (height, width) or min(height, width) < 2 * STEP
        ):
            return None
        if max(height, width) <= SIDES[0]:
            return even
    ratio = _common_ratio(sizes)
    candidates = [_sides(side, ratio) for side in SIDES]
    return next(
        (size for size in candidates if enlarged(sizes, size) <= ENLARGED * sizes.total()),
        candidates[-1],
    )


def enlarged(sizes: Counter[Size], size: Size) -> int:
    """How many images are enlarged when they are made to cover a size."""
    return sum(
        count for (height, width), count in sizes.items() if height < size[0] or width < size[1]
    )


def _common_ratio(sizes: Counter[Size]) -> float:
    """Width by height, if nearly all images share it; else 1."""
    ratios = sorted((width / height for height, width in sizes.elements()))
    middle = statistics.median(ratios)
    alike = sum(middle / LIKE <= ratio <= middle * LIKE for ratio in ratios)
    return middle if alike >= MOST_LIKE * len(ratios) and not 1 / LIKE <= middle <= LIKE else 1.0


def _sides(longest: int, ratio: float) -> Size:
    shortest = max(STEP, round(longest * min(ratio, 1 / ratio) / STEP) * STEP)
    return (shortest, longest) if ratio > 1 else (longest, shortest)


def propose(shape: tuple[int, int, int], images: int, labelled: bool, shortest: float) -> Proposal:
    """The preset to begin with.

    Args:
        shape: channels, height and width as images are read.
        images: how many there are.
        labelled: whether they have labels.
        shortest: median of the shorter sides as images are stored.
    """
    longest = max(shape[1:])
    if longest <= TINY:
        return Proposal(
            "digits", () if labelled else ("--no-conditional",), _remarks(shape, images, shortest)
        )
    bottom = longest // 2 ** (len(PRESETS["small"].network.channel_mult) - 1)
    attention = (
        bottom not in PRESETS["small"].network.attention_resolutions and bottom <= MOST_ATTENTION
    )
    options = ("--attention-resolutions", str(bottom)) if attention else ()
    return Proposal("small", options, _remarks(shape, images, shortest))


def _remarks(shape: tuple[int, int, int], images: int, shortest: float) -> tuple[str, ...]:
    remarks = []
    if images < PAPER_IMAGES:
        remarks.append(
            f"{images:,} images need a small network: the paper's of 129 million parameters would "
            "memorise them."
        )
        remarks.append("--held-out 0.05 holds images out of training and reports when that begins.")
    if images >= PAPER_IMAGES and TINY < max(shape[1:]) <= SIDES[0]:
        remarks.append(
            f"{images:,} images are enough for the paper's network (edm-cifar10, 129 million "
            "parameters) on a GPU."
        )
    if shortest >= LARGE:
        latents = "64x64 latents of an autoencoder; multistage encode makes them"
        remarks.append(
            "Details of images of 256x256 and more are for latent diffusion (ldm-256, on "
            f"{latents})."
        )
    return tuple(remarks)


def closed_form(images: Images) -> Clustering | str:
    """Stages by the closed form with few pairs, or why there are none."""
    try:
        return cluster(images, VP(), ClusterOptions(pairs=PAIRS))
    except BadInput as error:
        return str(error)
