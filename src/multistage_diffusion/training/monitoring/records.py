"""The records of a run: lines of JSON in ``stats.jsonl``."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field

from multistage_diffusion.config import from_json
from multistage_diffusion.errors import BadInput
from multistage_diffusion.files import write_atomically
from multistage_diffusion.run import Run

__all__ = ["Record", "append_record", "comparable", "drop_records_after", "read_records"]


@dataclass(frozen=True, kw_only=True)
class Record:
    """How a run is going.

    Lists have one entry for each stage, smallest noise first; None where a stage had no sample. A
    unified network with ``share_boundaries`` has the stages between these.
    """

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
    """Speed of training since the last record of this session, without records and checkpoints."""
    seconds: float
    """Wall-clock time across all sessions."""
    optimal_loss_error: list[float] = field(default_factory=list)
    """Its standard errors, where the data set is so large that it is computed on a part of the
    probe; else empty."""
    learning_rates: list[float] = field(default_factory=list)
    """Of each encoder, then of each decoder, 0 while frozen; empty if all are the same."""
    gradient_norm: list[float] = field(default_factory=list)
    """Mean gradient norm of each encoder, then of each decoder, over the steps since the last
    record."""
    skipped: int = 0
    """Steps since the last record that were skipped because loss or gradient were not finite."""
    zero_loss: list[float] = field(default_factory=list)
    """Loss of a network that outputs zeros, on the probe: what a stage has before it has learned
    anything."""
    held_out_loss: list[float] = field(default_factory=list)
    """Loss of the averaged weights on held-out images; empty if there are none."""
    macs: float = 0.0
    """Multiply-accumulates of the whole run so far, forward and backward, for the stages as they
    were drawn."""
    forward_macs: float = 0.0
    """The part of ``macs`` in forward passes."""
    processor_seconds: float = 0.0
    """Time of all threads of all ranks on processors so far."""
    joules: float = 0.0
    """Energy of the machine's processor packages and GPUs so far; 0 where it does not tell."""
    memory: int = 0
    """Peak bytes of rank 0 so far: of the GPU if there is one, otherwise resident."""
    seconds_left: float = 0.0
    """Time to the end of the run at the speed since the last record."""


def append_record(run: Run, record: Record) -> None:
    """Adds a line to the records."""
    try:
        with run.stats.open("a") as file:
            file.write(_line(record))
    except OSError as error:  # a full disk does not say which file it was
        raise OSError(error.errno, error.strerror, str(run.stats)) from error


def read_records(run: Run) -> list[Record]:
    """The records of a run, oldest first; a last line cut short by a crash is ignored.

    Raises:
        BadInput: if another line is damaged.
    """
    if not run.stats.exists():
        return []
    lines = run.stats.read_text().splitlines(keepends=True)
    try:
        return [from_json(Record, json.loads(line)) for line in lines if line.endswith("\n")]
    except ValueError as error:
        raise BadInput(f"{run.stats} is damaged: {error}") from error


def comparable(records: Sequence[Record]) -> list[Record]:
    """The records with as many stages as the last one.

    In earlier versions a unified network had one stage, whatever its shares were meant for.
    """
    return [one for one in records if len(one.probe_loss) == len(records[-1].probe_loss)]


def drop_records_after(run: Run, images: int) -> None:
    """Removes the records past a checkpoint: the run is about to write them again."""
    _write(run, (record for record in read_records(run) if record.images <= images))


def _write(run: Run, records: Iterable[Record]) -> None:
    write_atomically(run.stats, "".join(map(_line, records)).encode())


def _line(record: Record) -> str:
    return json.dumps(asdict(record)) + "\n"
