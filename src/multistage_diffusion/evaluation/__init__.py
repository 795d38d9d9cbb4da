"""Evaluation: distances between sets of images, and the cost of a network."""

from multistage_diffusion.cost import StageCost, stage_costs, total_parameters
from multistage_diffusion.evaluation.features import EXTRACTORS, Extractor
from multistage_diffusion.evaluation.frechet import Moments, frechet_distance

__all__ = [
    "EXTRACTORS",
    "Extractor",
    "Moments",
    "StageCost",
    "frechet_distance",
    "stage_costs",
    "total_parameters",
]
