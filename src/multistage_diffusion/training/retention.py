"""Which checkpoints of a run are written and kept."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from multistage_diffusion.config import Settings, setting

__all__ = ["RetentionConfig", "superseded"]


@dataclass(frozen=True, kw_only=True)
class RetentionConfig(Settings):
    """Which checkpoints are written and kept."""

    checkpoint_images: int = setting(50_000, above=0, may_change=True)
    """Images between checkpoints."""
    keep_last: int = setting(2, above=0, may_change=True)
    """How many of the latest checkpoints are kept."""
    keep_every: int = setting(0, at_least=0, may_change=True)
    """Also keep the first checkpoint in each interval of this many images; 0 for none."""


def superseded(checkpoints: Sequence[Path], config: RetentionConfig) -> list[Path]:
    """The checkpoints that need not be kept.

    Args:
        checkpoints: folders named after the images seen, oldest first.
        config: what is kept.
    """
    first = dict[int, Path]()
    if config.keep_every:
        for path in checkpoints:
            first.setdefault(int(path.name) // config.keep_every, path)
    kept = {*first.values(), *checkpoints[-config.keep_last :]}
    return [path for path in checkpoints if path not in kept]
