"""Solvers against the schedulers of diffusers, where their definitions agree.

Some of its schedulers work on ``x / sqrt(1 + sigma^2)``, others on x itself as solvers here do.
They round their tables to float32.
"""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from multistage_diffusion.sampling import SOLVERS
from multistage_diffusion.sampling.dpm import Prediction, _multistep
from multistage_diffusion.schedule import DDPM
from tests.sampling.test_solvers import gaussian, mixture

diffusers = pytest.importorskip("diffusers")
pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*algorithm_type:FutureWarning"),
]

BETAS = {
    "num_train_timesteps": 1000,
    "beta_start": 0.0015,
    "beta_end": 0.0195,
    "beta_schedule": "scaled_linear",
}
STEPS = 12
SAME = STEPS - 3  # steps before those for which a scheduler lowers its order
SHAPE = (3, 1, 4, 4)
PLAIN = {"clip_sample": False}
NOISE = {"algorithm_type": "dpmsolver", "final_sigmas_type": "sigma_min"}
SDE = {"algorithm_type": "sde-dpmsolver++"}
DENOISERS = {"gaussian": gaussian, "mixture": mixture}

Case = tuple[str, str, dict[str, Any], dict[str, Any]]
VARIANCE_PRESERVING: list[Case] = [
    ("ddim", "DDIMScheduler", PLAIN, {}),
    ("ddim", "DDIMScheduler", PLAIN, {"eta": 0.6}),
    ("ddpm", "DDPMScheduler", PLAIN, {}),
    ("dpmpp-2m", "DPMSolverMultistepScheduler", {}, {}),
    ("dpm-2m", "DPMSolverMultistepScheduler", NOISE, {}),
    ("dpmpp-2m-sde", "DPMSolverMultistepScheduler", SDE, {}),
    ("unipc", "UniPCMultistepScheduler", {}, {}),
    ("unipc-3", "UniPCMultistepScheduler", {"solver_order": 3}, {}),
    ("unipc-bh1", "UniPCMultistepScheduler", {"solver_type": "bh1"}, {}),
]
IN_SIGMA: list[Case] = [
    ("euler", "EulerDiscreteScheduler", {}, {}),
    ("ddpm", "EulerAncestralDiscreteScheduler", {}, {}),
]


def draws(dtype: torch.dtype = torch.float64) -> tuple[torch.Generator, Callable[[int], Tensor]]:
    """A generator for a scheduler, which draws once a step, and the same noise for a solver."""
    source, generator = (torch.Generator().manual_seed(0) for _ in range(2))
    drawn: list[Tensor] = []

    def noise(number: int) -> Tensor:
        while len(drawn) <= number:
            drawn.append(torch.randn(SHAPE, dtype=dtype, generator=source))
        return drawn[number]

    return generator, noise


def start() -> Tensor:
    return torch.randn(SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def close(found: Tensor, expected: Tensor) -> bool:
    return float((found - expected).abs().max()) < 2e-4


@pytest.mark.parametrize("data", DENOISERS)
@pytest.mark.parametrize(("name", "kind", "options", "settings"), VARIANCE_PRESERVING)
def test_variance_preserving_schedulers(
    name: str, kind: str, options: dict[str, Any], settings: dict[str, Any], data: str
) -> None:
    scheduler = getattr(diffusers, kind)(**BETAS, prediction_type="epsilon", **options)
    scheduler.set_timesteps(STEPS)
    generator, noise = draws(torch.float32 if options is SDE else torch.float64)
    more = {} if kind.startswith("UniPC") else {"generator": generator}
    table, times = DDPM(), [float(time) for time in scheduler.timesteps]
    levels = [float(table.from_clock(time)) for time in times]
    x = levels[0] * start()
    state = x / (1 + levels[0] ** 2) ** 0.5
    for time, sigma in zip(scheduler.timesteps[:SAME], levels, strict=False):
        ve = state * (1 + sigma**2) ** 0.5
        eps = (ve - DENOISERS[data](ve, sigma)) / sigma
        state = scheduler.step(eps, time, state, **more, **settings).prev_sample
    grid = torch.tensor(levels[: SAME + 1], dtype=torch.float64)
    found = SOLVERS[name](DENOISERS[data], x, grid, noise=noise, **settings)
    assert close(found / (1 + levels[SAME] ** 2) ** 0.5, state)


def test_multistep_of_order_three_has_twice_the_curvature_of_the_published_one() -> None:
    """The published last term is half the second divided difference, which is of order 2 only."""
    s, t = 2.0, 1.5
    history = [(s, start()), (2.8, 2 * start() ** 2), (3.5, start() ** 3)]
    scheduler = diffusers.DPMSolverMultistepScheduler(**BETAS, solver_order=3)
    levels = torch.tensor([level for level, _ in history[::-1]] + [t], dtype=torch.float64)
    scheduler.sigmas, scheduler._step_index = levels, 2
    outputs, x = [value for _, value in history[::-1]], start()
    state = scheduler.multistep_dpm_solver_third_order_update(outputs, sample=x / (1 + s**2) ** 0.5)
    theirs = state * (1 + t**2) ** 0.5
    ours = _multistep(Prediction(data=True), x, history, t)
    h = math.log(s / t)
    first, second = (math.log(a / b) / h for a, b in ((2.8, s), (3.5, 2.8)))
    slopes = (history[0][1] - history[1][1]) / first, (history[1][1] - history[2][1]) / second
    curvature = (slopes[0] - slopes[1]) / (first + second)
    last = Prediction(data=True).step(0 * x, s, t, 0 * x, 0 * x, curvature)
    assert close(ours - last / 2, theirs)
    assert close(_multistep(Prediction(data=True), x, history, t, share=0.5), theirs)
    assert float(last.abs().max()) > 1e-3


@pytest.mark.parametrize("data", DENOISERS)
@pytest.mark.parametrize(("name", "kind", "options", "settings"), IN_SIGMA)
def test_schedulers_in_sigma(
    name: str, kind: str, options: dict[str, Any], settings: dict[str, Any], data: str
) -> None:
    scheduler = getattr(diffusers, kind)(**BETAS, prediction_type="epsilon", **options)
    scheduler.set_timesteps(STEPS)
    generator, noise = draws()
    grid = scheduler.sigmas.double()
    state = x = float(grid[0]) * start()
    for time, sigma in zip(scheduler.timesteps, grid[:-1].tolist(), strict=True):
        scheduler.scale_model_input(state, time)
        eps = (state - DENOISERS[data](state, sigma)) / sigma
        state = scheduler.step(eps, time, state, generator=generator).prev_sample
    assert close(SOLVERS[name](DENOISERS[data], x, grid, noise=noise, **settings), state)


@pytest.mark.parametrize("data", DENOISERS)
def test_the_heun_scheduler(data: str) -> None:
    """Its two evaluations of a step are two steps of its own."""
    scheduler = diffusers.HeunDiscreteScheduler(**BETAS, prediction_type="epsilon")
    scheduler.set_timesteps(STEPS)
    levels = [float(scheduler.sigmas[0])]
    for sigma in scheduler.sigmas.tolist()[1:]:
        levels += [sigma] if sigma != levels[-1] else []
    grid = torch.tensor(levels, dtype=torch.float64)
    state = x = levels[0] * start()
    for time in scheduler.timesteps:
        scheduler.scale_model_input(state, time)
        sigma = float(scheduler.sigmas[scheduler.step_index])
        eps = (state - DENOISERS[data](state, sigma)) / sigma
        state = scheduler.step(eps, time, state).prev_sample
    assert close(SOLVERS["heun"](DENOISERS[data], x, grid), state)
