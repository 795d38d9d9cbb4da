"""Images in memory and where they come from."""

from multistage_diffusion.data.images import Images
from multistage_diffusion.data.options import ReadOptions
from multistage_diffusion.data.sources.load import load
from multistage_diffusion.space import to_pixels, to_unit_range

__all__ = ["Images", "ReadOptions", "load", "to_pixels", "to_unit_range"]
