"""Where images come from."""

from multistage_diffusion.data.sources.load import list_images, load

__all__ = ["list_images", "load"]
