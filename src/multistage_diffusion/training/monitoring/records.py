"""The records of a run: lines of JSON in ``stats.jsonl``."""

from collections.abc import Sequence
from dataclasses import MISSING, dataclass, field

from multistage_diffusion.config import Settings, setting
from multistage_diffusion.errors import BadInput
from multistage_diffusion.run import Run
from multistage_diffusion.training.monitoring.lines import (
    append_line,
    drop_lines_after,
    read_lines,
)

__all__ = ["Record", "append_record", "comparable", "drop_records_after", "read_records"]


@dataclass(frozen=True, kw_only=True)
class Record(Settings):
    """The state of a run at one point of its training.

    Lists have one entry for each stage, smallest noise first; None where a stage had no sample. A
    unified network with ``share_boundaries`` has the stages between these.
    """

    images: int = setting(MISSING, at_least=0)
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
    images_per_second: float = setting(MISSING, at_least=0)
    """Speed of training since the last record of this session, without records and checkpoints."""
    seconds: float = setting(MISSING, at_least=0)
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
    """Loss of a network that outputs zeros on the probe, as a stage does before it is trained."""
    held_out_loss: list[float] = field(default_factory=list)
    """Loss of the averaged weights on held-out images; empty if there are none."""
    macs: float = 0.0
    """Multiply-accumulates of the whole run so far, forward and backward, for the stages as they
    were drawn."""
    forward_macs: float = 0.0
    """The part of ``macs`` in forward passes."""
    utilisation: float = 0.0
    """Model FLOPs utilisation: multiply-accumulates a second of the steps since the last record,
    forward and backward, as a part of what products of large matrices reach on all ranks."""
    processor_seconds: float = 0.0
    """Time of all threads of all ranks on processors so far."""
    joules: float = 0.0
    """Energy of the machine's processor packages and GPUs so far; 0 if it does not report it."""
    memory: int = 0
    """Peak bytes of rank 0 so far: of the GPU if there is one, otherwise resident."""
    seconds_left: float = 0.0
    """Time to the end of the run at the speed since the last record."""

    def __post_init__(self) -> None:
        super().__post_init__()
        count = len(self.probe_loss)
        always = (self.loss, self.share, self.optimal_loss)
        optional = (self.zero_loss, self.held_out_loss)
        if any(len(values) != count for values in always) or not count:
            raise BadInput("loss, share and optimal_loss need a value for each probe_loss")
        if any(len(values) not in (0, count) for values in optional):
            raise BadInput("zero_loss and held_out_loss need a value for each probe_loss")


def append_record(run: Run, record: Record) -> None:
    """Adds a line to the records."""
    append_line(run.stats, record)


def read_records(run: Run) -> list[Record]:
    """The records of a run, oldest first; a last line cut short by a crash is ignored.

    Raises:
        BadInput: if another line is damaged.
    """
    return [record for record, _ in read_lines(Record, run.stats)]


def comparable(records: Sequence[Record]) -> list[Record]:
    """The records with as many stages as the last one.

    In earlier versions a unified network had one stage, whatever its shares were meant for.
    """
    return [one for one in records if len(one.probe_loss) == len(records[-1].probe_loss)]


def drop_records_after(run: Run, images: int) -> None:
    """Removes the records past a checkpoint: the run is about to write them again."""
    drop_lines_after(Record, run.stats, images)
