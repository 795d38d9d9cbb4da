"""Images set aside, and what they tell."""

from collections.abc import Sequence

import torch

from multistage_diffusion.data.images import Images
from multistage_diffusion.errors import BadInput
from multistage_diffusion.training.draws import Stream, generator
from multistage_diffusion.training.records import Record

__all__ = ["over_fitting", "split"]

RISE = 1.02  # of a held-out loss over its least, which is taken for more than chance


def split(images: Images, share: float, seed: int) -> tuple[Images, Images | None]:
    """The images to train on and those set aside, drawn at random by the seed.

    Raises:
        BadInput: if no image would be left in a part.
    """
    if not share:
        return images, None
    aside = round(share * len(images))
    if not 0 < aside < len(images):
        raise BadInput(f"Setting aside {share:g} of {len(images)} images leaves none in one part; choose another --held-out.")
    order = torch.randperm(len(images), generator=generator(seed, Stream.SPLIT))
    return images.at(order[aside:]), images.at(order[:aside])


def over_fitting(records: Sequence[Record]) -> list[str]:
    """A sentence for each stage whose loss on held-out images has risen while that on training images went on falling."""
    held = [record for record in records if record.held_out_loss]
    stages = range(len(held[-1].held_out_loss)) if held else range(0)
    return [sentence for stage in stages if (sentence := _verdict(held, stage))]


def _verdict(records: Sequence[Record], stage: int) -> str:
    best, last = min(records, key=lambda record: record.held_out_loss[stage]), records[-1]
    least, now = best.held_out_loss[stage], last.held_out_loss[stage]
    if now < RISE * least or last.probe_loss[stage] >= best.probe_loss[stage]:
        return ""
    return (
        f"stage {stage + 1} over-fits: its loss on held-out images was {least:.4g} at {best.images:,} images and is {now:.4g} "
        f"now, while that on training images fell from {best.probe_loss[stage]:.4g} to {last.probe_loss[stage]:.4g}"
    )
