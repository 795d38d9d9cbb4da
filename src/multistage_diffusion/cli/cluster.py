"""``multistage cluster``: stages from a data set."""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import tyro

from multistage_diffusion.cli.output import show_plan, table
from multistage_diffusion.cli.progress import say, track
from multistage_diffusion.clustering import Clustering, ClusterOptions, agreement, cluster, identity
from multistage_diffusion.config import ScheduleName, to_json
from multistage_diffusion.data import load
from multistage_diffusion.errors import BadInput
from multistage_diffusion.files import read_json, write_atomically, write_json
from multistage_diffusion.report.figures import stages_figure
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
        figure = self.out.with_suffix(".svg")
        if figure.exists():
            raise BadInput(f"{figure} exists, and the figure of {self.out} would go there; choose another --out.")
        parts = agreement(images, schedule.levels(self.rule.levels), self.rule)
        watched = track(parts, "pairs", self.rule.pairs, lambda part: len(part.low))
        result = cluster(images, schedule, self.rule, watched)
        contents = result.to_json(images, self.schedule)
        if contents["curves"]:
            write_atomically(figure, stages_figure(contents).encode())
        write_json(self.out, contents)
        _show(result)
        say(f"wrote {self.out}{f' and {figure}' if contents['curves'] else ''}")


def _check_existing(out: Path, wanted: dict[str, Any]) -> None:
    """An existing file is kept. It must be what this command would write."""
    found = read_json(out) if out.is_file() else {}
    if not isinstance(found, dict) or any(found.get(key) != value for key, value in wanted.items()):
        raise BadInput(f"{out} exists and holds something else; choose another --out or remove it.")
    say(f"{out} holds these stages already: {', '.join(f'{b:.4g}' for b in found['boundaries'])}")


def _show(result: Clustering) -> None:
    clock = result.schedule.clock
    headings = ["stage", "sigma from", "to", "95 % of 'to'", f"{clock} from", "to", "log SNR from", "to", "share of levels"]
    table(headings, [_row(result, stage) for stage in range(len(result.stages))])
    if similarity := result.within_stage_similarity():
        listed = ", ".join(f"{number}: {value:.3f}" for number, value in enumerate(similarity, 1))
        say(f"similarity within stages by their number: {listed}")
        enough = next((n for n, value in enumerate(similarity, 1) if value >= result.options.alpha), None)
        say(f"alpha = {result.options.alpha} is {f'first reached by {enough} stages' if enough else 'reached by none of these'}")


def _row(result: Clustering, stage: int) -> list[str]:
    bounds = result.stages.bounds(stage)
    edges = [level if 0 < level < float("inf") else None for level in bounds]
    times = ["" if edge is None else f"{float(result.schedule.to_clock(edge)):.4g}" for edge in edges]
    ratios = ["" if edge is None else f"{-2 * math.log(edge):.3f}" for edge in edges]
    interval = "{:.4g} .. {:.4g}".format(*result.ci95[stage]) if stage < len(result.ci95) else ""
    share = f"{result.stages.share(result.schedule, stage):.1%}"
    return [str(stage + 1), *(f"{level:.4g}" for level in bounds), interval, *times, *ratios, share]
