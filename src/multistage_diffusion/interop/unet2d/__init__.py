"""diffusers' ``UNet2DModel`` and ``UNet2DConditionModel`` as networks of this package.

``read_unet`` reads files, ``unet_config`` translates the settings, ``unet_weights`` the weights.
diffusers itself is not needed.
"""

from multistage_diffusion.interop.unet2d.config import unet_config
from multistage_diffusion.interop.unet2d.rules import unet_weights
from multistage_diffusion.interop.unet2d.scheduler import Prediction, read_scheduler
from multistage_diffusion.interop.unet2d.source import (
    UNetFiles,
    holds_unet,
    may_be_hub_id,
    read_unet,
)

__all__ = [
    "Prediction",
    "UNetFiles",
    "holds_unet",
    "may_be_hub_id",
    "read_scheduler",
    "read_unet",
    "unet_config",
    "unet_weights",
]
