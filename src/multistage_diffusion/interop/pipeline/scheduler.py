"""The solvers of this package as a scheduler of diffusers."""

from collections.abc import Sequence
from typing import Any

import torch
from diffusers import ConfigMixin, SchedulerMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor

from multistage_diffusion.model import ModelConfig
from multistage_diffusion.sampling.calls import sampling_grid
from multistage_diffusion.sampling.options import SampleOptions
from multistage_diffusion.sampling.solver import SolverEntry
from multistage_diffusion.sampling.solvers import SOLVERS

__all__ = ["SolverScheduler"]


class SolverScheduler(SchedulerMixin, ConfigMixin):
    """A solver and its grid of noise levels, as ``multistage sample`` has them.

    Solvers evaluate the model as often as they need in a step, so that there is no method ``step``:
    the pipeline calls ``solver``.

    Args:
        solver: its name.
        grid: where the noise levels lie.
        boundary: what happens where the denoiser jumps from stage to stage: ``keep``, ``restart``
            or ``snap``.
        levels: noise levels of a plan, largest first; they replace the grid and the number of
            steps.
        settings: the solver's own settings, such as ``eta``.

    Raises:
        BadInput: if there is no such solver, grid or setting.
        ValueError: if a boundary asks for both decoders.
    """

    order = 1

    @register_to_config
    def __init__(
        self,
        solver: str = "heun",
        grid: str = "karras",
        boundary: str = "keep",
        levels: Sequence[float] = (),
        settings: dict[str, Any] | None = None,
    ) -> None:
        if boundary == "blend":
            raise ValueError(
                "The pipeline evaluates one decoder: boundary is keep, restart or snap."
            )
        self.register_to_config(_use_default_values=[])  # arguments by position count as such
        self.timesteps = self._levels_without_zero(torch.tensor([*levels, 0.0]))
        self.init_noise_sigma = float(levels[0]) if levels else 1.0
        self.sigmas: Tensor | None = None
        self._options(1)

    @property
    def solver(self) -> SolverEntry:
        """The solver."""
        return SOLVERS[self.config.solver]

    @property
    def settings(self) -> dict[str, Any]:
        """The solver's own settings."""
        return self._options(1).settings

    def set_timesteps(self, num_inference_steps: int, model: ModelConfig) -> None:
        """Sets the noise levels.

        Args:
            num_inference_steps: number of steps, unless the levels are given.
            model: whose schedule gives the ends.
        """
        self.sigmas = sampling_grid(model, self._options(num_inference_steps))
        self.timesteps = self._levels_without_zero(self.sigmas)
        self.init_noise_sigma = float(self.sigmas[0])

    def _options(self, steps: int) -> SampleOptions:
        config = self.config
        return SampleOptions(
            solver=config.solver,
            grid=config.grid,
            boundary=config.boundary,
            levels=tuple(config.levels),
            steps=steps,
            **(config.settings or {}),
        )

    def _levels_without_zero(self, sigmas: Tensor) -> Tensor:
        return sigmas[sigmas > 0]
