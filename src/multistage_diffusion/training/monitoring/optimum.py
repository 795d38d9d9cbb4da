"""The optimal denoiser's loss on the probe of a run, computed once and kept in the run's folder.

It goes through the whole data set for each noisy image. Where that would be too much, it is
computed on a part of the probe, and its standard error is given.
"""

from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor

from multistage_diffusion import distributed
from multistage_diffusion.config import from_json, to_json
from multistage_diffusion.data.images import Images
from multistage_diffusion.denoiser import NetworkDenoiser
from multistage_diffusion.files import json_fingerprint, read_object, write_json
from multistage_diffusion.run import Run
from multistage_diffusion.training.config import RunConfig
from multistage_diffusion.training.monitoring.probe import Probe

__all__ = ["Optimum", "find_optimum"]

MOST_PRODUCTS = 2e12  # multiply-accumulates in float64: about a minute on a few cores
FEWEST = 8  # noisy images in each stage


@dataclass(frozen=True)
class Optimum:
    """The mean weighted loss of the optimal denoiser in each stage."""

    loss: list[float]
    error: list[float]
    """The standard error in each stage; 0 where all of the probe was used."""


def find_optimum(
    run: Run, config: RunConfig, probe: Probe, images: Images, denoiser: NetworkDenoiser
) -> Optimum:
    """The optimum of a run, from its folder if it is there. All ranks call it, rank 0 computes."""
    if not distributed.is_main_process():
        return distributed.broadcast(Optimum([], []))
    identity = _identity(config)
    known: Any = read_object(run.optimum) if run.optimum.exists() else {}
    if known.get("identity") != identity:
        known = {"identity": identity, **asdict(_optimum(probe, images, denoiser))}
        write_json(run.optimum, known)
    return distributed.broadcast(from_json(Optimum, known, str(run.optimum)))


def _identity(config: RunConfig) -> str:
    """What decides about the probe and its loss, as a hash."""
    model = to_json(config.model)
    del model["network"]
    draws = config.training.draws
    drawn = [config.training.seed, draws.held_out, list(draws.share_boundaries)]
    return json_fingerprint([model, drawn, config.data.fingerprint])


def _optimum(probe: Probe, images: Images, denoiser: NetworkDenoiser) -> Optimum:
    per_stage = len(probe.sigma) // probe.stages
    products = 2 * len(probe.sigma) * len(images) * probe.clean[0].numel()
    used = max(FEWEST, int(per_stage * min(1.0, MOST_PRODUCTS / products)))
    losses = probe.part(used).optimal_losses(images, denoiser)
    by_stage = losses.unflatten(0, (probe.stages, -1))
    return Optimum(by_stage.mean(1).tolist(), _errors(by_stage, per_stage))


def _errors(losses: Tensor, of: int) -> list[float]:
    """Standard errors of means over ``[stages, n]`` losses, drawn from ``of`` in each stage."""
    count = losses.shape[1]
    errors: list[float] = (losses.std(1) * ((1 / count - 1 / of) ** 0.5)).tolist()
    return errors
