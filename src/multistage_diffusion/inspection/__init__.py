"""Inspection of a data set before anything is trained on it."""

from multistage_diffusion.inspection.contact_sheet import contact_sheet
from multistage_diffusion.inspection.findings import Findings, conclude
from multistage_diffusion.inspection.folder import InspectionFolder
from multistage_diffusion.inspection.preview import preview
from multistage_diffusion.inspection.survey import Survey, survey

__all__ = [
    "Findings",
    "InspectionFolder",
    "Survey",
    "conclude",
    "contact_sheet",
    "preview",
    "survey",
]
