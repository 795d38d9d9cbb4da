"""``multistage cluster``: stages from a data set."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from multistage_diffusion.cli.output import show_plan, table
from multistage_diffusion.cli.progress import say, track
from multistage_diffusion.clustering import Clustering, ClusterOptions, agreement, cluster, identity
from multistage_diffusion.config import ScheduleName, to_json
from multistage_diffusion.data import load
from multistage_diffusion.errors import BadInput
from multistage_diffusion.files import read_json, write_json
from multistage_diffusion.schedule import SCHEDULES

__all__ = ["Cluster"]


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """Find the noise levels at which a data set's stages begin and end, and write them to a stages file."""

    data: str
    """Images: a folder, a .npz or .parquet file, or 'digits'."""
    out: Path = Path("stages.json")
    """The stages file to write."""
    schedule: ScheduleName = "vp"
    """Density of noise levels to average over. The paper uses vp for every base; boundaries in sigma serve all of them."""
    method: Literal["optimal-denoiser"] = "optimal-denoiser"
    """Agreement of the closed-form optimal denoiser with its limits (paper, algorithm 1)."""
    stages: Literal[3] = 3
    """Number of stages."""
    rule: Annotated[ClusterOptions, tyro.conf.OmitArgPrefixes] = field(default_factory=ClusterOptions)
    dry_run: bool = False
    """Print the resolved settings and stop."""

    def run(self) -> None:
        if self.dry_run:
            return show_plan(to_json(self))
        images = load(self.data)
        schedule = SCHEDULES[self.schedule]
        say(f"{len(images)} images {'x'.join(map(str, images.shape))}, fingerprint {images.fingerprint}")
        if self.out.exists():
            return _check_existing(self.out, identity(images, self.schedule, self.rule))
        parts = agreement(images, schedule.levels(self.rule.levels), self.rule)
        watched = track(parts, "pairs", self.rule.pairs, lambda part: len(part.low))
        result = cluster(images, schedule, self.rule, watched)
        write_json(self.out, result.to_json(images, self.schedule))
        _show(result)
        say(f"wrote {self.out}")


def _check_existing(out: Path, wanted: dict[str, Any]) -> None:
    """An existing file is kept. It must be what this command would write."""
    found = read_json(out) if out.is_file() else {}
    if not isinstance(found, dict) or any(found.get(key) != value for key, value in wanted.items()):
        raise BadInput(f"{out} exists and holds something else; choose another --out or remove it.")
    say(f"{out} holds these stages already: {', '.join(f'{b:.4g}' for b in found['boundaries'])}")


def _show(result: Clustering) -> None:
    clock = result.schedule.clock
    rows = []
    for stage in range(len(result.stages)):
        low, high = result.stages.bounds(stage)
        times = [f"{float(result.schedule.to_clock(level)):.4g}" if 0 < level < float("inf") else "" for level in (low, high)]
        interval = "{:.4g} .. {:.4g}".format(*result.ci95[stage]) if stage < len(result.ci95) else ""
        share = f"{result.stages.share(result.schedule, stage):.1%}"
        rows.append([str(stage + 1), f"{low:.4g}", f"{high:.4g}", interval, times[0], times[1], share])
    table(["stage", "sigma from", "to", "95 % of 'to'", f"{clock} from", "to", "share"], rows)
