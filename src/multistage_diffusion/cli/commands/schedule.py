"""``multistage schedule``: the best noise levels for a budget."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from multistage_diffusion.cli.plans import plan_file, print_plan
from multistage_diffusion.cli.terminal import print_line, print_settings
from multistage_diffusion.config import Settings, setting, to_json
from multistage_diffusion.errors import BadInput
from multistage_diffusion.model import load_model
from multistage_diffusion.run import claim, find_model
from multistage_diffusion.sampling.plan import find_plan, load_plan, parse_budget, save_plan
from multistage_diffusion.sampling.solvers import SolverName

__all__ = ["COMMAND", "Schedule"]


@dataclass(frozen=True, kw_only=True)
class Schedule(Settings):
    """Search the noise levels at which a solver comes closest to the exact solution of a model, for
    a given cost of a sample.

    The search records the paths of some samples in small steps and weights each possible step by
    the cost of the network in its stage. The levels found are compared with the usual grids at the
    same cost, on other samples; the best are written as a plan for sample --plan and
    evaluate --plan.
    """

    run_folder: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Folder of a run, or a model file."""
    budget: str
    """Cost of one sample: 20nfe (evaluations of the network), 2GMAC or 0.5s."""
    solver: SolverName = "dpmpp-2m"
    """The solver that the levels are for: euler, ddim, dpmpp-2m or heun."""
    images: int = setting(32, at_least=1, at_most=100_000)
    """Number of samples whose paths are recorded; as many others are used to compare."""
    reuse: bool = False
    """Also search for levels at which the encoder is not evaluated and its features of the level
    before are reused."""
    out: Path | None = None
    """The plan to write. Default: RUN/plans/SOLVER-BUDGET.json, replaced if it is there."""
    dry_run: bool = False
    """Print the resolved settings and stop."""

    def run(self) -> None:
        budget = parse_budget(self.budget)
        model = load_model(find_model(self.run_folder))
        out = self.out or plan_file(self.run_folder, self.solver, self.budget, self.reuse)
        if self.dry_run:
            return print_settings({**to_json(self), "out": str(out)})
        claim(out, "is not a plan", _is_plan)
        plan = find_plan(model, budget, self.solver, self.images, self.reuse)
        print_plan(plan)
        save_plan(out, plan)
        print_line(f"wrote {out}")


COMMAND = Schedule


def _is_plan(path: Path) -> bool:
    try:
        load_plan(path)
    except BadInput:
        return False
    return True
