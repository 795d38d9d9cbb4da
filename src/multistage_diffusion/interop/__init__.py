"""Weights of other programs, and of a unified network for a multi-stage one."""

from multistage_diffusion.interop.releases.reader import read_release
from multistage_diffusion.interop.releases.translate import (
    release_classes,
    release_model,
    translate,
)
from multistage_diffusion.interop.warm_start import warm_start

__all__ = ["read_release", "release_classes", "release_model", "translate", "warm_start"]
