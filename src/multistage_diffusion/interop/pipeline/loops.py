"""The steps of a call of the pipeline: by a solver of this package or a scheduler of diffusers."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor

from multistage_diffusion.denoiser import Denoiser
from multistage_diffusion.interop.pipeline.coordinates import coordinates, prediction

__all__ = ["Call", "StepEnd", "run_scheduler", "run_solver"]

StepEnd = Callable[[Any, int, Any, dict[str, Tensor]], dict[str, Tensor]]


@dataclass(frozen=True)
class Call:
    """What a call of the pipeline needs for its steps."""

    pipe: Any
    """The pipeline."""
    noise: Tensor
    """Unit noise to begin with, ``[B, C, H, W]``."""
    denoiser: Denoiser
    steps: int
    generator: torch.Generator | list[torch.Generator] | None
    step_end: StepEnd | None

    def new_noise(self) -> Tensor:
        """Unit noise of a step."""
        like = self.noise
        return randn_tensor(
            like.shape, generator=self.generator, device=like.device, dtype=like.dtype
        )

    def after(self, index: int, t: Tensor, x: Tensor) -> Tensor:
        """The state that the user's callback makes of the one at the end of a step."""
        if self.step_end is None:
            return x
        return self.step_end(self.pipe, index, t, {"latents": x}).pop("latents", x)


def run_solver(call: Call) -> Tensor:
    """Images by the solver of a ``SolverScheduler``: ``[B, C, H, W]``."""
    pipe, scheduler = call.pipe, call.pipe.scheduler
    config = pipe.unet.model_config
    scheduler.set_timesteps(call.steps, config)
    times = scheduler.timesteps
    with pipe.progress_bar(total=len(times)) as bar:

        def edit(step: int, x: Tensor) -> Tensor:
            pipe._num_timesteps = max(step + 1, len(times))
            bar.update()
            return call.after(step, times[min(step, len(times) - 1)], x)

        pipe._num_timesteps = len(times)
        return scheduler.solver(
            call.denoiser,
            call.noise * scheduler.init_noise_sigma,
            scheduler.sigmas,
            noise=lambda _: call.new_noise(),
            edit=edit,
            restart_at=config.boundaries if scheduler.config.boundary == "restart" else (),
            **scheduler.settings,
        )


def run_scheduler(call: Call) -> Tensor:
    """Images by a scheduler of diffusers, which asks for one prediction in each step."""
    pipe, scheduler = call.pipe, call.pipe.scheduler
    scheduler.set_timesteps(call.steps, device=call.noise.device)
    pipe._num_timesteps = len(scheduler.timesteps)
    x = call.noise * float(getattr(scheduler, "init_noise_sigma", 1.0))
    for index, t in enumerate(pipe.progress_bar(scheduler.timesteps)):
        x = call.after(index, t, _step(call, t, x))
    return x


def _step(call: Call, t: Tensor, x: Tensor) -> Tensor:
    scheduler = call.pipe.scheduler
    if hasattr(scheduler, "scale_model_input"):
        scheduler.scale_model_input(x, t)  # the scheduler counts its steps there
    at = coordinates(scheduler, t)
    level = at.level(call.pipe.unet.model_config.density.sampling_range[1])
    denoised = call.denoiser(at.noisy(x, level), torch.tensor(level, dtype=torch.float64))
    takes = inspect.signature(scheduler.step).parameters
    source = {"generator": call.generator} if "generator" in takes else {}
    output = prediction(scheduler, at, x, denoised)
    return scheduler.step(output, t, x, return_dict=False, **source)[0]
