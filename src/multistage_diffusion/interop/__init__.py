"""Weights of other programs."""

from multistage_diffusion.interop.releases import release_model, translate

__all__ = ["release_model", "translate"]
