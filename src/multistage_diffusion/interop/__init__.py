"""Weights of other programs, and multi-stage networks made from unified ones."""

from multistage_diffusion.interop.releases import (
    read_release,
    release_classes,
    release_model,
    translate,
)
from multistage_diffusion.interop.warm_start import warm_start

__all__ = ["read_release", "release_classes", "release_model", "translate", "warm_start"]
