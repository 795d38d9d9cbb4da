"""Timestep clustering."""

from multistage_diffusion.clustering.curves import Agreement, agreement
from multistage_diffusion.clustering.methods import cluster
from multistage_diffusion.clustering.options import ClusterOptions
from multistage_diffusion.clustering.result import Clustering, identity
from multistage_diffusion.clustering.sums import Sums
from multistage_diffusion.clustering.two_thresholds import thresholds
from multistage_diffusion.clustering.unfinished import UnfinishedSums

__all__ = [
    "Agreement",
    "ClusterOptions",
    "Clustering",
    "Sums",
    "UnfinishedSums",
    "agreement",
    "cluster",
    "identity",
    "thresholds",
]
