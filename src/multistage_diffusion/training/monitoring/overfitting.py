"""Overfitting, seen on held-out images."""

from collections.abc import Sequence

from multistage_diffusion.training.monitoring.records import Record

__all__ = ["RISE", "over_fitting"]


RISE = 1.02  # of a held-out loss over its least, which is taken for more than chance


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
