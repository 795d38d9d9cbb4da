"""Comparisons of several ways to train, under the same cost."""

from multistage_diffusion.study.config import Arm, StudyConfig, read_study
from multistage_diffusion.study.results import Results, collect

__all__ = ["Arm", "Results", "StudyConfig", "collect", "read_study"]
