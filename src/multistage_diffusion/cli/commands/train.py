"""``multistage train``: a model from a preset, a data set and its stages."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated

import tyro

from multistage_diffusion.cli.output import claim, show_plan, table
from multistage_diffusion.cli.preview import show_preview
from multistage_diffusion.cli.reading import read
from multistage_diffusion.cli.terminal import say, stop_on_signal, track, warn
from multistage_diffusion.config import to_json
from multistage_diffusion.data import Images, ReadOptions
from multistage_diffusion.distributed import is_main_process
from multistage_diffusion.evaluation import stage_costs, total_parameters
from multistage_diffusion.files import fingerprint, read_json, write_atomically
from multistage_diffusion.model import Model, load_model
from multistage_diffusion.presets import Preset, choose_stages, plan_run
from multistage_diffusion.run import find_model
from multistage_diffusion.stages import Stages
from multistage_diffusion.training import Record, read_records, train
from multistage_diffusion.training.batches.levels import stage_shares
from multistage_diffusion.training.checkpoints import images_seen
from multistage_diffusion.training.config import RunConfig
from multistage_diffusion.training.monitoring.overfitting import over_fitting
from multistage_diffusion.training.resume import check_run

LEAST_SHARE = 1e-4

__all__ = ["Train"]


@dataclass(frozen=True, kw_only=True)
class Train:
    """Train a model. The same command again continues an interrupted run; a larger --images lengthens a finished one."""

    data: str
    """Images: a folder, an archive, shards, a table, a hub id or 'digits'; see "Your own images" in the README."""
    out: Path
    """Folder of the run."""
    stages: Path | None = None
    """Stages file from multistage cluster; without one, the preset's --boundaries. A single decoder has no stages."""
    init: Path | None = None
    """A model file or run to begin with, of the same network (multistage convert makes one of a unified network)."""
    dry_run: bool = False
    """Print the resolved configuration and the cost of the network and stop. With --size, RUN/preview.png shows what is cut
    away or stretched."""
    reading: Annotated[ReadOptions, tyro.conf.OmitArgPrefixes] = field(default_factory=ReadOptions)
    preset: Annotated[Preset, tyro.conf.OmitArgPrefixes]

    def run(self) -> int:
        images = read(self.data, self.reading)
        config = plan_run(
            self.preset, images, choose_stages(self.preset, self.stages), self.data, self.reading
        )
        init = find_model(self.init) if self.init else None
        config = replace(config, init=fingerprint(init) if init else "")
        _warn(config, self.stages)
        if self.dry_run:
            show_plan(to_json(config))
            _show_cost(config)
            show_preview(self.out, config, images, self.reading, dry_run=True)
            return 0
        self._prepare(config, images)
        return _train(config, images, self.out, load_model(init) if init else None)

    def _prepare(self, config: RunConfig, images: Images) -> None:
        """Shows what is about to be trained on what, once nothing speaks against it."""
        _show_cost(config)
        check_run(self.out, config, images)
        if self.stages is not None and is_main_process():  # the report shows them
            claim(self.out / "stages.json", self.stages.read_bytes())
            write_atomically(self.out / "stages.json", self.stages.read_bytes())
        show_preview(self.out, config, images, self.reading, dry_run=False)


def _train(config: RunConfig, images: Images, out: Path, init: Model | None = None) -> int:
    """Trains with progress on the terminal; returns 130 if a signal ended it early, else 0."""
    total, batch = config.training.images, config.training.batch_size
    before = images_seen(out)
    if before:
        say(f"continuing from the checkpoint at {before} images")
    talk = _Talk(out)
    with stop_on_signal() as should_stop:
        end = -(-total // batch) * batch
        for record in track(
            train(config, images, out, should_stop, init),
            "images",
            end,
            _increments(before),
            _describe,
            before,
        ):
            before = record.images
            talk.hear(record)
        if should_stop() and before < total:
            say(f"interrupted; a checkpoint is in {out}, the same command continues")
            return 130
    say(f"trained; the model is {out / 'model.safetensors'}")
    return 0


class _Talk:
    """What is said once about the records of a run."""

    def __init__(self, out: Path) -> None:
        self.out, self.known, self.begun = out, set[str](), False

    def hear(self, record: Record) -> None:
        if not self.begun:
            optimum, zero = (
                "/".join(f"{loss:.3g}" for loss in losses)
                for losses in (record.optimal_loss, record.zero_loss)
            )
            say(
                f"losses to compare with, stage by stage: optimal denoiser {optimum}, untrained network {zero}"
            )
            self.begun = True
        for sentence in (
            over_fitting(read_records(self.out))
            if record.held_out_loss and is_main_process()
            else ()
        ):
            stage = sentence.split(":")[0]
            if stage not in self.known:
                self.known.add(stage)
                warn(sentence)


def _warn(config: RunConfig, file: Path | None) -> None:
    """Says what is allowed but hardly meant."""
    for stage, share in enumerate(stage_shares(config)):
        if share < LEAST_SHARE:
            rare = f"less than one in {1 / LEAST_SHARE:,.0f} images"
            warn(f"stage {stage + 1} gets {rare} under the schedule {config.model.schedule}")
    made_from = read_json(file).get("data") if file else None
    if isinstance(made_from, dict) and made_from.get("fingerprint") != config.data.fingerprint:
        warn(f"{file} was made from other images than {config.data.path}")


def _increments(before: int) -> Callable[[Record], int]:
    last = before

    def size(record: Record) -> int:
        nonlocal last
        step, last = record.images - last, record.images
        return step

    return size


def _describe(record: Record) -> str:
    losses = "/".join("-" if loss is None else f"{loss:.3g}" for loss in record.loss)
    left_out = f"  {record.skipped} steps left out, not finite" if record.skipped else ""
    held = (
        f"  held out {'/'.join(f'{loss:.3g}' for loss in record.held_out_loss)}"
        if record.held_out_loss
        else ""
    )
    return f"loss {losses}{held}  {record.images_per_second:.0f} img/s{left_out}"


def _cost_rows(config: RunConfig) -> list[list[str]]:
    """Bounds, share of the training images, parameters and multiply-accumulates of each stage, as text."""
    stages, shares = Stages(config.model.boundaries), stage_shares(config)
    rows = []
    for stage, cost in enumerate(stage_costs(config.model)):
        low, high = stages.bounds(stage)
        share = shares[stage]
        figures = [
            f"{low:.4g} .. {high:.4g}",
            f"{share:.1%}",
            f"{cost.parameters:,}",
            f"{cost.macs / 1e6:,.1f} M",
        ]
        rows.append([str(stage + 1), *figures])
    return rows


COST_HEADINGS = ["stage", "sigma", "share of training", "parameters", "MACs per image"]


def _show_cost(config: RunConfig) -> None:
    table(COST_HEADINGS, _cost_rows(config))
    say(f"{total_parameters(config.model):,} parameters in all")
