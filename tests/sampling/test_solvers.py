import math
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor

from multistage_diffusion.conditions import Conditions
from multistage_diffusion.data import Images, to_unit_range
from multistage_diffusion.denoiser import Denoiser, NetworkDenoiser
from multistage_diffusion.errors import BadInput
from multistage_diffusion.optimal import OptimalDenoiser
from multistage_diffusion.sampling.dpm import (
    dpm_multistep,
    dpm_singlestep,
    dpmpp_2m,
    singlestep_orders,
)
from multistage_diffusion.sampling.grids import karras_grid, log_snr_grid
from multistage_diffusion.sampling.noise import noise
from multistage_diffusion.sampling.ode import ddim
from multistage_diffusion.sampling.solvers import SOLVERS
from tests.conftest import disturb

C = 0.5


Solve = Callable[[Denoiser, Tensor, Tensor], Tensor]


def singlestep(order: int, data: bool) -> Solve:
    def solver(denoiser: Denoiser, x: Tensor, sigmas: Tensor) -> Tensor:
        return dpm_singlestep(denoiser, x, sigmas, orders=[order] * (len(sigmas) - 1), data=data)

    return solver


# Those by evaluations end with steps of lower orders, so that no slope fits all numbers of them.
MIXED = ("dpm-3s", "dpmpp-3s")
ORDERS: list[tuple[Solve, int]] = [
    (entry, entry.order) for entry in SOLVERS.values() if entry.name not in MIXED
]
ORDERS += [(singlestep(order, data), order) for order in (1, 2, 3) for data in (False, True)]


def gaussian(x: Tensor, sigma: Tensor | float) -> Tensor:
    """The denoiser of data from N(0, C^2 I)."""
    return x * C**2 / (C**2 + torch.as_tensor(sigma, dtype=x.dtype) ** 2)


def solution(x: Tensor, start: float, end: float) -> Tensor:
    """Its probability flow: x(s) = x(s0) sqrt((C^2 + s^2) / (C^2 + s0^2))."""
    return x * math.sqrt((C**2 + end**2) / (C**2 + start**2))


def order(
    solver: Solve, denoiser: Denoiser, x: Tensor, start: float, end: float, exact: Tensor
) -> float:
    """Slope of log error over log step."""
    steps = np.array([40, 80, 160, 320])
    errors = []
    for count in steps:
        grid = log_snr_grid(count + 1, end, start)[:-1]
        errors.append(float((solver(denoiser, x, grid) - exact).norm()))
    return float(-np.polyfit(np.log(steps), np.log(errors), 1)[0])


@pytest.mark.parametrize(("solver", "expected"), ORDERS)
def test_order_on_a_gaussian(solver: Solve, expected: int) -> None:
    x = 20 * torch.randn(4, 1, 2, 2, dtype=torch.float64)
    found = order(solver, gaussian, x, 20.0, 0.02, solution(x, 20.0, 0.02))
    assert found == pytest.approx(expected, abs=0.1)


@pytest.mark.parametrize("name", MIXED)
def test_mixed_orders_converge_nearly_as_fast_as_their_highest(name: str) -> None:
    x = 20 * torch.randn(4, 1, 2, 2, dtype=torch.float64)
    found = order(SOLVERS[name], gaussian, x, 20.0, 0.02, solution(x, 20.0, 0.02))
    assert found > SOLVERS[name].order - 0.5


@pytest.mark.parametrize(("solver", "expected"), ORDERS)
def test_order_on_the_optimal_denoiser(few_digits: Images, solver: Solve, expected: int) -> None:
    """Over levels at which several images still compete; the reference has very small steps of
    order 3."""
    denoiser = OptimalDenoiser(to_unit_range(few_digits.pixels[:], torch.float64))
    x = 10 * torch.from_numpy(np.random.default_rng(0).standard_normal((3, 1, 8, 8)))
    exact = singlestep(3, True)(denoiser, x, log_snr_grid(1601, 1.2, 10.0)[:-1])
    assert order(solver, denoiser, x, 10.0, 1.2, exact) == pytest.approx(expected, abs=0.15)


@pytest.mark.parametrize("solver", SOLVERS.values())
def test_samples_of_the_optimal_denoiser_are_training_images(
    few_digits: Images, solver: Solve
) -> None:
    images = to_unit_range(few_digits.pixels[:])
    grid = karras_grid(40, 0.002, 80)
    samples = solver(OptimalDenoiser(images), 80 * noise(0, range(16), (1, 8, 8)), grid)
    nearest = torch.cdist(samples.flatten(1), images.flatten(1)).amin(1)
    assert float(nearest.max()) < 0.05


@pytest.mark.parametrize("solver", SOLVERS.values())
def test_one_image_is_reached_exactly(few_digits: Images, solver: Solve) -> None:
    image = to_unit_range(few_digits.pixels[:1])
    found = solver(
        OptimalDenoiser(image), 80 * noise(0, range(3), (1, 8, 8)), karras_grid(5, 0.002, 80)
    )
    torch.testing.assert_close(found, image.expand(3, -1, -1, -1))


def test_ddim_equals_its_variance_preserving_form() -> None:
    """x_vp = x / sqrt(1 + sigma^2); the step of Song et al. 2021, eq. 12, with sigma_t = 0."""
    x, grid = 5 * torch.randn(2, 1, 4, 4, dtype=torch.float64), log_snr_grid(7, 0.05, 5.0)[:-1]
    vp = x / math.sqrt(1 + float(grid[0]) ** 2)
    for sigma, target in zip(grid[:-1].tolist(), grid[1:].tolist(), strict=True):
        a, b = 1 / (1 + sigma**2), 1 / (1 + target**2)
        predicted = gaussian(vp / a**0.5, sigma)
        eps = (vp - a**0.5 * predicted) / (1 - a) ** 0.5
        vp = b**0.5 * predicted + (1 - b) ** 0.5 * eps
    torch.testing.assert_close(ddim(gaussian, x, grid), vp * math.sqrt(1 + float(grid[-1]) ** 2))


def test_dpmpp_2m_equals_its_published_form() -> None:
    """Algorithm 2 of Lu et al. 2022 in its own variables, alpha_t, sigma_t and lambda_t of the VP
    process."""
    x, grid = (
        5 * torch.randn(2, 1, 4, 4, dtype=torch.float64),
        log_snr_grid(9, 0.05, 5.0)[:-1].tolist(),
    )
    alpha = [1 / math.sqrt(1 + s * s) for s in grid]
    std = [s * a for s, a in zip(grid, alpha, strict=True)]
    lam = [-math.log(s) for s in grid]
    state, previous = alpha[0] * x, None
    for i in range(1, len(grid)):
        current = gaussian(state / alpha[i - 1], grid[i - 1])
        h = lam[i] - lam[i - 1]
        d = current
        if previous is not None:
            r = (lam[i - 1] - lam[i - 2]) / h
            d = (1 + 1 / (2 * r)) * current - previous / (2 * r)
        state = std[i] / std[i - 1] * state - alpha[i] * math.expm1(-h) * d
        previous = current
    torch.testing.assert_close(
        dpmpp_2m(gaussian, x, torch.tensor(grid, dtype=torch.float64)), state / alpha[-1]
    )


def test_dpm_solvers_of_the_first_order_are_ddim() -> None:
    x, grid = torch.randn(2, 1, 4, 4, dtype=torch.float64), log_snr_grid(6, 0.05, 5.0)
    for data in (False, True):
        found = dpm_singlestep(gaussian, x, grid, orders=[1] * 6, data=data)
        torch.testing.assert_close(found, ddim(gaussian, x, grid))


def test_multistep_data_prediction_is_dpmpp_2m() -> None:
    x, grid = torch.randn(2, 1, 4, 4, dtype=torch.float64), karras_grid(9, 0.05, 5.0)
    torch.testing.assert_close(
        dpm_multistep(gaussian, x, grid, data=True), dpmpp_2m(gaussian, x, grid)
    )


@pytest.mark.parametrize("evaluations", range(1, 25))
def test_singlestep_orders_use_all_evaluations(evaluations: int) -> None:
    """Lu et al. 2022, appendix on DPM-Solver-fast:

    K = n // 3 + 1 steps; threes but for the last one or two.
    """
    orders = singlestep_orders(evaluations)
    assert sum(orders) == evaluations
    assert len(orders) == evaluations // 3 + 1
    assert sorted(orders, reverse=True) == orders


@pytest.mark.parametrize(
    ("solver", "calls"),
    [(solver, 35 if name == "heun" else 18) for name, solver in SOLVERS.items()],
)
def test_number_of_evaluations(solver: Solve, calls: int) -> None:
    levels: list[float] = []

    def counted(x: Tensor, sigma: Tensor | float) -> Tensor:
        levels.append(float(sigma))
        return gaussian(x, sigma)

    solver(counted, torch.randn(1, 1, 2, 2), karras_grid(18, 0.002, 80))
    assert len(levels) == calls


def test_grids_have_their_ends_and_spacing() -> None:
    grid = karras_grid(18, 0.002, 80)
    assert grid[[0, -2, -1]].tolist() == pytest.approx([80, 0.002, 0])
    torch.testing.assert_close(
        (grid[:-1] ** (1 / 7)).diff(),
        torch.full((17,), (0.002 ** (1 / 7) - 80 ** (1 / 7)) / 17).double(),
    )
    ratio = log_snr_grid(5, 0.01, 100)
    torch.testing.assert_close(ratio[1:-1] / ratio[:-2], torch.full((4,), 0.1).double())
    assert karras_grid(1, 0.002, 80).tolist() == pytest.approx([80, 0])


def test_no_steps_are_refused() -> None:
    with pytest.raises(BadInput, match="at least 1 step"):
        karras_grid(0, 0.002, 80)


def test_noise_is_a_function_of_seed_and_index() -> None:
    whole = noise(7, range(6), (3, 4, 4))
    assert torch.equal(noise(7, [4, 1], (3, 4, 4)), whole[[4, 1]])
    assert not torch.equal(noise(8, range(6), (3, 4, 4)), whole)
    assert float(noise(0, range(400), (3, 8, 8)).std()) == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("solver", SOLVERS.values())
def test_an_image_does_not_depend_on_its_batch(denoiser: NetworkDenoiser, solver: Solve) -> None:
    grid, start = karras_grid(6, 0.002, 80), 80 * noise(0, range(5), (1, 8, 8))
    with torch.no_grad():
        together = solver(denoiser, start, grid)
        alone = torch.cat([solver(denoiser, start[k : k + 1], grid) for k in range(5)])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4 * float(together.abs().max()))


@pytest.mark.parametrize("solver", SOLVERS.values())
def test_each_step_calls_the_decoder_of_its_level(denoiser: NetworkDenoiser, solver: Solve) -> None:
    """Without the last decoder's weights, the path is the same until it leaves the first stages."""
    grid, start = karras_grid(6, 0.002, 2.0), 2 * noise(0, range(2), (1, 8, 8))
    with torch.no_grad():
        before = solver(partial(denoiser, conditions=Conditions()), start, grid)
        disturb(denoiser.network.decoders[2])
        assert torch.equal(
            solver(denoiser, start, grid), before
        )  # 2.0 lies below the last boundary
        disturb(denoiser.network.decoders[1])
        assert not torch.allclose(solver(denoiser, start, grid), before)


@pytest.mark.parametrize("name", SOLVERS)
def test_a_callback_sees_every_step_and_changes_nothing(name: str) -> None:
    x = 20 * torch.randn(2, 1, 2, 2, dtype=torch.float64)
    grid = log_snr_grid(12, 0.02, 20.0)
    seen: list[tuple[int, float, Tensor, Tensor]] = []
    with_callback = SOLVERS[name](gaussian, x, grid, callback=lambda *step: seen.append(step))
    assert torch.equal(with_callback, SOLVERS[name](gaussian, x, grid))
    assert [step for step, *_ in seen] == list(range(len(seen)))
    assert torch.equal(seen[0][2], x)
    for _, sigma, state, denoised in seen:
        torch.testing.assert_close(denoised, gaussian(state, sigma))
    levels = [sigma for _, sigma, *_ in seen]
    assert levels == sorted(levels, reverse=True)
    if not name.endswith("3s"):  # those choose their own levels inside the grid
        assert levels == grid[:-1].tolist()


@pytest.mark.parametrize("data", [False, True])
def test_a_multistep_solver_that_restarts_at_every_level_is_of_order_one(data: bool) -> None:
    """For the data prediction and the noise prediction alike, that is DDIM."""
    x, grid = 20 * torch.randn(2, 1, 2, 2, dtype=torch.float64), log_snr_grid(12, 0.02, 20.0)
    restarted = dpm_multistep(gaussian, x, grid, data=data, restart_at=grid.tolist())
    torch.testing.assert_close(restarted, ddim(gaussian, x, grid), rtol=1e-12, atol=1e-12)


def test_a_restart_acts_on_the_step_that_begins_below_it() -> None:
    """A level of a restart belongs to the step above it, as a boundary to the stage above."""
    x, grid = 20 * torch.randn(2, 1, 2, 2, dtype=torch.float64), log_snr_grid(12, 0.02, 20.0)
    boundary = float(grid[5])
    whole = dpmpp_2m(gaussian, x, grid, restart_at=[boundary])
    above = dpmpp_2m(gaussian, x, grid[:7])
    below = dpmpp_2m(gaussian, above, grid[6:])
    assert torch.equal(whole, below)
    outside = dpmpp_2m(gaussian, x, grid, restart_at=[1e-3, 1e3])
    assert torch.equal(outside, dpmpp_2m(gaussian, x, grid))


@pytest.mark.parametrize("name", ["heun", "ddim", "dpm-3s", "dpmpp-3s"])
def test_single_step_solvers_have_no_history_to_drop(name: str) -> None:
    x, grid = 20 * torch.randn(2, 1, 2, 2, dtype=torch.float64), log_snr_grid(12, 0.02, 20.0)
    restarted = SOLVERS[name](gaussian, x, grid, restart_at=grid.tolist())
    assert torch.equal(restarted, SOLVERS[name](gaussian, x, grid))
