"""Comparisons of several ways to train, under the same cost."""

from multistage_diffusion.study.config import Arm, StudyConfig, read_study
from multistage_diffusion.study.merging import check_same, merge
from multistage_diffusion.study.results import Results, collect
from multistage_diffusion.study.stored import load_study

__all__ = [
    "Arm",
    "Results",
    "StudyConfig",
    "check_same",
    "collect",
    "load_study",
    "merge",
    "read_study",
]
