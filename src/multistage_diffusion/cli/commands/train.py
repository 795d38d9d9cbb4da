"""``multistage train``: trains a model from a preset, a data set and its stages."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated

import tyro

from multistage_diffusion.cli.discovery import subcommands
from multistage_diffusion.cli.holding import holding
from multistage_diffusion.cli.latents import latents_of
from multistage_diffusion.cli.main import INTERRUPTED
from multistage_diffusion.cli.progress import increments, show_progress
from multistage_diffusion.cli.reading import read
from multistage_diffusion.cli.signals import stop_on_signal
from multistage_diffusion.cli.terminal import (
    print_line,
    print_note,
    print_settings,
    print_table,
    print_warning,
)
from multistage_diffusion.config import to_json
from multistage_diffusion.cost import stage_costs, total_parameters
from multistage_diffusion.data import Images, ReadOptions
from multistage_diffusion.data.context import read_context
from multistage_diffusion.distributed import is_main_process
from multistage_diffusion.errors import BadInput
from multistage_diffusion.files import fingerprint, write_atomically
from multistage_diffusion.inspection.preview import write_preview
from multistage_diffusion.latents import load_autoencoder
from multistage_diffusion.latents.prepared import LatentOptions, for_training
from multistage_diffusion.model import Model, load_model
from multistage_diffusion.preconditioning import expected_deviation
from multistage_diffusion.presets import (
    ABOUT_PRESETS,
    PRESETS,
    Preset,
    choose_stages,
    configure_run,
    with_model,
)
from multistage_diffusion.run import Run, claim, find_model
from multistage_diffusion.stages import Stages, StagesFile
from multistage_diffusion.training import Record, read_records, train
from multistage_diffusion.training.batches.levels import stage_shares
from multistage_diffusion.training.config import RunConfig
from multistage_diffusion.training.footprint import check_training_memory
from multistage_diffusion.training.monitoring.overfitting import overfitting
from multistage_diffusion.training.precision import EMULATED, is_emulated
from multistage_diffusion.training.resume import check_run

__all__ = ["COMMAND", "Train"]

SMALL_SHARE = 1e-4
COST_HEADINGS = ["stage", "sigma", "share of training", "parameters", "MACs per image"]


@dataclass(frozen=True, kw_only=True)
class Train:
    """Train a model. The same command again continues an interrupted run; a larger --images
    lengthens a finished one.
    """

    data: str
    """Images: a folder, an archive, shards, a table, a hub id or 'digits'; see docs/data.md."""
    out: Path
    """Folder of the run."""
    stages: Path | None = None
    """Stages file from multistage cluster; without one, the preset's --boundaries. A single decoder
    has no stages."""
    init: Path | None = None
    """A model file or run with the same network whose weights the run begins with (multistage
    convert makes one from a unified network or from a model of diffusers)."""
    keep_network: bool = False
    """Take blocks, widths, stages, schedule and preconditioning from --init instead of the
    preset."""
    dry_run: bool = False
    """Print the resolved configuration and the cost of the network, and stop. With --size, also
    write RUN/preview.png, which shows what is cropped or stretched."""
    preset: Annotated[Preset, tyro.conf.OmitArgPrefixes, tyro.conf.arg(name="")]
    context: Path | None = None
    """File .npy [N, tokens, channels] of context for cross-attention, such as text embeddings: a
    row for each image. Needs --context-channels; --label-dropout drops some."""
    latents: Annotated[LatentOptions, tyro.conf.OmitArgPrefixes] = field(
        default_factory=LatentOptions
    )
    reading: Annotated[ReadOptions, tyro.conf.OmitArgPrefixes] = field(default_factory=ReadOptions)

    def run(self) -> int:
        if self.keep_network:
            return self._with_network().run()
        images = self.prepare(read(self.data, self.reading))
        config = self.configure(images)
        init = find_model(self.init) if self.init else None
        config = replace(config, init=fingerprint(init) if init else "")
        _warn(config, self.stages)
        if self.dry_run:
            return self._dry_run(config, images)
        check_training_memory(config)
        _print_cost(config)
        run = Run(self.out)
        check_run(run, config, images)
        with holding(self.out, "train"):
            check_run(run, config, images)
            self._copy_stages(run)
            self._write_preview(run, images)
            return _train(config, images, run, load_model(init) if init else None)

    def prepare(self, images: Images) -> Images:
        """The values that the network sees: pixels, or latents encoded and normalised."""
        values = self._values(images)
        return replace(values, context=read_context(self.context)) if self.context else values

    def _values(self, images: Images) -> Images:
        diffusion = self.preset.diffusion
        if self.latents.autoencoder is not None:
            flip = self.preset.training.draws.flip
            images = latents_of(self.latents.autoencoder, images, self.data, self.reading, flip)
        if images.latents is None:
            return images
        load_autoencoder(images.latents.autoencoder)  # without it nothing could be drawn
        deviation = expected_deviation(diffusion.preconditioning, diffusion.sigma_data)
        return for_training(images, deviation, self.latents.normalise)

    def configure(self, images: Images) -> RunConfig:
        """The configuration of the run on prepared images, without weights to begin with."""
        deviation = None if images.latents is None else images.latents.deviation
        stages = choose_stages(self.preset, self.stages, deviation)
        context = fingerprint(self.context) if self.context else ""
        return configure_run(self.preset, images, stages, self.data, self.reading, context)

    def _with_network(self) -> "Train":
        """The same with the network of the model to begin with."""
        if self.init is None or self.stages is not None:
            raise BadInput("--keep-network takes network and stages of --init, not of --stages.")
        preset = with_model(self.preset, load_model(find_model(self.init)).config)
        return replace(self, preset=preset, keep_network=False)

    def _dry_run(self, config: RunConfig, images: Images) -> int:
        """Prints settings, cost and what would stop the run; writes a preview of resized images."""
        print_settings(to_json(config))
        _print_cost(config)
        run = Run(self.out)
        try:
            check_training_memory(config)
            check_run(run, config, images)
        except BadInput as error:
            print_warning(str(error))
        else:
            if self.reading.size:
                self._write_preview(run, images)
        return 0

    def _copy_stages(self, run: Run) -> None:
        """Copies the stages file into the run, for its report."""
        if self.stages is not None and is_main_process():
            content = self.stages.read_bytes()
            claim(run.stages, "holds something else", lambda path: path.read_bytes() == content)
            write_atomically(run.stages, content)

    def _write_preview(self, run: Run, images: Images) -> None:
        """Writes what the network will see; the preview of a run that has begun stays."""
        kept = run.begun and run.preview.exists()
        if is_main_process() and not kept:
            write_preview(run, images, self.data, self.reading)
            print_line(f"what the network will see: {run.preview}")


COMMAND = subcommands(
    {
        name: Train(data=tyro.MISSING, out=tyro.MISSING, preset=preset)
        for name, preset in PRESETS.items()
    },
    ABOUT_PRESETS,
    Train.__doc__ or "",
)


def _train(config: RunConfig, images: Images, run: Run, init: Model | None = None) -> int:
    """Trains with progress on the terminal; returns 130 if a signal ended it early, else 0."""
    batch = config.training.batch_size
    total = config.training.images
    before = run.images_seen()
    if before:
        print_line(f"continuing from the checkpoint at {before} images")
    if is_emulated(config.training.precision):
        print_warning(EMULATED)
    seen = before
    messages = _Messages(run, config.training.monitoring.record_images)
    with stop_on_signal() as should_stop:
        records = train(config, images, run.path, messages.on_step(should_stop), init)
        end = -(-total // batch) * batch
        steps = show_progress(records, "images", end, increments(before), _describe, before)
        for record in steps:
            seen = record.images
            messages.on_record(record)
        if should_stop() and seen < total:
            print_line(f"interrupted; a checkpoint is in {run.path}, the same command continues")
            return INTERRUPTED
    print_line(f"trained; the model is {run.model}")
    return 0


class _Messages:
    """What is printed once about a run."""

    def __init__(self, run: Run, interval: int) -> None:
        self.run = run
        self.interval = interval
        self.printed = set[str]()

    def on_step(self, should_stop: Callable[[], bool]) -> Callable[[], bool]:
        """The stop condition that is checked after every step; it first says when losses follow."""

        def asked() -> bool:
            self._once("interval", f"losses follow every {self.interval:,} images", print_note)
            return should_stop()

        return asked

    def on_record(self, record: Record) -> None:
        """Prints the losses to compare with, and which stages overfit, once each."""
        optimal = "/".join(f"{loss:.3g}" for loss in record.optimal_loss)
        if record.optimal_loss_error:
            errors = "/".join(f"{error:.2g}" for error in record.optimal_loss_error)
            optimal = f"{optimal} (standard errors {errors})"
        zero = "/".join(f"{loss:.3g}" for loss in record.zero_loss)
        text = f"optimal denoiser {optimal}, untrained network {zero}"
        self._once("losses", f"losses to compare with, stage by stage: {text}", print_line)
        if record.held_out_loss and is_main_process():
            for sentence in overfitting(read_records(self.run)):
                stage, _ = sentence.split(":", 1)
                self._once(stage, sentence, print_warning)

    def _once(self, key: str, text: str, show: Callable[[str], None]) -> None:
        if key not in self.printed:
            self.printed.add(key)
            show(text)


def _warn(config: RunConfig, file: Path | None) -> None:
    """Warns about what is valid but probably unintended."""
    for stage, share in enumerate(stage_shares(config), 1):
        if share < SMALL_SHARE:
            rare = f"less than one in {1 / SMALL_SHARE:,.0f} images"
            schedule = config.model.schedule
            print_warning(f"stage {stage} gets {rare} under the schedule {schedule}")
    data = StagesFile.load(file).data if file else None
    if data and data.fingerprint != config.data.fingerprint:
        print_warning(f"{file} was made from other images than {config.data.path}")


def _describe(record: Record) -> str:
    losses = "/".join("-" if loss is None else f"{loss:.3g}" for loss in record.loss)
    held_out = "/".join(f"{loss:.3g}" for loss in record.held_out_loss)
    words = [f"loss {losses}"]
    if held_out:
        words.append(f"held out {held_out}")
    words.append(f"{record.images_per_second:.0f} img/s")
    if record.skipped:
        words.append(f"{record.skipped} steps skipped, not finite")
    return "  ".join(words)


def _print_cost(config: RunConfig) -> None:
    print_table(COST_HEADINGS, _cost_rows(config))
    print_line(f"{total_parameters(config.model):,} parameters in all")


def _cost_rows(config: RunConfig) -> list[list[str]]:
    """Bounds, share of the training images, parameters and MACs of each stage, as text."""
    stages = Stages(config.model.boundaries)
    shares = stage_shares(config)
    rows = []
    for stage, cost in enumerate(stage_costs(config.model)):
        low, high = stages.bounds(stage)
        bounds = f"{low:.4g} .. {high:.4g}"
        macs = f"{cost.macs / 1e6:,.1f} M"
        rows.append([str(stage + 1), bounds, f"{shares[stage]:.1%}", f"{cost.parameters:,}", macs])
    return rows
