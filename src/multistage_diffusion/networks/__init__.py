"""Networks: a U-Net of encoders and decoders, its settings and its building blocks."""

from multistage_diffusion.networks.config import NetworkConfig
from multistage_diffusion.networks.unet import StagedUNet

__all__ = ["NetworkConfig", "StagedUNet"]
