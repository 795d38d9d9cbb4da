"""``multistage cluster``: stages from a data set."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import tyro

from multistage_diffusion import distributed
from multistage_diffusion.cli.progress import show_progress
from multistage_diffusion.cli.reading import read
from multistage_diffusion.cli.terminal import print_line, print_settings, print_table, print_warning
from multistage_diffusion.clustering import Clustering, ClusterOptions, Sums, cluster, identity
from multistage_diffusion.config import to_json
from multistage_diffusion.data import Images, ReadOptions
from multistage_diffusion.errors import BadInput
from multistage_diffusion.files import fingerprint, read_json, write_atomically, write_json
from multistage_diffusion.model import load_model
from multistage_diffusion.report.figures import stages_figure
from multistage_diffusion.run import find_model
from multistage_diffusion.schedule import SCHEDULES, ScheduleName

__all__ = ["Cluster"]

MAY_CHANGE = ("pairs", "ci_width", "most_pairs")  # of a computation that is continued


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """Find the noise levels at which a data set's stages begin and end, and write them to a stages file.

    The same command again continues an interrupted one. Several processes (torchrun) share the work.
    """

    data: str
    """Images: a folder, an archive, shards, a table, a hub id or 'digits'; see "Your own images" in the README. Or latents: a
    floating point .npy file [N, C, H, W]."""
    out: Path = Path("stages.json")
    """The stages file to write."""
    schedule: ScheduleName = "vp"
    """Density of noise levels to average over. The paper uses vp for every base; boundaries in sigma serve all of them."""
    checkpoint: Path | None = None
    """A run or a model file, for the method gradient."""
    reading: Annotated[ReadOptions, tyro.conf.OmitArgPrefixes] = field(default_factory=ReadOptions)
    rule: Annotated[ClusterOptions, tyro.conf.OmitArgPrefixes] = field(
        default_factory=ClusterOptions
    )
    dry_run: bool = False
    """Print the resolved settings and stop."""

    def run(self) -> None:
        if self.dry_run:
            return print_settings(to_json(self))
        if (self.rule.method == "gradient") != (self.checkpoint is not None):
            raise BadInput(
                "The method gradient needs --checkpoint RUN, and no other method takes one."
            )
        with distributed.process_group(distributed.float64_device()):
            self._write(read(self.data, self.reading))

    def _write(self, images: Images) -> None:
        print_line(
            f"{len(images)} images {'x'.join(map(str, images.shape))}, fingerprint {images.fingerprint}"
        )
        file = find_model(self.checkpoint) if self.checkpoint else None
        checkpoint = fingerprint(file) if file else None
        if self.out.exists():
            return _check_existing(self.out, identity(images, self.schedule, self.rule, checkpoint))
        figure = self.out.with_suffix(".svg")
        if figure.exists():
            raise BadInput(
                f"{figure} exists, and the figure of {self.out} would go there; choose another --out."
            )
        partial = Partial(
            self.out.with_name(f"{self.out.name}.partial"),
            identity(images, self.schedule, self.rule, checkpoint),
        )
        model = load_model(file) if file else None
        found = cluster(
            images, SCHEDULES[self.schedule], self.rule, model, partial.sums(), partial.watch
        )
        if distributed.rank() == 0:
            self._finish(found, found.to_json(images, self.schedule, checkpoint), figure)
            partial.path.unlink(missing_ok=True)

    def _finish(self, found: Clustering, contents: dict[str, Any], figure: Path) -> None:
        if contents["curves"]:
            write_atomically(figure, stages_figure(contents).encode())
        write_json(self.out, contents)
        _show(found)
        print_line(f"wrote {self.out}{f' and {figure}' if contents['curves'] else ''}")


class Partial:
    """The sums of an unfinished computation, kept beside the stages file.

    Args:
        path: their file.
        identity: what they are sums of. More pairs may be asked for when the computation is continued.
    """

    def __init__(self, path: Path, identity: dict[str, Any]) -> None:
        self.path = path
        self.identity = {
            **identity,
            "parameters": {k: v for k, v in identity["parameters"].items() if k not in MAY_CHANGE},
        }

    def sums(self) -> Sums:
        """What there is."""
        sums = distributed.broadcast(
            Sums.load(self.path, self.identity) if distributed.rank() == 0 else Sums()
        )
        if sums.count:
            print_line(f"continuing from {sums.count} pairs in {self.path}")
        return sums

    def watch(self, steps: Iterator[int], sums: Sums, target: int) -> Iterator[int]:
        """Shows how far the steps have come and keeps the sums after each."""
        if distributed.rank() > 0:
            yield from steps
            return
        for step in show_progress(steps, "pairs", target, int, start=sums.count):
            sums.save(self.path, self.identity)
            yield step


def _check_existing(out: Path, wanted: dict[str, Any]) -> None:
    """An existing file is kept. It must be what this command would write."""
    found = read_json(out) if out.is_file() else {}
    if not isinstance(found, dict) or any(found.get(key) != value for key, value in wanted.items()):
        raise BadInput(f"{out} exists and holds something else; choose another --out or remove it.")
    print_line(
        f"{out} holds these stages already: {', '.join(f'{b:.4g}' for b in found['boundaries'])}"
    )


def _show(result: Clustering) -> None:
    clock, options = result.schedule.clock, result.options
    headings = [
        "stage",
        "sigma from",
        "to",
        "95 % of 'to'",
        f"{clock} from",
        "to",
        "log SNR from",
        "to",
        "share of levels",
    ]
    print_table(headings, [_row(result, stage) for stage in range(len(result.stages))])
    if result.pairs:
        print_line(
            f"{result.pairs} pairs; the widest interval spans {result.ci_width:.4f} of the levels"
        )
    if options.ci_width is not None and result.ci_width > options.ci_width:
        finer = (
            ", and --levels: these boundaries lie between two levels"
            if result.agreement is None or options.stages != 3
            else ""
        )
        print_warning(
            f"an interval is still wider than {options.ci_width}; raise --most-pairs{finer}"
        )
    if similarity := result.within_stage_similarity():
        listed = ", ".join(f"{number}: {value:.3f}" for number, value in enumerate(similarity, 1))
        print_line(f"similarity within stages by their number: {listed}")
        enough = next((n for n, value in enumerate(similarity, 1) if value >= options.alpha), None)
        print_line(
            f"alpha = {options.alpha} is {f'first reached by {enough} stages' if enough else 'reached by none of these'}"
        )


def _row(result: Clustering, stage: int) -> list[str]:
    bounds = result.stages.bounds(stage)
    edges = [level if 0 < level < float("inf") else None for level in bounds]
    times = [
        "" if edge is None else f"{float(result.schedule.to_clock(edge)):.4g}" for edge in edges
    ]
    ratios = ["" if edge is None else f"{-2 * math.log(edge):.3f}" for edge in edges]
    interval = "{:.4g} .. {:.4g}".format(*result.ci95[stage]) if stage < len(result.ci95) else ""
    share = f"{result.stages.share(result.schedule, stage):.1%}"
    return [str(stage + 1), *(f"{level:.4g}" for level in bounds), interval, *times, *ratios, share]


COMMAND = Cluster
