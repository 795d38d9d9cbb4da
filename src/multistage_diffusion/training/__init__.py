"""Training."""

from multistage_diffusion.errors import Diverged
from multistage_diffusion.training.loop import train
from multistage_diffusion.training.monitoring.records import Record, read_records

__all__ = ["Diverged", "Record", "read_records", "train"]
