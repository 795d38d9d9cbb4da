"""Images in memory and where they come from."""

from multistage_diffusion.data.images import Images, to_pixels, to_unit_range
from multistage_diffusion.data.sources import load

__all__ = ["Images", "load", "to_pixels", "to_unit_range"]
