"""Plans on the command line: their files, and how they are printed."""

from dataclasses import replace
from pathlib import Path
from typing import Literal

from multistage_diffusion.cli.terminal import print_line, print_table, print_warning
from multistage_diffusion.errors import BadInput
from multistage_diffusion.model import Model
from multistage_diffusion.run import run_of
from multistage_diffusion.sampling import SampleOptions
from multistage_diffusion.sampling.plan import (
    Plan,
    find_plan,
    load_plan,
    parse_budget,
    save_plan,
)

__all__ = ["Quality", "plan_file", "print_plan", "with_plan", "with_quality"]

Quality = Literal["fast", "good", "best"]
BUDGETS = {"fast": "6nfe", "good": "12nfe"}
"""Budgets of the qualities that search their levels. At larger budgets the usual grid is closer."""
BEST = SampleOptions(solver="dpmpp-2m", steps=48)


def plan_file(target: Path, solver: str, budget: str, reuse: bool = False) -> Path:
    """Where the plan of a run or model file is kept by default."""
    name = f"{solver}-{budget.replace(' ', '')}{'-reuse' if reuse else ''}"
    return run_of(target).path / "plans" / f"{name}.json"


def print_plan(plan: Plan) -> None:
    """Prints what was compared, and the levels that were chosen."""
    unit = plan.budget.unit
    rows = [
        [one.name, str(len(one.levels)), f"{one.cost:.4g} {unit}", f"{one.error:.4f}"]
        for one in plan.candidates
    ]
    print_table(["levels", "steps", "cost", "distance to the solution"], rows)
    calls = ", ".join(map(str, plan.evaluations_per_stage))
    print_line(f"{plan.solver}, levels {' '.join(f'{sigma:.4g}' for sigma in plan.levels)}")
    print_line(f"evaluations by stage: {calls}")
    if plan.reuse:
        levels = " ".join(f"{sigma:.4g}" for sigma in plan.reuse)
        print_line(f"without the encoder at {levels}")


def with_plan(
    options: SampleOptions,
    model: Model,
    target: Path,
    file: Path | None,
    budget: str | None = None,
) -> SampleOptions:
    """The options with a plan's solver and levels.

    Args:
        options: without levels of their own.
        model: the model.
        target: its run or file, for the plan of a budget, which is searched if it is not there.
        file: a plan, if one is given.
        budget: a budget, if one is given.

    Raises:
        BadInput: if more than one of them says which levels to use.
    """
    if file is None and budget is None:
        return options
    if options.levels or (file and budget):
        raise BadInput("Give one of --plan, --budget and --levels.")
    plan = load_plan(file) if file else _planned(options, model, target, budget or "")
    if plan.trained_images != model.images:
        print_warning(
            f"the plan was made for a model after {plan.trained_images:,} images, not "
            f"{model.images:,}"
        )
    return plan.apply(options)


def with_quality(
    options: SampleOptions, model: Model, target: Path, quality: Quality
) -> SampleOptions:
    """The options with the solver and levels of a quality, see benchmarks/plans.md.

    Args:
        options: with the usual solver and levels.
        model: the model.
        target: its run or file, for the plan of a budget, which is searched if it is not there.
        quality: the quality that is asked for.

    Raises:
        BadInput: if options say which solver or levels to use.
    """
    usual = SampleOptions()
    chosen = ("solver", "steps", "grid", "levels", "sigma_min", "sigma_max")
    if any(getattr(options, name) != getattr(usual, name) for name in chosen):
        raise BadInput("--quality chooses solver and noise levels; give no others.")
    if quality in BUDGETS:
        return with_plan(options, model, target, None, BUDGETS[quality])
    return replace(options, solver=BEST.solver, steps=BEST.steps)


def _planned(options: SampleOptions, model: Model, target: Path, budget: str) -> Plan:
    solver = options.solver if options.solver != SampleOptions().solver else "dpmpp-2m"
    wanted, file = parse_budget(budget), plan_file(target, solver, budget)
    if file.exists() and (plan := load_plan(file)).trained_images == model.images:
        return plan
    plan = find_plan(model, wanted, solver)
    save_plan(file, plan)
    print_plan(plan)
    return plan
