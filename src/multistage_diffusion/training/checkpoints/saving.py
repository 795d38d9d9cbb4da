"""Writing the checkpoints of a run."""

import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from multistage_diffusion import distributed
from multistage_diffusion.files import flush_folder
from multistage_diffusion.model import model_metadata
from multistage_diffusion.run import Run
from multistage_diffusion.tensorfile import save_tensors
from multistage_diffusion.training.checkpoints.content import (
    MODEL,
    SHARDS,
    TRAINING,
    all_tensors,
    averaged_tensors,
    is_small,
)
from multistage_diffusion.training.config import RunConfig, provenance
from multistage_diffusion.training.distributed.sharding import is_sharded
from multistage_diffusion.training.distributed.shards import (
    begin_to_save,
    join_shards,
    saved,
    shard_files,
)
from multistage_diffusion.training.retention import superseded
from multistage_diffusion.training.state import State

__all__ = ["Checkpoints"]

STATE, AVERAGED, FILES = 1, 2, 2  # numbers of the files that each rank writes


class Checkpoints:
    """Writes the checkpoints of a run, one at a time. All ranks have one and call its methods.

    Args:
        run: where they are written.
        config: the run.
    """

    def __init__(self, run: Run, config: RunConfig) -> None:
        self.run = run
        self.config = config
        self.thread = ThreadPoolExecutor(max_workers=1)
        self.pending: Future[None] | None = None

    def save(self, state: State) -> None:
        """Writes a checkpoint and removes superseded ones, in the background if it is sharded."""
        self.wait()
        target = self.run.checkpoint(state.images)
        if distributed.broadcast(target.exists()):
            return
        if distributed.is_main_process():  # what a killed process may have left
            shutil.rmtree(_temporary(target), ignore_errors=True)
        if is_sharded(state.denoiser.network):
            self._begin(state, target)
        elif distributed.is_main_process():
            self._save_whole(state, target)

    def wait(self) -> None:
        """Waits until what was begun is complete.

        Raises:
            OSError: if it could not be written.
        """
        pending, self.pending = self.pending, None
        if pending is not None:
            pending.result()

    def _save_whole(self, state: State, target: Path) -> None:
        averaged = dict(averaged_tensors(state))
        tensors = {name: t for name, t in all_tensors(state) if name not in averaged}
        with self._new(target) as temporary:
            save_tensors(temporary / MODEL, averaged, self._model_metadata(state))
            save_tensors(temporary / TRAINING, tensors, _progress(state))

    def _begin(self, state: State, target: Path) -> None:
        """Begins to write a checkpoint of sharded weights."""
        large = {name: tensor for name, tensor in all_tensors(state) if not is_small(name)}
        averaged = {name: large.pop(name) for name, _ in averaged_tensors(state)}
        folder = _temporary(target)
        distributed.barrier()  # the folder is free
        written = begin_to_save(folder, large, averaged)
        if distributed.is_main_process():
            self.pending = self.thread.submit(self._completion(state, target, written))
        else:
            self.pending = self.thread.submit(saved, written, folder)

    def _completion(
        self, state: State, target: Path, written: Future[object]
    ) -> Callable[[], None]:
        """What rank 0 does when all ranks have written their files, for the state as it is now."""
        small = {name: tensor.clone() for name, tensor in all_tensors(state) if is_small(name)}
        progress = _progress(state)
        metadata = self._model_metadata(state)

        def complete() -> None:
            with self._new(target) as folder:
                saved(written, folder)
                averaged = shard_files(folder, AVERAGED, FILES)
                join_shards(folder / MODEL, averaged, metadata)
                for file in averaged:
                    file.unlink()
                names = [file.name for file in shard_files(folder, STATE, FILES)]
                save_tensors(folder / TRAINING, small, {**progress, SHARDS: names})

        return complete

    @contextmanager
    def _new(self, target: Path) -> Iterator[Path]:
        """The temporary folder of a checkpoint, renamed at the end unless an error stops it.

        Superseded checkpoints are removed then.
        """
        temporary = _temporary(target)
        try:
            yield temporary
            temporary.replace(target)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        flush_folder(target.parent)
        for old in superseded(self.run.checkpoints(), self.config.training.retention):
            shutil.rmtree(old)

    def _model_metadata(self, state: State) -> dict[str, object]:
        return model_metadata(self.config.model, state.images, provenance(self.config))


def _temporary(target: Path) -> Path:
    """Where a checkpoint is written until it is complete."""
    return target.with_name(f".{target.name}")


def _progress(state: State) -> dict[str, float]:
    return {"images": state.images, **state.ledger.as_progress()}
