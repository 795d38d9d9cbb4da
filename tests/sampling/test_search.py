"""The search for noise levels."""

import itertools
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from multistage_diffusion.sampling import SOLVERS, karras_grid, log_snr_grid
from multistage_diffusion.sampling.path import RULES, Path, record_path, step_errors
from multistage_diffusion.sampling.search import Reuse, best_levels
from tests.sampling.test_solvers import C, gaussian, mixture


def recorded(count: int) -> Path:
    """A path of 64 samples of a mixture."""
    source = torch.Generator().manual_seed(0)
    x = 20 * torch.randn(64, 1, 1, 1, dtype=torch.float64, generator=source)
    return record_path(mixture, x, karras_grid(count, 0.02, 20.0))


@pytest.mark.parametrize("name", RULES)
def test_a_step_along_the_path_is_a_step_of_the_solver(name: str) -> None:
    """Its error is how far the solver is from the next recorded state."""
    x = 20 * torch.randn(16, 1, 1, 1, dtype=torch.float64)
    levels = torch.tensor([20.0, 4.0, 1.5, 0.0], dtype=torch.float64)
    path = record_path(gaussian, x, levels)
    errors = step_errors(path, RULES[name])
    states: list[Tensor] = []
    SOLVERS["heun"](gaussian, x, levels, callback=lambda *step: states.append(step[2]))

    def on_path(x: Tensor, sigma: Tensor | float) -> Tensor:
        """Heun's second evaluation is taken to be on the path."""
        return gaussian(states[1] if sigma == 4.0 else x, sigma)

    end = SOLVERS[name](on_path, x, levels[:2])
    assert errors[0, 0, 1] == pytest.approx(float((end - states[1]).square().mean().sqrt()))
    assert np.isinf(errors[:, 1, :2]).all()


def test_the_memory_of_a_multistep_solver_is_its_last_level() -> None:
    path = recorded(6)
    errors = step_errors(path, RULES["dpmpp-2m"])
    alone = step_errors(path, RULES["euler"])
    np.testing.assert_allclose(errors[2, 2, 3], alone[0, 2, 3])  # without memory it is Euler
    assert errors[1, 2, 3] < errors[2, 2, 3]
    np.testing.assert_allclose(errors[:5, 5, 6], alone[0, 5, 6])  # a step to 0 is of order 1


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("budget", [3, 5, 8])
def test_the_programme_finds_the_best_of_all_ways(name: str, budget: int) -> None:
    path = recorded(7)
    costs = [2.0, 1.0, 1.0, 1.0, 1.0, 0.5, 0.5]
    rule = RULES[name]
    errors = (step_errors(path, rule) * path.gains) ** 2
    best = math.inf
    for size in range(7):
        for inner in itertools.combinations(range(1, 7), size):
            way = [0, *inner, 7]
            calls = sum(costs[i] for i in way[:-1])
            if rule.evaluates_next:
                calls += sum(costs[j] for j in way[1:-1])
            if calls <= budget:
                steps = zip([0, *way], way, way[1:], strict=False)
                best = min(best, sum(errors[h, i, j] for h, i, j in steps))
    found = best_levels(path, rule, costs, budget)
    assert found
    assert found.error == pytest.approx(best)
    assert found.cost <= budget
    assert found.levels[0] == pytest.approx(20)


@pytest.mark.parametrize("name", ["euler", "dpmpp-2m"])
@pytest.mark.parametrize("scale", [0.0, 0.01, 10.0])
def test_with_reuse_it_finds_the_best_of_all_ways(name: str, scale: float) -> None:
    """Two stages of three levels; every way, with and without the encoder at every level."""
    path = recorded(6)
    costs, reused_costs = [4.0] * 6, [1.0] * 6
    stage = [0, 0, 0, 1, 1, 1]
    stale = np.full((6, 6), np.inf)
    for k, i in itertools.product(range(6), repeat=2):
        if k <= i and stage[k] == stage[i]:
            stale[k, i] = scale * (i - k)
    rule, levels = RULES[name], np.array(path.levels)
    errors = (step_errors(path, rule) * path.gains) ** 2

    def error(way: tuple[int, ...], kept: tuple[int, ...]) -> float:
        total, key = 0.0, 0
        for h, i, j in zip([0, *way], way, way[1:], strict=False):
            key = key if i in kept else i
            lost = stale[key, i] * (1 - levels[j] / levels[i]) * path.gains[j]
            total += errors[h, i, j] + (lost**2 if i in kept else 0.0)
        return total

    best = math.inf
    for size in range(6):
        for inner in itertools.combinations(range(1, 6), size):
            for number in range(len(inner) + 1):
                for kept in itertools.combinations(inner, number):
                    if 4 * (1 + size - number) + number <= 12:
                        best = min(best, error((0, *inner, 6), kept))
    found = best_levels(path, rule, costs, 12.0, Reuse(stale, reused_costs))
    assert found
    assert found.error == pytest.approx(best)
    assert found.cost == 4 * (len(found.levels) - len(found.reused)) + len(found.reused)
    alone = best_levels(path, rule, costs, 12.0)
    assert alone
    assert found.error <= alone.error * (1 + 1e-9)
    assert bool(found.reused) == (scale < 1)


def test_a_budget_for_no_step_gives_nothing() -> None:
    path = recorded(5)
    assert best_levels(path, RULES["heun"], [2.0] * 5, 1.0) is None


@pytest.mark.parametrize("name", ["dpmpp-2m", "euler", "heun"])
@pytest.mark.parametrize("evaluations", [6, 10])
def test_planned_levels_beat_karras_and_log_snr_on_other_starts(
    name: str, evaluations: int
) -> None:
    path = recorded(48)
    found = best_levels(path, RULES[name], [1.0] * 48, evaluations)
    assert found
    x = 20 * torch.linspace(-2.5, 2.5, 301, dtype=torch.float64).reshape(-1, 1, 1, 1)
    weight = torch.exp(-((x / 20) ** 2) / 2)
    exact = SOLVERS["heun"](mixture, x, karras_grid(400, 0.02, 20.0))

    def error(grid: Tensor) -> float:
        squares = (SOLVERS[name](mixture, x, grid) - exact).square()
        return float((weight * squares).sum() / weight.sum())

    steps = (evaluations + 1) // 2 if name == "heun" else evaluations
    planned = error(torch.tensor([*found.levels, 0.0], dtype=torch.float64))
    others = [error(grid(steps, 0.02, 20.0)) for grid in (karras_grid, log_snr_grid)]
    assert planned < min(others)


def test_errors_grow_as_the_solution_says() -> None:
    """For a Gaussian of deviation C by C / sqrt(C^2 + sigma^2)."""
    x = 20 * torch.randn(8, 1, 2, 2, dtype=torch.float64)
    path = record_path(gaussian, x, log_snr_grid(80, 0.02, 20.0))
    levels = np.array(path.levels)
    np.testing.assert_allclose(path.gains, C / np.sqrt(C**2 + levels**2), rtol=0.1)
