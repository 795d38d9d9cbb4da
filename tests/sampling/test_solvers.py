import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from multistage_diffusion.conditions import Conditions
from multistage_diffusion.data import Images, to_unit_range
from multistage_diffusion.denoiser import Denoiser, NetworkDenoiser
from multistage_diffusion.errors import BadInput
from multistage_diffusion.optimal import OptimalDenoiser
from multistage_diffusion.sampling.ancestral import ddim
from multistage_diffusion.sampling.dpm import (
    dpm_multistep,
    dpm_singlestep,
    dpmpp_2m,
    even_in_clock,
    even_in_log,
    singlestep_orders,
)
from multistage_diffusion.sampling.grids import karras_grid, log_snr_grid, step_grid, time_grid
from multistage_diffusion.sampling.noise import noise
from multistage_diffusion.sampling.solver import SolverEntry
from multistage_diffusion.sampling.solvers import SOLVERS
from multistage_diffusion.schedule import DDPM, VP, LogNormal
from tests.conftest import disturb

C = 0.5


Solve = Callable[[Denoiser, Tensor, Tensor], Tensor]


def singlestep(order: int, data: bool) -> Solve:
    def solver(denoiser: Denoiser, x: Tensor, sigmas: Tensor) -> Tensor:
        return dpm_singlestep(denoiser, x, sigmas, orders=[order] * (len(sigmas) - 1), data=data)

    return solver


# Those by evaluations end with steps of lower orders, so that no slope fits all numbers of them.
MIXED = ("dpm-3s", "dpmpp-3s")
FIXED = {name: entry for name, entry in SOLVERS.items() if not entry.adaptive}
DETERMINISTIC = {name: entry for name, entry in FIXED.items() if not entry.stochastic}
ORDERS: list[tuple[Solve, int]] = [
    (entry, entry.order) for entry in DETERMINISTIC.values() if entry.name not in MIXED
]
ORDERS += [(singlestep(order, data), order) for order in (1, 2, 3) for data in (False, True)]


def gaussian(x: Tensor, sigma: Tensor | float) -> Tensor:
    """The denoiser of data from N(0, C^2 I)."""
    return x * C**2 / (C**2 + torch.as_tensor(sigma, dtype=x.dtype) ** 2)


def solution(x: Tensor, start: float, end: float) -> Tensor:
    """Its probability flow: x(s) = x(s0) sqrt((C^2 + s^2) / (C^2 + s0^2))."""
    return x * math.sqrt((C**2 + end**2) / (C**2 + start**2))


def with_short_first_steps(grid: Tensor) -> Tensor:
    """The grid with its first step halved nine times.

    Multistep solvers begin at order 1; of a whole step that would be an error of order 2.
    """
    ratio = float(grid[1] / grid[0])
    inner = [float(grid[0]) * ratio ** (0.5**k) for k in range(9, 0, -1)]
    return torch.cat([grid[:1], grid.new_tensor(inner), grid[1:]])


def order(
    solver: Solve, denoiser: Denoiser, x: Tensor, start: float, end: float, exact: Tensor
) -> float:
    """Slope of log error over log step."""
    steps = np.array([40, 80, 160, 320])
    errors = []
    for count in steps:
        grid = with_short_first_steps(log_snr_grid(count + 1, end, start)[:-1])
        errors.append(float((solver(denoiser, x, grid) - exact).norm()))
    return float(-np.polyfit(np.log(steps), np.log(errors), 1)[0])


def assert_order(solver: Solve, found: float, expected: int, tolerance: float) -> None:
    """Multistep solvers of high order converge faster at first: the leading error is small."""
    multistep = isinstance(solver, SolverEntry) and expected > 2
    assert expected - tolerance - 0.4 * multistep < found
    assert found < expected + tolerance + 1.6 * multistep


@pytest.mark.parametrize(("solver", "expected"), ORDERS)
def test_order_on_a_gaussian(solver: Solve, expected: int) -> None:
    x = 20 * torch.randn(4, 1, 2, 2, dtype=torch.float64)
    found = order(solver, gaussian, x, 20.0, 0.02, solution(x, 20.0, 0.02))
    assert_order(solver, found, expected, 0.1)


@pytest.mark.parametrize("name", MIXED)
def test_mixed_orders_converge_nearly_as_fast_as_their_highest(name: str) -> None:
    x = 20 * torch.randn(4, 1, 2, 2, dtype=torch.float64)
    found = order(SOLVERS[name], gaussian, x, 20.0, 0.02, solution(x, 20.0, 0.02))
    assert found > SOLVERS[name].order - 0.6


@pytest.mark.parametrize(("solver", "expected"), ORDERS)
def test_order_on_the_optimal_denoiser(few_digits: Images, solver: Solve, expected: int) -> None:
    """Over levels at which several images still compete; the reference has very small steps of
    order 3."""
    denoiser = OptimalDenoiser(to_unit_range(few_digits.pixels[:], torch.float64))
    x = 10 * torch.from_numpy(np.random.default_rng(0).standard_normal((3, 1, 8, 8)))
    exact = singlestep(3, True)(denoiser, x, log_snr_grid(1601, 1.2, 10.0)[:-1])
    assert_order(solver, order(solver, denoiser, x, 10.0, 1.2, exact), expected, 0.15)


@pytest.mark.parametrize("solver", DETERMINISTIC.values())
def test_samples_of_the_optimal_denoiser_are_training_images(
    few_digits: Images, solver: Solve
) -> None:
    images = to_unit_range(few_digits.pixels[:])
    grid = karras_grid(40, 0.002, 80)
    samples = solver(OptimalDenoiser(images), 80 * noise(0, range(16), (1, 8, 8)), grid)
    nearest = torch.cdist(samples.flatten(1), images.flatten(1)).amin(1)
    assert float(nearest.max()) < 0.05


@pytest.mark.parametrize("solver", DETERMINISTIC.values())
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
    ("evaluations", "order", "expected"),
    [(4, 1, [1, 1, 1, 1]), (6, 2, [2, 2, 2]), (7, 2, [2, 2, 2, 1]), (1, 2, [1])],
)
def test_singlestep_orders_below_three(evaluations: int, order: int, expected: list[int]) -> None:
    assert singlestep_orders(evaluations, order) == expected


def test_levels_inside_steps_are_even_in_log_or_in_the_clock() -> None:
    assert even_in_log(8.0, 1.0, 3) == pytest.approx([4.0, 2.0])
    assert even_in_log(8.0, 1.0, 1) == []
    assert even_in_clock(LogNormal())(4.0, 1.0, 3) == pytest.approx([3.0, 2.0])
    assert even_in_clock(LogNormal(), 0.5)(9.0, 1.0, 2) == pytest.approx([4.0])
    high, low = (float(VP().from_clock(t)) for t in (0.8, 0.2))
    (middle,) = even_in_clock(VP())(high, low, 2)
    assert float(VP().to_clock(middle)) == pytest.approx(0.5)


def test_the_third_order_with_any_inner_levels_is_exact_for_noise_linear_in_log_sigma() -> None:
    """The slope is taken between the last inner level and the start, wherever that level lies."""

    def linear(x: Tensor, sigma: Tensor | float) -> Tensor:
        return x - float(sigma) * torch.full_like(x, 2 + 0.3 * math.log(sigma))

    x, grid = torch.zeros(1, 1, 1, 1, dtype=torch.float64), torch.tensor([3.0, 1.0])
    found = [
        dpm_singlestep(linear, x, grid.double(), orders=[3], inner=inner)
        for inner in (even_in_log, even_in_clock(LogNormal()), even_in_clock(VP()))
    ]
    exact = -(2 * 2.0 + 0.3 * ((3 * math.log(3) - 3) - (0 - 1)))  # of eps over sigma, 3 to 1
    for end in found:
        assert end.item() == pytest.approx(exact)


@pytest.mark.parametrize(
    ("solver", "calls"),
    [(solver, 35 if name in ("heun", "dpmpp-sde") else 18) for name, solver in FIXED.items()],
)
def test_number_of_evaluations(solver: SolverEntry, calls: int) -> None:
    levels: list[float] = []

    def counted(x: Tensor, sigma: Tensor | float) -> Tensor:
        levels.append(float(sigma))
        return gaussian(x, sigma)

    x = torch.randn(1, 1, 2, 2)
    solver(counted, x, karras_grid(18, 0.002, 80), noise=lambda _: torch.zeros_like(x))
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
def test_an_image_does_not_depend_on_its_batch(
    denoiser: NetworkDenoiser, solver: SolverEntry
) -> None:
    grid, start = karras_grid(6, 0.002, 80), 80 * noise(0, range(5), (1, 8, 8))

    def draw(images: Sequence[int]) -> Tensor:
        source = partial(noise, 0, images, (1, 8, 8))
        return solver(denoiser, start[list(images)], grid, noise=lambda k: source(draw=k))

    with torch.no_grad():
        together = draw(range(5))
        alone = torch.cat([draw([k]) for k in range(5)])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4 * float(together.abs().max()))


@pytest.mark.parametrize("solver", DETERMINISTIC.values())
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
    x = 20 * torch.randn(1, 1, 2, 2, dtype=torch.float64)
    grid = log_snr_grid(12, 0.02, 20.0)
    seen: list[tuple[int, float, Tensor, Tensor]] = []
    source = torch.randn(24, *x.shape, dtype=torch.float64).__getitem__
    plain = SOLVERS[name](gaussian, x, grid, noise=source)
    seeing = SOLVERS[name](
        gaussian, x, grid, noise=source, callback=lambda *step: seen.append(step)
    )
    assert torch.equal(seeing, plain)
    assert [step for step, *_ in seen] == list(range(len(seen)))
    assert torch.equal(seen[0][2], x)
    for _, sigma, state, denoised in seen:
        if not name.startswith("unipc"):  # whose state is corrected by the evaluation
            torch.testing.assert_close(denoised, gaussian(state, sigma))
    levels = [sigma for _, sigma, *_ in seen]
    assert levels == sorted(levels, reverse=True)
    if name not in MIXED and not SOLVERS[name].adaptive:  # which choose their own levels
        assert levels == grid[:-1].tolist()


@pytest.mark.parametrize("data", [False, True])
def test_a_multistep_solver_that_restarts_at_every_level_is_of_order_one(data: bool) -> None:
    """For the data prediction and the noise prediction alike, that is DDIM."""
    x, grid = 20 * torch.randn(2, 1, 2, 2, dtype=torch.float64), log_snr_grid(12, 0.02, 20.0)
    restarted = dpm_multistep(gaussian, x, grid, data=data, restart_at=grid.tolist())
    torch.testing.assert_close(restarted, ddim(gaussian, x, grid), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("data", [False, True])
def test_the_published_multistep_solver_ends_few_steps_with_lower_orders(data: bool) -> None:
    x, grid = 20 * torch.randn(2, 1, 2, 2, dtype=torch.float64), log_snr_grid(10, 0.02, 20.0)[:-1]
    solve = partial(dpm_multistep, gaussian, data=data)
    found = solve(x, grid, published=True)
    expected = ddim(gaussian, solve(x, grid[:-1]), grid[-2:])
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    assert not torch.allclose(found, solve(x, grid))
    to_zero = torch.cat([grid, grid.new_zeros(1)])
    torch.testing.assert_close(solve(x, to_zero, published=True), gaussian(found, grid[-1]))
    long = log_snr_grid(11, 0.02, 20.0)[:-1]
    assert torch.equal(solve(x, long, published=True), solve(x, long))
    ends = solve(x, grid, order=3, published=True), solve(x, grid, order=3)
    assert not torch.allclose(*ends)


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


@pytest.mark.parametrize("name", ["heun", "euler", "ddim", "dpm-3s", "dpmpp-3s"])
def test_single_step_solvers_have_no_history_to_drop(name: str) -> None:
    x, grid = 20 * torch.randn(2, 1, 2, 2, dtype=torch.float64), log_snr_grid(12, 0.02, 20.0)
    restarted = SOLVERS[name](gaussian, x, grid, restart_at=grid.tolist())
    assert torch.equal(restarted, SOLVERS[name](gaussian, x, grid))


MODES = torch.tensor([-1.0, 0.5], dtype=torch.float64)
WIDTHS = torch.tensor([0.2, 0.4], dtype=torch.float64)


def mixture(x: Tensor, sigma: Tensor | float) -> Tensor:
    """The denoiser of numbers from a mixture of two Gaussians of equal weight."""
    variance = WIDTHS**2 + torch.as_tensor(sigma)[..., None] ** 2
    apart = x[..., None] - MODES
    posterior = (-(apart**2) / (2 * variance) - variance.log() / 2).softmax(-1)
    means = MODES + WIDTHS**2 / variance * apart
    return (posterior * means).sum(-1)


@pytest.mark.parametrize(("solver", "expected"), ORDERS)
def test_order_on_a_mixture(solver: Solve, expected: int) -> None:
    x = torch.linspace(-12, 12, 16, dtype=torch.float64).reshape(-1, 1, 1, 1)
    exact = singlestep(3, True)(mixture, x, log_snr_grid(3001, 0.05, 10.0)[:-1])
    found = order(solver, mixture, x, 10.0, 0.05, exact)
    assert found == pytest.approx(expected, abs=0.35 if expected > 3 else 0.25)


STOCHASTIC: list[tuple[str, dict[str, Any]]] = [
    ("ddpm", {}),
    ("ddim", {"eta": 0.5}),
    ("dpmpp-sde", {}),
    ("dpmpp-sde", {"eta": 0.5}),
    ("dpmpp-2m-sde", {}),
    ("dpmpp-2m-sde", {"eta": 0.5}),
    ("heun", {"churn": 40.0}),
    ("euler", {"churn": 40.0, "churn_range": (0.05, 5.0)}),
]


@pytest.mark.parametrize(("name", "settings"), STOCHASTIC)
def test_stochastic_solvers_have_the_marginals_of_the_data(
    name: str, settings: dict[str, Any]
) -> None:
    """At each level the state is y + sigma n; here y is from the mixture."""
    source = torch.Generator().manual_seed(0)
    count = 20_000
    x = 20 * torch.randn(count, 1, 1, 1, dtype=torch.float64, generator=source)
    grid = log_snr_grid(301, 0.1, 20.0)[:-1]
    found = SOLVERS[name](
        mixture, x, grid, noise=lambda _: torch.randn(x.shape, generator=source), **settings
    )
    mean = float(MODES.mean())
    variance = float((WIDTHS**2 + MODES**2).mean()) - mean**2 + 0.1**2
    assert float(found.mean()) == pytest.approx(mean, abs=0.03)
    assert float(found.var()) == pytest.approx(variance, rel=0.03)
    left = float((found < -0.4).double().mean())
    normal = torch.distributions.Normal(MODES, (WIDTHS**2 + 0.1**2).sqrt())
    assert left == pytest.approx(float(normal.cdf(torch.tensor(-0.4)).mean()), abs=0.015)


def test_without_new_noise_stochastic_solvers_are_the_deterministic_ones() -> None:
    x, grid = 20 * torch.randn(2, 1, 2, 2, dtype=torch.float64), log_snr_grid(12, 0.02, 20.0)
    pairs = [("dpmpp-2m-sde", "dpmpp-2m"), ("ddim", "euler")]
    for stochastic, deterministic in pairs:
        still = SOLVERS[stochastic](gaussian, x, grid, eta=0.0)
        torch.testing.assert_close(still, SOLVERS[deterministic](gaussian, x, grid))
    churned = SOLVERS["heun"](gaussian, x, grid, churn=5.0, churn_range=(1e3, 1e4))
    torch.testing.assert_close(churned, SOLVERS["heun"](gaussian, x, grid))


def test_a_stochastic_solver_without_noise_says_so() -> None:
    with pytest.raises(ValueError, match="needs the argument noise"):
        SOLVERS["ddpm"](gaussian, torch.ones(1, 1, 1, 1), log_snr_grid(3, 0.1, 1.0))


@pytest.mark.parametrize("name", ["dpmpp-12", "dpmpp-23"])
def test_adaptive_steps_meet_their_tolerance_and_get_shorter_with_it(name: str) -> None:
    x = torch.linspace(-12, 12, 16, dtype=torch.float64).reshape(-1, 1, 1, 1)
    grid = log_snr_grid(2, 0.05, 10.0)[:-1]
    exact = singlestep(3, True)(mixture, x, log_snr_grid(3001, 0.05, 10.0)[:-1])
    errors, calls = [], []
    for tolerance in (0.1, 0.01, 0.001):
        evaluated: list[int] = []

        def counted(x: Tensor, sigma: Tensor | float, evaluated: list[int] = evaluated) -> Tensor:
            evaluated.append(len(x))
            return mixture(x, torch.as_tensor(sigma).reshape(-1, 1, 1, 1))

        found = SOLVERS[name](counted, x, grid, tolerance=tolerance)
        errors.append(float((found - exact).abs().max()))
        calls.append(sum(evaluated))
        assert errors[-1] < 10 * tolerance
    assert errors == sorted(errors, reverse=True)
    assert calls == sorted(calls)


def test_the_grids_of_time_and_step_are_those_of_their_bases() -> None:
    vp = VP()
    grid = time_grid(5, vp)
    torch.testing.assert_close(
        vp.to_clock(grid[:-1]), torch.linspace(1, 1e-3, 5, dtype=torch.float64)
    )
    assert time_grid(3, LogNormal()).tolist() == pytest.approx([80, 40.001, 0.002, 0])
    ddpm = DDPM()
    steps = ddpm.to_clock(step_grid(20, ddpm)[:-1])
    assert steps.tolist() == pytest.approx([950 - 50 * k for k in range(20)])
    assert float(step_grid(10, vp)[0]) < vp.sampling_range[1]
    with pytest.raises(BadInput, match="takes 1 to 1000 steps"):
        step_grid(1001, ddpm)


@pytest.mark.parametrize("name", SOLVERS)
def test_an_edit_at_the_end_of_a_step_is_where_the_next_one_begins(name: str) -> None:
    x = 20 * torch.randn(1, 1, 2, 2, dtype=torch.float64)
    grid, source = log_snr_grid(12, 0.02, 20.0), torch.randn(24, *x.shape, dtype=torch.float64)
    chosen = torch.randn_like(x)
    seen: list[Tensor] = []
    edited: list[int] = []

    def edit(step: int, state: Tensor) -> Tensor:
        edited.append(step)
        return chosen if step == 1 else state

    def callback(_: int, __: float, state: Tensor, ___: Tensor) -> None:
        seen.append(state)

    settings: dict[str, Any] = {"noise": source.__getitem__, "callback": callback}
    end = SOLVERS[name](gaussian, x, grid, edit=edit, **settings)
    assert edited == list(range(len(seen)))
    assert torch.equal(seen[2], chosen)
    assert not torch.equal(end, SOLVERS[name](gaussian, x, grid, **settings))
