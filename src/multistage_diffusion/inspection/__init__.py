"""A look at a data set before anything is trained on it."""

from multistage_diffusion.inspection.findings import Findings, find
from multistage_diffusion.inspection.preview import preview
from multistage_diffusion.inspection.sheet import draw
from multistage_diffusion.inspection.survey import survey

__all__ = ["Findings", "draw", "find", "preview", "survey"]
