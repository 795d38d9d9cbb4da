"""Plans: a solver and its noise levels for one model and a budget."""

import math
import re
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import MISSING, dataclass, replace
from functools import partial
from pathlib import Path as FilePath
from typing import Literal

import torch
from torch import Tensor

from multistage_diffusion.conditions import Conditions
from multistage_diffusion.config import Settings, read_config, setting, to_json
from multistage_diffusion.cost import reused_macs, stage_costs
from multistage_diffusion.distributed import default_device
from multistage_diffusion.errors import BadInput
from multistage_diffusion.files import write_json
from multistage_diffusion.memory import check_memory
from multistage_diffusion.model import Model
from multistage_diffusion.sampling.calls import evaluations_per_stage, sampling_grid
from multistage_diffusion.sampling.draw import labels_of
from multistage_diffusion.sampling.grids import log_snr_grid
from multistage_diffusion.sampling.noise import noise
from multistage_diffusion.sampling.options import SampleOptions
from multistage_diffusion.sampling.path import RULES, record_path, rms, stale_errors
from multistage_diffusion.sampling.reuse import ReusingDenoiser
from multistage_diffusion.sampling.search import Levels, Reuse, best_levels
from multistage_diffusion.sampling.solvers import SOLVERS, SolverName

__all__ = ["Budget", "Candidate", "Plan", "find_plan", "load_plan", "parse_budget", "save_plan"]

FINE_LEVELS = 64
REUSE_LEVELS = 32  # fewer, since the search with reuse has pairs of levels as its states
REFERENCE_STEPS = 100  # of Heun's method
SEARCH_SEED, CHECK_SEED = 1_000_001, 1_000_002
GRIDS = ("karras", "log-snr")
UNITS = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}
MOST_BUDGET = 1e18
TIMED = 8  # images in a timed evaluation


@dataclass(frozen=True)
class Budget(Settings):
    """What one sample may cost."""

    amount: float = setting(MISSING, above=0, at_most=1e30)
    unit: Literal["nfe", "MAC", "s"] = setting(MISSING)
    """Evaluations of the network, multiply-accumulates or seconds."""


@dataclass(frozen=True)
class Candidate:
    """Noise levels and how far they lead from the solution."""

    name: str
    levels: tuple[float, ...]
    cost: float
    """Of a sample, in the budget's unit."""
    error: float
    """RMS distance to the solution in small steps, on starts that the search did not see; images
    are from -1 to 1."""
    reuse: tuple[float, ...] = ()
    """Levels at which the encoder is not evaluated."""


@dataclass(frozen=True, kw_only=True)
class Plan(Settings):
    """The best candidate for a model and a budget."""

    solver: str
    levels: tuple[float, ...] = setting(MISSING, at_least=1e-9, at_most=1e9)
    budget: Budget
    evaluations_per_stage: tuple[int, ...]
    candidates: tuple[Candidate, ...]
    """All that were compared, best first."""
    trained_images: int = setting(MISSING, at_least=0)
    """Of the model."""
    reuse: tuple[float, ...] = ()
    """Levels at which the encoder is not evaluated."""

    def apply(self, options: SampleOptions) -> SampleOptions:
        """The options with the plan's solver and levels."""
        return replace(options, solver=self.solver, levels=self.levels, reuse=self.reuse)


def parse_budget(text: str) -> Budget:
    """A budget such as ``20nfe``, ``2GMAC`` or ``0.5s``, for one sample.

    Raises:
        BadInput: if the text is no budget.
    """
    match = re.fullmatch(r"([0-9.]+(?:e[+-]?[0-9]+)?) *(?:(nfe)|([kMGT]?)MACs?|(s))", text.strip())
    try:
        amount = float(match[1]) if match else 0.0
    except ValueError:
        amount = 0.0
    if not match or not 1 / MOST_BUDGET <= amount <= MOST_BUDGET:
        raise BadInput(f"Give the budget of a sample such as 20nfe, 2GMAC or 0.5s, not {text!r}.")
    if match[2]:
        return Budget(amount, "nfe")
    if match[4]:
        return Budget(amount, "s")
    return Budget(amount * UNITS[match[3]], "MAC")


def save_plan(path: FilePath, plan: Plan) -> None:
    """Writes a plan as JSON."""
    write_json(path, to_json(plan))


def load_plan(path: FilePath) -> Plan:
    """A plan from its file.

    Raises:
        BadInput: if the file holds none.
    """
    plan = read_config(Plan, path)
    if plan.solver not in SOLVERS:
        raise BadInput(f"{path} is a plan for the unknown solver {plan.solver}; search it again.")
    return plan


@torch.inference_mode()
def find_plan(
    model: Model,
    budget: Budget,
    solver: SolverName = "dpmpp-2m",
    images: int = 32,
    reuse: bool = False,
) -> Plan:
    """Searches noise levels on recorded paths, and compares them with the usual grids on others.

    Args:
        model: the model.
        budget: for one sample.
        solver: which the levels are for.
        images: samples whose paths are recorded; as many others are compared.
        reuse: whether to search also for levels at which the encoder is not evaluated.

    Raises:
        BadInput: if the levels of this solver cannot be searched, or the budget pays for no step or
            for far more than are searched.
    """
    if solver not in RULES:
        raise BadInput(f"Levels are searched for {', '.join(RULES)}, not for {solver}.")
    if reuse and (RULES[solver].evaluates_next or budget.unit == "nfe"):
        raise BadInput(
            "Encoder reuse is for solvers of one evaluation a step and budgets of MACs or seconds, "
            f"not for {solver} and {budget.amount:g}{budget.unit}."
        )
    numbers = (2 * FINE_LEVELS + 1) * images * math.prod(model.config.shape)
    check_memory(8 * numbers, f"The search on {images:,} images", "give fewer --images")
    costs = _costs(model, budget)
    _check_budget(model, solver, costs, budget)
    searched = [("searched", _search(model, budget, solver, images, costs))]
    if reuse:
        searched.append(("with reuse", _search_reuse(model, budget, solver, images, costs)))
    entries = [_entry(name, solver, found, budget) for name, found in searched]
    for grid in GRIDS:
        if usual := _most_steps(model, solver, grid, costs, budget):
            entries.append((grid, usual, _cost(model, usual, costs)))
    candidates = sorted(_compare(model, entries, images), key=lambda one: one.error)
    best = SampleOptions(solver=solver, levels=candidates[0].levels)
    return Plan(
        solver=solver,
        levels=best.levels,
        budget=budget,
        evaluations_per_stage=tuple(evaluations_per_stage(model.config, best)),
        candidates=tuple(candidates),
        trained_images=model.images,
        reuse=candidates[0].reuse,
    )


def _check_budget(model: Model, solver: SolverName, costs: Sequence[float], budget: Budget) -> None:
    """Raises BadInput if a budget is twice what the most steps that are searched cost, or more."""
    longest = (SampleOptions(solver=solver, grid=grid, steps=FINE_LEVELS) for grid in GRIDS)
    most = max(_cost(model, options, costs) for options in longest)
    if budget.amount >= 2 * most:
        raise BadInput(
            f"The budget of {budget.amount:g} {budget.unit} pays for far more than {FINE_LEVELS} "
            f"steps, the most that are searched: give at most {most:.3g}{budget.unit}, or choose a "
            "grid with sample --grid and --steps."
        )


Entry = tuple[str, SampleOptions, float]
"""What is compared: its name, the solver with its levels, and the cost of a sample."""


def _entry(name: str, solver: SolverName, found: Levels | None, budget: Budget) -> Entry:
    if found is None:
        raise BadInput(
            f"The budget of {budget.amount:g} {budget.unit} pays for no step: give a larger one."
        )
    options = SampleOptions(solver=solver, levels=found.levels, reuse=found.reused)
    return name, options, found.cost


def _search(
    model: Model, budget: Budget, solver: SolverName, images: int, costs: Sequence[float]
) -> Levels | None:
    fine, at = _fine_levels(model, FINE_LEVELS)
    start, denoiser = _start(model, SEARCH_SEED, range(images))
    path = record_path(denoiser, start * float(fine[0]), fine)
    return best_levels(path, RULES[solver], [costs[stage] for stage in at], budget.amount)


def _search_reuse(
    model: Model, budget: Budget, solver: SolverName, images: int, costs: Sequence[float]
) -> Levels | None:
    """The same on fewer levels, each with or without its encoder."""
    fine, at = _fine_levels(model, REUSE_LEVELS)
    start, denoiser = _start(model, SEARCH_SEED, range(images))
    path = record_path(denoiser, start * float(fine[0]), fine)
    errors = stale_errors(model.denoiser, path, denoiser.keywords["conditions"])
    saved = _costs(model, budget, reuse=True)
    kept = Reuse(errors, [saved[stage] for stage in at])
    return best_levels(path, RULES[solver], [costs[stage] for stage in at], budget.amount, kept)


def _fine_levels(model: Model, count: int) -> tuple[Tensor, list[int]]:
    """Levels to choose from, the last one 0, and the stages of the others."""
    fine = log_snr_grid(count, *model.config.density.sampling_range)
    return fine, model.denoiser.stages.index(fine[:-1]).tolist()


def _start(model: Model, seed: int, indices: Sequence[int]) -> tuple[Tensor, partial[Tensor]]:
    """Unit noise and the denoiser with the labels of these samples, on the accelerator if any."""
    device = default_device()
    conditions = Conditions(labels_of(model, SampleOptions(), indices)).to(device)
    denoiser = partial(model.denoiser.to(device), conditions=conditions)
    return noise(seed, indices, model.config.shape).to(device), denoiser


def _costs(model: Model, budget: Budget, reuse: bool = False) -> list[float]:
    """An evaluation in each stage, whole or without its encoder, in the unit of the budget."""
    stages = len(model.denoiser.stages)
    if budget.unit == "nfe":
        return [1.0] * stages
    if budget.unit == "s":
        return [_seconds(model, stage, reuse) for stage in range(stages)]
    if reuse:
        return [float(macs) for macs in reused_macs(model.config)]
    return [float(cost.macs) for cost in stage_costs(model.config)]


def _seconds(model: Model, stage: int, reuse: bool) -> float:
    """Seconds of an evaluation of an image in a stage, in a batch: the median of five."""
    x, denoiser = _start(model, 0, range(TIMED))
    low, high = model.denoiser.stages.bounds(stage)
    sigma = min(2 * low, high) if low else min(high, 1.0) / 2
    evaluate = ReusingDenoiser(model.denoiser, [sigma] if reuse else [])
    times = []
    for _ in range(6):
        begun = time.perf_counter()
        evaluate(x * sigma, sigma, denoiser.keywords["conditions"]).sum().item()
        times.append((time.perf_counter() - begun) / TIMED)
    return statistics.median(times[1:])


def _cost(model: Model, options: SampleOptions, costs: Sequence[float]) -> float:
    calls = evaluations_per_stage(model.config, options)
    return sum(count * cost for count, cost in zip(calls, costs, strict=True))


def _most_steps(
    model: Model, solver: SolverName, grid: str, costs: Sequence[float], budget: Budget
) -> SampleOptions | None:
    """The usual grid with as many steps as the budget pays for."""
    best = None
    for steps in range(1, FINE_LEVELS + 1):
        options = SampleOptions(solver=solver, grid=grid, steps=steps)
        if _cost(model, options, costs) > budget.amount * (1 + 1e-9):
            break
        best = options
    return best


def _compare(model: Model, entries: Sequence[Entry], images: int) -> Iterator[Candidate]:
    """Each candidate's distance to the solution, from starts of their own."""
    start, denoiser = _start(model, CHECK_SEED, range(images))

    def solve(given: SampleOptions) -> Tensor:
        grid = sampling_grid(model.config, given)
        reusing = ReusingDenoiser(model.denoiser, given.reuse)
        called = partial(reusing, **denoiser.keywords) if given.reuse else denoiser
        return SOLVERS[given.solver](called, start * float(grid[0]), grid)

    exact = solve(SampleOptions(solver="heun", steps=REFERENCE_STEPS))
    for name, given, cost in entries:
        levels = tuple(sampling_grid(model.config, given)[:-1].tolist())
        yield Candidate(name, levels, cost, rms(solve(given) - exact), given.reuse)
