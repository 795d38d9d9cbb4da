"""Timestep clustering."""

from multistage_diffusion.clustering.curves import Agreement, agreement
from multistage_diffusion.clustering.methods import Clustering, cluster, identity
from multistage_diffusion.clustering.options import ClusterOptions
from multistage_diffusion.clustering.sums import Sums
from multistage_diffusion.clustering.two_thresholds import thresholds

__all__ = [
    "Agreement",
    "ClusterOptions",
    "Clustering",
    "Sums",
    "agreement",
    "cluster",
    "identity",
    "thresholds",
]
