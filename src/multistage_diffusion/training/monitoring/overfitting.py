"""Overfitting, as seen on held-out images."""

from collections.abc import Sequence

from multistage_diffusion.training.monitoring.records import Record, comparable

__all__ = ["overfitting"]

RISE = 1.02  # of a held-out loss over its minimum, more than chance


def overfitting(records: Sequence[Record]) -> list[str]:
    """A sentence for each stage that overfits.

    Its loss on held-out images has risen while that on training images continued to fall.
    """
    held_out = [record for record in comparable(records) if record.held_out_loss]
    if not held_out:
        return []
    stages = range(len(held_out[-1].held_out_loss))
    sentences = (_sentence(held_out, stage) for stage in stages)
    return [sentence for sentence in sentences if sentence]


def _sentence(records: Sequence[Record], stage: int) -> str:
    best = min(records, key=lambda record: record.held_out_loss[stage])
    last = records[-1]
    least = best.held_out_loss[stage]
    now = last.held_out_loss[stage]
    if now < RISE * least or last.probe_loss[stage] >= best.probe_loss[stage]:
        return ""
    return (
        f"stage {stage + 1} overfits: its loss on held-out images was {least:.4g} at "
        f"{best.images:,} images and is {now:.4g} now, while that on training images fell from "
        f"{best.probe_loss[stage]:.4g} to {last.probe_loss[stage]:.4g}"
    )
