"""Reports."""

from multistage_diffusion.report.page import render

__all__ = ["render"]
