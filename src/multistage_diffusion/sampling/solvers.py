"""All solvers by name. The modules that define them list them."""

from typing import TYPE_CHECKING, Literal

from multistage_diffusion.sampling import adaptive, ancestral, dpm, ode, unipc
from multistage_diffusion.sampling.solver import SolverEntry

__all__ = ["SOLVERS", "SOLVER_HELP", "SolverName"]

MODULES = (ode, ancestral, dpm, unipc, adaptive)

SOLVERS: dict[str, SolverEntry] = {
    entry.name: entry for module in MODULES for entry in module.SOLVERS
}
"""The solvers by the names that the command line uses."""

SOLVER_HELP = "; ".join(f"{entry.name}: {entry.about}" for entry in SOLVERS.values()) + "."

if TYPE_CHECKING:
    SolverName = str
else:
    SolverName = Literal[tuple(SOLVERS)]
