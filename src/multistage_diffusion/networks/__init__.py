"""Networks."""

from multistage_diffusion.networks.unet import StagedUNet

__all__ = ["StagedUNet"]
