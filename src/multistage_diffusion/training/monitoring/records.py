"""``stats.jsonl``: one line of JSON for each record of a run."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from multistage_diffusion.config import from_json
from multistage_diffusion.errors import BadInput
from multistage_diffusion.files import write_atomically

__all__ = ["Record", "append_record", "keep_records", "read_records"]

FILE = "stats.jsonl"


@dataclass(frozen=True, kw_only=True)
class Record:
    """How a run stands. Lists have one entry for each stage, smallest noise first; None where a stage had no sample."""

    images: int
    """Images seen."""
    loss: list[float | None]
    """Mean weighted training loss since the last record."""
    share: list[float]
    """Share of each stage in the samples since the last record."""
    probe_loss: list[float]
    """Loss of the averaged weights on the fixed probe."""
    optimal_loss: list[float]
    """Loss of the optimal denoiser on the same images, noise and levels."""
    learning_rate: float
    """Of the last batch; the largest, if parts differ."""
    images_per_second: float
    """Speed of training since the last record of this sitting, without records and checkpoints."""
    seconds: float
    """Time spent, over all sittings."""
    learning_rates: list[float] = field(default_factory=list)
    """Of each encoder, then of each decoder, 0 while frozen; empty if all are the same."""
    gradient_norm: list[float] = field(default_factory=list)
    """Mean norm of the gradient of each encoder, then of each decoder, over the steps since the last record."""
    skipped: int = 0
    """Steps since the last record that were left out since loss or gradient were not finite."""
    zero_loss: list[float] = field(default_factory=list)
    """Loss of a network that puts out zeros, on the probe: what a stage has before it has learned anything."""
    held_out_loss: list[float] = field(default_factory=list)
    """Loss of the averaged weights on images that are not trained on; empty if none are set aside."""
    macs: float = 0.0
    """Multiply-accumulates of the whole run so far, forward and backward, as its stages were drawn."""
    memory: int = 0
    """Most bytes in use by the first process so far: of the GPU if there is one, else resident."""
    seconds_left: float = 0.0
    """Time to the end of the run at the speed since the last record."""


def append_record(run: Path, record: Record) -> None:
    """Adds a line to ``stats.jsonl``."""
    try:
        with (run / FILE).open("a") as file:
            file.write(json.dumps(asdict(record)) + "\n")
    except OSError as error:  # a full disk does not say which file it was
        raise OSError(error.errno, error.strerror, str(run / FILE)) from error


def read_records(run: Path) -> list[Record]:
    """The records of a run, oldest first; a last line cut short by a crash is passed over.

    Raises:
        BadInput: if another line is damaged.
    """
    path = run / FILE
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    try:
        return [from_json(Record, json.loads(line)) for line in lines if line.endswith("\n")]
    except ValueError as error:
        raise BadInput(f"{path} is damaged: {error}") from error


def keep_records(run: Path, images: int) -> None:
    """Drops the records past a checkpoint: the run is about to make them again."""
    kept = [asdict(record) for record in read_records(run) if record.images <= images]
    write_atomically(run / FILE, "".join(json.dumps(record) + "\n" for record in kept).encode())
