"""Feature extractors: functions from images to vectors, between which metrics measure."""

from multistage_diffusion.evaluation.features.extractor import Extractor, FeaturePrecision
from multistage_diffusion.evaluation.features.registry import EXTRACTORS, find_extractor

__all__ = ["EXTRACTORS", "Extractor", "FeaturePrecision", "find_extractor"]
