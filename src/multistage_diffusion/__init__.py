"""Diffusion models with one shared encoder and one decoder for each stage of noise.

After "Improving Efficiency of Diffusion Models via Multi-Stage Framework and Tailored Multi-Decoder
Architectures" (arXiv 2312.09181).

The public names, imported when they are first used:

- ``load``, ``ReadOptions``, ``Images``: data sets;
- ``VP``, ``LogNormal``, ``Karras``, ``VE``, ``DDPM``: noise schedules; ``Stages``: partitions of
  their levels;
- ``OptimalDenoiser``, ``ClusterOptions``, ``cluster``: the closed form and the stages it gives;
- ``PRESETS``, ``configure_run``, ``train``: training; ``load_model``: a trained model;
- ``SampleOptions``, ``generate``, ``heun``, ``ddim``, ``dpmpp_2m``: sampling.
"""

import os
import warnings
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from multistage_diffusion.clustering import ClusterOptions, cluster
    from multistage_diffusion.data import Images, ReadOptions, load
    from multistage_diffusion.denoiser import NetworkDenoiser
    from multistage_diffusion.model import build_denoiser, load_model
    from multistage_diffusion.optimal import OptimalDenoiser
    from multistage_diffusion.presets import PRESETS, configure_run
    from multistage_diffusion.sampling.ancestral import ddim
    from multistage_diffusion.sampling.dpm import dpmpp_2m
    from multistage_diffusion.sampling.draw import generate
    from multistage_diffusion.sampling.grids import karras_grid
    from multistage_diffusion.sampling.noise import noise
    from multistage_diffusion.sampling.ode import heun
    from multistage_diffusion.sampling.options import SampleOptions
    from multistage_diffusion.schedule import DDPM, VE, VP, Karras, LogNormal
    from multistage_diffusion.stages import Stages
    from multistage_diffusion.training import train

__version__ = "0.2.0"

# A mixed batch has other numbers of samples in its stages at every step; oneDNN forgets what it
# prepared for them after 1024.
os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "16384")

_HOMES = {
    "clustering": ("ClusterOptions", "cluster"),
    "data": ("Images", "ReadOptions", "load"),
    "denoiser": ("NetworkDenoiser",),
    "model": ("build_denoiser", "load_model"),
    "optimal": ("OptimalDenoiser",),
    "presets": ("PRESETS", "configure_run"),
    "sampling": ("SampleOptions", "ddim", "dpmpp_2m", "generate", "heun", "karras_grid", "noise"),
    "schedule": ("DDPM", "VE", "VP", "Karras", "LogNormal"),
    "stages": ("Stages",),
    "training": ("train",),
}
_RENAMED = {"plan_run": "configure_run"}
"""Public names of earlier versions, which still work and warn."""
_HOME = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "DDPM",
    "PRESETS",
    "VE",
    "VP",
    "ClusterOptions",
    "Images",
    "Karras",
    "LogNormal",
    "NetworkDenoiser",
    "OptimalDenoiser",
    "ReadOptions",
    "SampleOptions",
    "Stages",
    "build_denoiser",
    "cluster",
    "configure_run",
    "ddim",
    "dpmpp_2m",
    "generate",
    "heun",
    "karras_grid",
    "load",
    "load_model",
    "noise",
    "train",
]


def __getattr__(name: str) -> object:
    if name in _RENAMED:
        new = _RENAMED[name]
        warnings.warn(f"{name} is now {new}", DeprecationWarning, stacklevel=2)
        name = new
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return [*globals(), *_HOME]
