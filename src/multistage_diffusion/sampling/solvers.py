"""All solvers by name. The modules that define them list them."""

from typing import TYPE_CHECKING, Literal

from multistage_diffusion.sampling import dpm, ode
from multistage_diffusion.sampling.solver import SolverEntry

__all__ = ["SOLVERS", "SOLVER_HELP", "SolverName"]

SOLVERS: dict[str, SolverEntry] = {entry.name: entry for entry in (*ode.SOLVERS, *dpm.SOLVERS)}
"""The solvers by the names that the command line uses."""

SOLVER_HELP = "; ".join(f"{entry.name}: {entry.about}" for entry in SOLVERS.values()) + "."

if TYPE_CHECKING:
    SolverName = str
else:
    SolverName = Literal[tuple(SOLVERS)]
