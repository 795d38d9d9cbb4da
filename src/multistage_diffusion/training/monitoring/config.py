"""Settings of what is recorded of a run while it trains."""

from dataclasses import dataclass
from typing import Literal

from multistage_diffusion.config import Settings, setting

__all__ = ["MonitoringConfig", "TrackerName"]

TrackerName = Literal["tensorboard", "wandb"]


@dataclass(frozen=True, kw_only=True)
class MonitoringConfig(Settings):
    """What is recorded of a run while it trains."""

    record_images: int = setting(10_000, above=0)
    """Images between records, which are the lines of stats.jsonl."""
    grid_images: int = setting(0, at_least=0, may_change=True)
    """Images between grids of samples, drawn with raw and averaged weights; 0 for none."""
    bands: tuple[int, ...] = setting((), at_least=1, may_change=True)
    """Channels shown in grids of images with many channels, such as 3 2 1 for red, green and blue.
    Default: the first three."""
    track: tuple[TrackerName, ...] = setting((), may_change=True)
    """Send records to tensorboard (a folder in the run) or wandb too."""
