"""Reports."""

from multistage_diffusion.report.page import is_report, render

__all__ = ["is_report", "render"]
