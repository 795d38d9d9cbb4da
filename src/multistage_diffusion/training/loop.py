"""The training loop: a generator of records."""

from collections.abc import Callable, Generator, Sequence
from pathlib import Path

import torch

from multistage_diffusion import distributed
from multistage_diffusion.config import to_json
from multistage_diffusion.data.images import Images
from multistage_diffusion.denoiser import set_compute_dtype
from multistage_diffusion.files import copy_atomically, write_json
from multistage_diffusion.model import Model, build_denoiser
from multistage_diffusion.run import Run, checkpoint_model
from multistage_diffusion.tensorfile import read_metadata
from multistage_diffusion.training.batches.held_out import split
from multistage_diffusion.training.checkpoints.loading import load_latest
from multistage_diffusion.training.checkpoints.saving import Checkpoints
from multistage_diffusion.training.compilation import compile_parts
from multistage_diffusion.training.config import RunConfig
from multistage_diffusion.training.ema.snapshots import drop_snapshots_after, save_snapshot
from multistage_diffusion.training.monitoring.grids import draw_grids
from multistage_diffusion.training.monitoring.records import Record, drop_records_after
from multistage_diffusion.training.monitoring.trackers import make_accelerator, start_trackers
from multistage_diffusion.training.precision import dtype_of, rounding_of
from multistage_diffusion.training.randomness import Stream, seed_globally
from multistage_diffusion.training.recorder import Recorder, gather_sums
from multistage_diffusion.training.resume import check_run, load_initial_weights
from multistage_diffusion.training.session import Event, Session
from multistage_diffusion.training.state import State
from multistage_diffusion.training.step import TrainingStep
from multistage_diffusion.training.timer import Timer

__all__ = ["train"]


def train(
    config: RunConfig,
    images: Images,
    out: Path,
    should_stop: Callable[[], bool] = lambda: False,
    init: Model | None = None,
) -> Generator[Record, None, None]:
    """Trains until ``config.training.images`` images have been seen.

    The run continues from the latest checkpoint in ``out``. An interrupted and repeated run has the
    same weights, bit by bit, as an uninterrupted one on the same machine.

    Args:
        config: the run; ``check_run`` says whether it fits what is in ``out``.
        images: the data set.
        out: the folder of the run.
        should_stop: called after every step; if true, a checkpoint is written and the generator
            ends.
        init: weights to begin with, where there is no checkpoint to continue from.

    Yields:
        A record every ``record_images`` images and at the end; each is also a line of
        ``stats.jsonl``.

    Raises:
        BadInput: if the configuration contradicts itself or a checkpoint is damaged.
        Diverged: if loss or gradient are not finite in many steps in a row; the last checkpoint is
            kept.
    """
    with rounding_of(config.training.precision):
        session = _Session(config, images, Run(out), init)
        try:
            yield from session.records(should_stop)
        finally:
            session.checkpoints.wait()


class _Session(Session[Record]):
    """The training of a denoiser."""

    def __init__(self, config: RunConfig, images: Images, run: Run, init: Model | None) -> None:
        training = config.training
        super().__init__(
            training.images,
            training.batch_size,
            training.monitoring.record_images,
            training.retention.checkpoint_images,
        )
        self.config = config
        self.run = run
        self.accelerator = make_accelerator(config.training.monitoring.track, run)
        self.device = self.accelerator.device
        self.state = _initial_state(config, self.device, init)
        check_run(run, config, images)
        kept, held_out = split(images, config.training.draws.held_out, config.training.seed)
        self.training_step = TrainingStep(config, self.state, kept, self.device)
        _resume(run, self.state, config)
        start_trackers(self.accelerator, run, config)
        if config.training.execution.compile:
            compile_parts(self.state.denoiser.network)
        self.recorder = Recorder(run, config, self.state, kept, held_out, self.accelerator)
        self.checkpoints = Checkpoints(run, config)
        self.timer = Timer(self.state)

    @property
    def seen(self) -> int:
        return self.state.images

    def step(self) -> None:
        self.training_step()

    def events(self) -> Sequence[Event]:
        training = self.config.training
        averaging = training.averaging
        snapshots = averaging.snapshot_images if averaging.posthoc_ema else 0
        return (
            (training.monitoring.grid_images, self.draw_grids),
            (snapshots, self.save_snapshot),
        )

    def record(self) -> Record:
        self._gather()
        with self.timer.not_training():
            return self.recorder.record(self.timer)

    def draw_grids(self) -> None:
        """Draws samples with raw and averaged weights."""
        with self.timer.not_training():
            draw_grids(self.run, self.config, self.state, self.device)

    def save_snapshot(self) -> None:
        """Writes the power-function averages."""
        with self.timer.not_training():
            self.checkpoints.wait()  # one exchange in the background at a time
            save_snapshot(self.run, self.state, self.config)

    def save_checkpoint(self, final: bool) -> None:
        self._gather()
        with self.timer.not_training():
            # after failed steps the checkpoint before is better, unless this is the last chance
            if final or not self.training_step.failed.current:
                self.checkpoints.save(self.state)
            if final:
                self.checkpoints.wait()
            distributed.barrier()

    def _gather(self) -> None:
        self.training_step.check_divergence()
        gather_sums(self.state)

    def finish(self) -> None:
        images = self.state.images  # of the last checkpoint, whose model is the finished one
        if distributed.is_main_process() and not _holds(self.run.model, images):
            copy_atomically(checkpoint_model(self.run.checkpoint(images)), self.run.model)
        if self.config.training.monitoring.track:
            self.accelerator.end_training()


def _initial_state(config: RunConfig, device: torch.device, init: Model | None) -> State:
    """The state before the first step, with weights drawn from the seed or those of a model."""
    training = config.training
    seed_globally(training.seed, Stream.WEIGHTS)
    denoiser = build_denoiser(config.model).to(device)
    if init is not None:
        load_initial_weights(denoiser, config, init)
    return State.initial(set_compute_dtype(denoiser, dtype_of(training.precision)), training)


def _resume(run: Run, state: State, config: RunConfig) -> None:
    """Loads the latest checkpoint, and removes what the run is about to write again."""
    distributed.barrier()  # all ranks have looked at the folder before rank 0 writes to it
    load_latest(run, state)
    if distributed.is_main_process():
        drop_records_after(run, state.images)
        drop_snapshots_after(run, state.images)
        write_json(run.config, to_json(config))
    distributed.barrier()


def _holds(path: Path, images: int) -> bool:
    """Whether a model file has seen this number of images."""
    return path.exists() and read_metadata(path).get("images") == images
