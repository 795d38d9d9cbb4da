"""The training loop: a generator of records."""

from collections.abc import Callable, Generator
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
        yield from _records(_Session(config, images, Run(out), init), should_stop)


def _records(session: "_Session", should_stop: Callable[[], bool]) -> Generator[Record, None, None]:
    """Trains until the end of a run, or until asked to stop; yields its records."""
    try:
        yield from _steps(session, should_stop)
    finally:
        session.checkpoints.wait()


def _steps(session: "_Session", should_stop: Callable[[], bool]) -> Generator[Record, None, None]:
    training = session.config.training
    while session.state.images < training.images:
        session.step()
        stopping = distributed.any_rank(should_stop())
        ended = session.state.images >= training.images
        if session.due(training.monitoring.record_images):
            yield session.record()
        if session.due(training.monitoring.grid_images):
            session.draw_grids()
        if training.averaging.posthoc_ema and session.due(training.averaging.snapshot_images):
            session.save_snapshot()
        if stopping or session.due(training.retention.checkpoint_images):
            session.save_checkpoint(final=stopping or ended)
        if stopping and not ended:
            return
    session.finish()


class _Session:
    """A run in progress: its state, and what is done to it between the events of the loop."""

    def __init__(self, config: RunConfig, images: Images, run: Run, init: Model | None) -> None:
        self.config = config
        self.run = run
        self.accelerator = make_accelerator(config.training.monitoring.track, run)
        self.device = self.accelerator.device
        self.state = _initial_state(config, self.device, init)
        check_run(run, config, images)
        kept, held_out = split(images, config.training.draws.held_out, config.training.seed)
        self.step = TrainingStep(config, self.state, kept, self.device)
        _resume(run, self.state, config)
        start_trackers(self.accelerator, run, config)
        if config.training.execution.compile:
            compile_parts(self.state.denoiser.network)
        self.recorder = Recorder(run, config, self.state, kept, held_out, self.accelerator)
        self.checkpoints = Checkpoints(run, config)
        self.timer = Timer(self.state)

    def due(self, interval: int) -> bool:
        """Whether the last step reached a multiple of ``interval`` images, or the end.

        Never for an interval of 0.
        """
        if not interval:
            return False
        now = self.state.images
        before = now - self.config.training.batch_size
        return now // interval > before // interval or now >= self.config.training.images

    def record(self) -> Record:
        """Makes the record of the steps since the last one."""
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
        """Writes a checkpoint, unless the last steps failed and this is not the last chance."""
        self._gather()
        with self.timer.not_training():
            if final or not self.step.failed.current:
                self.checkpoints.save(self.state)
            if final:
                self.checkpoints.wait()
            distributed.barrier()

    def _gather(self) -> None:
        self.step.check_divergence()
        gather_sums(self.state)

    def finish(self) -> None:
        """Writes the finished model, which is that of the last checkpoint."""
        images = self.state.images
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
