"""``multistage cluster``: stages from a data set."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import tyro

from multistage_diffusion import distributed
from multistage_diffusion.cli.holding import holding
from multistage_diffusion.cli.latents import latents_of
from multistage_diffusion.cli.progress import show_progress
from multistage_diffusion.cli.reading import read
from multistage_diffusion.cli.terminal import (
    print_line,
    print_settings,
    print_table,
    print_warning,
)
from multistage_diffusion.clustering import (
    Clustering,
    ClusterOptions,
    Sums,
    UnfinishedSums,
    cluster,
    identity,
)
from multistage_diffusion.clustering.options import FEWEST_PAIRS
from multistage_diffusion.config import from_json, to_json
from multistage_diffusion.data import Images, ReadOptions
from multistage_diffusion.errors import BadInput, NoStages
from multistage_diffusion.files import fingerprint, read_json, write_atomically, write_json
from multistage_diffusion.latents.prepared import as_model_sees
from multistage_diffusion.model import Model, load_model
from multistage_diffusion.report.figures import stages_figure
from multistage_diffusion.run import claim, find_model
from multistage_diffusion.schedule import SCHEDULES, ScheduleName
from multistage_diffusion.stages import StagesFile

__all__ = ["COMMAND", "Cluster"]


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """Find the noise levels at which a data set's stages begin and end, and write them to a stages
    file.

    The same command again continues an interrupted one. Several processes (torchrun) share the
    work.
    """

    data: str
    """Images: a folder, an archive, shards, a table, a hub id or 'digits'; see docs/data.md. Or
    latents: a folder from multistage encode, or a floating point .npy file [N, C, H, W]."""
    out: Path = Path("stages.json")
    """The stages file to write."""
    schedule: ScheduleName = "vp"
    """Density of noise levels to average over. The paper uses vp for every base; the boundaries are
    values of sigma and hold for all of them."""
    checkpoint: Path | None = None
    """A run or a model file, for --method gradient."""
    autoencoder: str | None = None
    """Find stages for latents of the images: a name such as pca-f2c6, a folder or a hub id; see
    multistage encode, whose output folders are given as --data without this option."""
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
            file = find_model(self.checkpoint) if self.checkpoint else None
            with holding(self.out, "cluster", file=True):
                self._cluster(self._images(file), file)

    def _images(self, file: Path | None) -> Images:
        """What stages are found for: images, or latents of them."""
        images = read(self.data, self.reading)
        if self.autoencoder is not None:
            images = latents_of(self.autoencoder, images, self.data, self.reading, False)
        if file is None:
            return images
        return as_model_sees(images, load_model(file).config.latents, self.data, self.reading)

    def _cluster(self, images: Images, file: Path | None) -> None:
        shape = "x".join(map(str, images.shape))
        print_line(f"{len(images)} images {shape}, fingerprint {images.fingerprint}")
        checkpoint = fingerprint(file) if file else None
        wanted = identity(images, self.schedule, self.rule, checkpoint)
        claim(self.out, "holds something else", lambda path: _holds(path, wanted))
        if self.out.exists():
            return _print_existing(self.out)
        figure = self.out.with_suffix(".svg")
        claim(figure, f"the figure of {self.out} would go there")
        unfinished = UnfinishedSums(self.out.with_name(f"{self.out.name}.partial"), wanted)
        found = self._find(images, load_model(file) if file else None, unfinished)
        if distributed.is_main_process():
            contents = found.to_json(images, self.schedule, checkpoint)
            self._write(contents, figure)
            _print_stages(found)
            print_line(f"wrote {self.out}{f' and {figure}' if contents['curves'] else ''}")
            unfinished.remove()

    def _find(self, images: Images, model: Model | None, unfinished: UnfinishedSums) -> Clustering:
        """Clusters, from where an interrupted command left off."""
        sums = unfinished.load()
        if sums.count:
            print_line(f"continuing from {sums.count} pairs in {unfinished.path}")

        def progress(steps: Iterator[int], sums: Sums, target: int) -> Iterator[int]:
            saved = unfinished.saved(steps, sums)
            return show_progress(saved, "pairs", target, int, start=sums.count)

        try:
            return cluster(images, SCHEDULES[self.schedule], self.rule, model, sums, progress)
        except NoStages:  # other settings are needed, which have other sums
            if distributed.is_main_process():
                unfinished.remove()
            raise

    def _write(self, contents: dict[str, Any], figure: Path) -> None:
        if contents["curves"]:
            figured = stages_figure(from_json(StagesFile, contents))
            write_atomically(figure, figured.encode())
        write_json(self.out, contents)


COMMAND = Cluster


def _holds(path: Path, wanted: dict[str, Any]) -> bool:
    """Whether a stages file is what this command would write."""
    found = read_json(path) if path.is_file() else None
    return isinstance(found, dict) and all(found.get(key) == wanted[key] for key in wanted)


def _print_existing(path: Path) -> None:
    boundaries = ", ".join(f"{boundary:.4g}" for boundary in StagesFile.load(path).boundaries)
    print_line(f"{path} holds these stages already: {boundaries}")


def _print_stages(result: Clustering) -> None:
    clock = result.schedule.clock
    bounds = ["sigma from", "to", "95 % of 'to'", f"{clock} from", "to", "log SNR from", "to"]
    rows = [_row(result, stage) for stage in range(len(result.stages))]
    print_table(["stage", *bounds, "share of levels"], rows)
    _print_intervals(result)
    _print_similarity(result)


def _print_intervals(result: Clustering) -> None:
    width = f"the widest interval spans {result.ci_width:.4f} of the levels"
    if 0 < result.pairs < FEWEST_PAIRS:
        width = f"no intervals, which need at least {FEWEST_PAIRS}"
    if result.pairs:
        print_line(f"{result.pairs} pairs; {width}")
    wanted = result.options.ci_width
    if wanted is None or result.ci_width <= wanted:
        return
    finer = ", and --levels: these boundaries are between two levels" if result.spacing else ""
    print_warning(f"an interval is still wider than {wanted}; raise --most-pairs{finer}")


def _print_similarity(result: Clustering) -> None:
    similarity = result.within_stage_similarity()
    if not similarity:
        return
    numbered = list(enumerate(similarity, 1))
    values = ", ".join(f"{number}: {value:.3f}" for number, value in numbered)
    print_line(f"similarity within stages by their number: {values}")
    alpha = result.options.alpha
    enough = next((number for number, value in numbered if value >= alpha), None)
    reached = f"first reached by {enough} stages" if enough else "reached by none of these"
    print_line(f"alpha = {alpha} is {reached}")


def _row(result: Clustering, stage: int) -> list[str]:
    low, high = result.stages.bounds(stage)
    interval = "{:.4g} .. {:.4g}".format(*result.ci95[stage]) if stage < len(result.ci95) else ""
    times = [_in_clock(result, level) for level in (low, high)]
    ratios = [_log_snr(level) for level in (low, high)]
    share = f"{result.stages.share(result.schedule, stage):.1%}"
    return [str(stage + 1), f"{low:.4g}", f"{high:.4g}", interval, *times, *ratios, share]


def _in_clock(result: Clustering, sigma: float) -> str:
    """A boundary in the base's own time variable; empty for 0 and infinity."""
    return f"{float(result.schedule.to_clock(sigma)):.4g}" if 0 < sigma < math.inf else ""


def _log_snr(sigma: float) -> str:
    return f"{-2 * math.log(sigma):.3f}" if 0 < sigma < math.inf else ""
