"""Evaluation: distances between sets of images."""

from multistage_diffusion.evaluation.features import EXTRACTORS, Extractor
from multistage_diffusion.evaluation.frechet import Moments, frechet_distance
from multistage_diffusion.evaluation.metrics import METRICS, Metric, MetricName, feature_moments
from multistage_diffusion.evaluation.recognition import Recognition, recognise

__all__ = [
    "EXTRACTORS",
    "METRICS",
    "Extractor",
    "Metric",
    "MetricName",
    "Moments",
    "Recognition",
    "feature_moments",
    "frechet_distance",
    "recognise",
]
