"""Checkpoints of the paper's release and of its three bases.

``read_release`` reads the weights of a file, ``translate`` gives them our names. A base is a module
with the settings and the names of its network: ``edm``, ``dpm`` or ``ldm``.
"""

from multistage_diffusion.interop.releases.reader import read_release
from multistage_diffusion.interop.releases.translate import (
    release_classes,
    release_model,
    translate,
)

__all__ = ["read_release", "release_classes", "release_model", "translate"]
