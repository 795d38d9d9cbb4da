"""Records of a run while it trains."""

from accelerate import Accelerator
from torch import Tensor

from multistage_diffusion import distributed
from multistage_diffusion.data.images import Images
from multistage_diffusion.run import Run
from multistage_diffusion.training.config import RunConfig
from multistage_diffusion.training.learned_weight import write_curve
from multistage_diffusion.training.monitoring.memory import peak_memory
from multistage_diffusion.training.monitoring.optimum import find_optimum
from multistage_diffusion.training.monitoring.probe import Probe
from multistage_diffusion.training.monitoring.records import Record, append_record
from multistage_diffusion.training.monitoring.trackers import track
from multistage_diffusion.training.monitoring.utilisation import product_rate
from multistage_diffusion.training.precision import dtype_of
from multistage_diffusion.training.rates import Rates
from multistage_diffusion.training.state import State
from multistage_diffusion.training.timer import Timer

__all__ = ["Recorder", "gather_sums"]


class Recorder:
    """Makes records from a state and its running sums.

    Args:
        run: where they are written.
        config: the run.
        state: the state that is recorded.
        images: the images that are trained on.
        held_out: images that are not, if there are any.
        accelerator: its trackers get the records too.
    """

    def __init__(
        self,
        run: Run,
        config: RunConfig,
        state: State,
        images: Images,
        held_out: Images | None,
        accelerator: Accelerator,
    ) -> None:
        self.run = run
        self.config = config
        self.state = state
        self.accelerator = accelerator
        self.device = accelerator.device
        self.rates = Rates(config)
        self.probe = _probe(config, state, images)
        self.held_out = None if held_out is None else _probe(config, state, held_out)
        self.optimum = find_optimum(run, config, self.probe, images, state.denoiser)
        self.zero_loss = self.probe.zero_loss(state.denoiser)
        rate = product_rate(self.device, dtype_of(config.training.precision))
        self.most_macs_per_second = rate * distributed.world_size()

    def record(self, timer: Timer) -> Record:
        """The record of the steps since the last one.

        Rank 0 writes it to ``stats.jsonl``; on other ranks losses are missing.
        """
        probed = self.probe.network_losses(self.state.averages.main, self.device)
        record = self._record(timer, probed)
        self.state.sums.clear()
        timer.restart()
        if distributed.is_main_process():
            self._write(record, probed)
        if self.config.training.monitoring.track:
            track(self.accelerator, record)
        return record

    def _record(self, timer: Timer, probed: Tensor) -> Record:
        training = self.config.training
        state = self.state
        begun = state.images - training.batch_size
        speed = timer.images_per_second
        return Record(
            images=state.images,
            loss=_mean_losses(state),
            share=_shares(state),
            probe_loss=self.probe.per_stage(probed),
            optimal_loss=self.optimum.loss,
            optimal_loss_error=self.optimum.error if any(self.optimum.error) else [],
            learning_rate=max(self.rates.at(begun)),
            learning_rates=self.rates.at_if_different(begun),
            images_per_second=speed,
            seconds=round(state.ledger.seconds, 3),
            gradient_norm=_mean_norms(state),
            skipped=int(state.sums.skipped),
            zero_loss=self.zero_loss,
            held_out_loss=self._held_out_loss(),
            macs=state.ledger.macs,
            forward_macs=state.ledger.forward_macs,
            utilisation=round(timer.macs_per_second / self.most_macs_per_second, 4),
            processor_seconds=round(state.ledger.processor_seconds, 3),
            joules=round(state.ledger.joules, 1),
            memory=peak_memory(self.device),
            seconds_left=max(0, training.images - state.images) / speed,
        )

    def _held_out_loss(self) -> list[float]:
        if self.held_out is None:
            return []
        return self.held_out.network_loss(self.state.averages.main, self.device)

    def _write(self, record: Record, probed: Tensor) -> None:
        append_record(self.run, record)
        learned = self.state.learned_weight
        if learned is not None:
            write_curve(self.run, learned, record.images, self.probe.sigma, probed)


def gather_sums(state: State) -> None:
    """Sums losses and processor time of all ranks into rank 0. All ranks must call it."""
    if distributed.world_size() == 1:
        return
    keep = 1 if distributed.is_main_process() else 0
    for value in (state.sums.loss, state.sums.count):
        value.copy_(keep * distributed.all_reduce_sum(value))
    seconds = state.sums.loss.new_tensor(state.ledger.processor_seconds)
    state.ledger.processor_seconds = keep * float(distributed.all_reduce_sum(seconds))


def _probe(config: RunConfig, state: State, images: Images) -> Probe:
    schedule = config.model.density
    conditional = config.model.classes > 0
    return Probe.draw(images, state.stages, schedule, conditional, config.training.seed)


def _mean_losses(state: State) -> list[float | None]:
    """The mean training loss in each stage; None where there was no sample."""
    sums = zip(state.sums.loss.tolist(), state.sums.count.tolist(), strict=True)
    return [total / count if count else None for total, count in sums]


def _shares(state: State) -> list[float]:
    """The share of each stage in the samples."""
    counts = state.sums.count.tolist()
    return [count / max(1, sum(counts)) for count in counts]


def _mean_norms(state: State) -> list[float]:
    """The mean gradient norm of each part over the steps taken."""
    taken = max(1, int(state.sums.taken))
    return [total / taken for total in state.sums.norm.tolist()]
