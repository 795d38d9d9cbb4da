"""Evaluation: how far generated images are from real ones, and how well a model denoises."""

from multistage_diffusion.evaluation.denoising import Denoising, measure_denoising
from multistage_diffusion.evaluation.estimate import Estimate
from multistage_diffusion.evaluation.features import EXTRACTORS, Extractor, find_extractor
from multistage_diffusion.evaluation.frechet import (
    Moments,
    extrapolated_distance,
    frechet,
    frechet_distance,
)
from multistage_diffusion.evaluation.inception_score import inception_score
from multistage_diffusion.evaluation.kernel import kernel_distance
from multistage_diffusion.evaluation.memorisation import Memorisation, measure_memorisation
from multistage_diffusion.evaluation.metrics import METRICS, SUITES, FeatureSets, Metric
from multistage_diffusion.evaluation.mind import mind
from multistage_diffusion.evaluation.neighbours import Manifolds, compare_manifolds
from multistage_diffusion.evaluation.recognition import Recognition, recognise
from multistage_diffusion.evaluation.reference import reference_features

__all__ = [
    "EXTRACTORS",
    "METRICS",
    "SUITES",
    "Denoising",
    "Estimate",
    "Extractor",
    "FeatureSets",
    "Manifolds",
    "Memorisation",
    "Metric",
    "Moments",
    "Recognition",
    "compare_manifolds",
    "extrapolated_distance",
    "find_extractor",
    "frechet",
    "frechet_distance",
    "inception_score",
    "kernel_distance",
    "measure_denoising",
    "measure_memorisation",
    "mind",
    "recognise",
    "reference_features",
]
