"""A run folder: the names of its files, and the rule for what may be written where."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePath

import filelock

from multistage_diffusion.errors import BadInput

__all__ = [
    "Run",
    "checkpoint_model",
    "claim",
    "find_model",
    "holder_file",
    "is_of_lock",
    "lock_file",
    "one_at_a_time",
    "run_of",
]

LOCK = ".lock"
HOLDER = ".holder"


@dataclass(frozen=True)
class Run:
    """The folder of a run. A file written for a number of images has it as its name."""

    path: Path

    @property
    def config(self) -> Path:
        """The configuration. A folder that holds one is a run that has begun."""
        return self.path / "config.json"

    @property
    def stats(self) -> Path:
        """The records, one line of JSON each."""
        return self.path / "stats.jsonl"

    @property
    def model(self) -> Path:
        """The finished model: averaged weights and configuration."""
        return self.path / "model.safetensors"

    @property
    def stages(self) -> Path:
        """A copy of the stages file that the run was started with."""
        return self.path / "stages.json"

    @property
    def preview(self) -> Path:
        """What the network sees of some images."""
        return self.path / "preview.png"

    @property
    def learned_weight(self) -> Path:
        """The curve of the learned loss weight."""
        return self.path / "uncertainty.json"

    @property
    def optimum(self) -> Path:
        """The optimal denoiser's loss on the probe."""
        return self.path / "optimal_loss.json"

    @property
    def samples(self) -> Path:
        """The folder of samples; their grid lies beside it, see ``sample_grid``."""
        return self.path / "samples"

    @property
    def sample_grid(self) -> Path:
        """The first samples as one picture."""
        return self.path / "samples.png"

    @property
    def evaluations(self) -> Path:
        """What was measured on the run."""
        return self.path / "evaluations.json"

    @property
    def nearest_pairs(self) -> Path:
        """The generated images nearest to real ones, each beside its nearest real image."""
        return self.path / "memorisation.png"

    @property
    def report(self) -> Path:
        """The report of the run."""
        return self.path / "report.html"

    @property
    def begun(self) -> bool:
        """Whether the folder holds a run."""
        return self.config.exists()

    def checkpoint(self, images: int) -> Path:
        """The folder of the checkpoint after ``images`` images."""
        return self.path / "checkpoints" / f"{images:012d}"

    def checkpoints(self) -> list[Path]:
        """The complete checkpoints, oldest first."""
        found = self.path.glob("checkpoints/*")
        return sorted(path for path in found if path.is_dir() and path.name.isdigit())

    def evenly_spaced_checkpoints(self, count: int) -> list[Path]:
        """At most ``count`` of the complete checkpoints, oldest first, the latest among them.

        They are nearest to equal numbers of images; an interruption leaves others between these.
        """
        found = self.checkpoints()
        if count >= len(found):
            return found
        last = int(found[-1].name)
        wanted = [last * (k + 1) / count for k in range(count)]
        nearest = {min(found, key=lambda path: abs(int(path.name) - at)) for at in wanted}
        return sorted(nearest)

    def images_seen(self) -> int:
        """How far the latest checkpoint is, in images; 0 without one."""
        return max((int(checkpoint.name) for checkpoint in self.checkpoints()), default=0)

    def snapshot(self, images: int) -> Path:
        """The snapshot of averaged weights after ``images`` images."""
        return self.path / "averages" / f"{images:012d}.safetensors"

    def snapshots(self) -> list[Path]:
        """The snapshots, oldest first."""
        found = self.path.glob("averages/*.safetensors")
        return sorted(path for path in found if path.stem.isdigit())

    def grid(self, images: int, weights: str) -> Path:
        """The grid of samples after ``images`` images.

        Drawn with ``raw`` or ``averaged`` weights.
        """
        return self.path / "grids" / f"{images:012d}-{weights}.png"


def run_of(path: Path) -> Run:
    """The run that a folder or a model file in it belongs to."""
    return Run(path.parent if path.is_file() else path)


def checkpoint_model(checkpoint: Path) -> Path:
    """The model file of a checkpoint: averaged weights and configuration."""
    return Run(checkpoint).model


def find_model(path: Path) -> Path:
    """The model file of a run: the final one, else that of the latest checkpoint.

    Args:
        path: the folder of a run, or a model file, which is returned as it is.

    Raises:
        BadInput: if there is none, or the file is of another kind.
    """
    if path.is_file():
        if path.suffix.lower() != ".safetensors":
            raise BadInput(
                f"{path} is no model file, whose name ends with .safetensors: give one, or the "
                "folder of a run; evaluate reads images from a folder, too."
            )
        return path
    run = Run(path)
    files = map(checkpoint_model, run.checkpoints())
    found = [file for file in (*files, run.model) if file.exists()]
    if not found:
        raise BadInput(
            f"{path} holds no model: neither model.safetensors nor a checkpoint "
            "(multistage train makes them)."
        )
    return found[-1]


def lock_file(folder: Path, command: str) -> Path:
    """The file that is locked while a command works in a folder."""
    return folder / f".{command}{LOCK}"


def holder_file(folder: Path, command: str) -> Path:
    """The file that says which process holds the lock."""
    return folder / f".{command}{HOLDER}"


def is_of_lock(path: PurePath) -> bool:
    """Whether a file belongs to a lock, and so does not count as content of a folder."""
    return path.name.startswith(".") and path.name.endswith((LOCK, HOLDER))


def claim(
    path: Path,
    problem: str,
    ours: Callable[[Path], bool] = lambda _: False,
    *,
    folder: bool = False,
) -> None:
    """Checks that a command may write to a path. Nothing is ever overwritten without this check.

    Args:
        path: a file or folder that the command is about to write.
        problem: what is wrong with a path that is in use, such as "is not a report".
        ours: whether what lies there is the command's own work, which it may continue or replace.
        folder: whether the path is to be a folder, which may exist if it is empty.

    Raises:
        BadInput: if the path is neither free nor ours.
    """
    empty = folder and path.is_dir() and all(map(is_of_lock, path.iterdir()))
    if path.exists() and not empty and not ours(path):
        raise BadInput(f"{path} exists and {problem}; choose another --out or remove it.")


@contextmanager
def one_at_a_time(path: Path) -> Iterator[None]:
    """Holds the lock of a path that several processes may want to create; waits for it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(path.with_name(f"{path.name}.lock")):
        yield
