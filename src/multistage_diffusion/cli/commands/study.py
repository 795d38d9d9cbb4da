"""``multistage study``: several ways to train, compared at the same cost."""

from dataclasses import dataclass, replace
from functools import reduce
from pathlib import Path
from typing import Annotated

import tyro

from multistage_diffusion.cli.holding import holding
from multistage_diffusion.cli.main import INTERRUPTED
from multistage_diffusion.cli.signals import stop_on_signal
from multistage_diffusion.cli.study.execution import Execution
from multistage_diffusion.cli.study.steps import Job, Planner, arms_of, only, waves, with_data
from multistage_diffusion.cli.terminal import print_line, print_settings, print_table
from multistage_diffusion.config import Settings, setting, to_json
from multistage_diffusion.errors import BadInput
from multistage_diffusion.files import read_json, write_atomically, write_json
from multistage_diffusion.run import claim
from multistage_diffusion.study import (
    Results,
    StudyConfig,
    check_same,
    collect,
    load_study,
    merge,
    read_study,
)
from multistage_diffusion.study.figures import curves_figure, sampling_figure
from multistage_diffusion.study.tables import as_json, as_markdown, reached_text

__all__ = ["COMMAND", "Study"]


@dataclass(frozen=True, kw_only=True)
class Study(Settings):
    """Train several arms at the same cost with the same seeds, measure them at intervals, and write
    tables and figures.

    The same command again continues: finished runs and measurements stay. Each run is an ordinary
    run folder.
    """

    file: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FILE.toml")]
    """A study file, see docs/studies.md and examples/studies."""
    out: Path
    """Folder of the study: runs, logs, stages, README.md, results.json, figures."""
    size: str | None = None
    """A size of the study file, such as tiny or cpu, instead of the full one."""
    data: str | None = None
    """Other images than the study file's."""
    held_out_data: str | None = None
    """Images of the same kind for the denoising loss, beside --data."""
    seeds: tuple[int, ...] = setting((), at_least=0)
    """Other seeds than the study file's."""
    workers: int = setting(1, at_least=1, at_most=1024)
    """Runs at the same time; they share the processor cores."""
    only: tuple[str, ...] = ()
    """Only these arms (unified) or runs (unified-0). Default: all."""
    merge: tuple[Path, ...] = ()
    """Folders of the same study from other machines, whose runs the tables and figures show too;
    results.json and study.json are enough of each."""
    tables_only: bool = False
    """Write tables and figures of what there is, and run nothing."""
    dry_run: bool = False
    """Print the resolved study and stop."""

    def run(self) -> int:
        study = with_data(read_study(self.file, self.size), self.data, self.held_out_data)
        study = replace(study, seeds=self.seeds or study.seeds)
        _check_names(study, self.only)
        others = [load_study(folder) for folder in self.merge]
        for other in others:
            check_same(study, other.study)
        if self.dry_run:
            print_settings(to_json(study))
            return 0
        claim(self.out, "is not the folder of a study", _is_study, folder=True)
        with holding(self.out, "study"):
            write_json(self.out / "study.json", to_json(study))
            finished = self.tables_only or self._execute(study)
            _write(reduce(merge, others, collect(study, self.out)), self.out)
        print_line(f"tables and figures: {self.out / 'README.md'}")
        return 0 if finished else INTERRUPTED

    def _execute(self, study: StudyConfig) -> bool:
        """Trains and measures; returns whether all is finished."""
        planner = Planner(study, self.out)
        print_line(f"each run may spend {planner.budget:.3g} multiply-accumulates")
        with stop_on_signal() as should_stop:
            execution = Execution(self.out / "logs", self.workers, should_stop)
            wanted = arms_of(study, self.only)
            for wave in waves(study):
                names = [name for name in wave if name in wanted]
                if not execution.run(_clusterings(planner, names)):
                    return _interrupted()
                jobs = only([job for name in names for job in planner.jobs(name)], self.only)
                if not execution.run(jobs):
                    return _interrupted()
            if not execution.run(only(planner.gradients(), self.only)):
                return _interrupted()
        return True


COMMAND = Study


def _check_names(study: StudyConfig, wanted: tuple[str, ...]) -> None:
    runs = {f"{arm}-{seed}" for arm in study.arms for seed in study.seeds}
    for name in wanted:
        if name not in runs and name not in study.arms:
            raise BadInput(f"--only: the study has no arm or run {name}.")


def _is_study(path: Path) -> bool:
    file = path / "study.json"
    return file.exists() and isinstance(read_json(file), dict)


def _clusterings(planner: Planner, names: list[str]) -> list[Job]:
    commands = {name: planner.clustering(name) for name in names}
    return [Job(f"{name}-stages", 0, [c]) for name, c in commands.items() if c]


def _interrupted() -> bool:
    print_line("interrupted; the same command continues")
    return False


def _write(results: Results, out: Path) -> None:
    """Writes tables and figures, and prints the main table."""
    metrics = results.metrics()
    figures: dict[str, str] = {}
    for cost in results.costs():
        path = f"figures/scores-over-{cost.replace('_', '-')}.svg"
        write_atomically(out / path, curves_figure(results, metrics, cost).encode())
        figures[f"Scores over {cost.replace('_', ' ')}"] = path
    if results.study.samplers:
        for metric in (name for name in metrics if "denoising" not in name):
            path = f"figures/sampling-{metric}.svg"
            write_atomically(out / path, sampling_figure(results, metric).encode())
            figures[f"{metric} over the cost of a sample"] = path
    grids = sorted((out / "samples").glob("*.png"))
    figures |= {f"Samples of {grid.stem}": f"samples/{grid.name}" for grid in grids}
    write_atomically(out / "README.md", as_markdown(results, figures).encode())
    write_json(out / "results.json", as_json(results))
    _print_reached(results)


def _print_reached(results: Results) -> None:
    rows = [
        [metric, *(reached_text(results.reach(arm, metric)) for arm in results.arms)]
        for metric in results.metrics()
    ]
    print_line(f"part of the MACs of {results.study.reference} to reach its final score:")
    print_table(["metric", *results.arms], rows)
