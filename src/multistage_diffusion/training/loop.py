"""The training loop: a generator of records. Made of steps, records and checkpoints."""

import time
from collections.abc import Callable, Collection, Generator
from pathlib import Path

import torch
from torch import Tensor, nn

from multistage_diffusion import distributed
from multistage_diffusion.config import to_json
from multistage_diffusion.cost import training_macs
from multistage_diffusion.data.images import Images
from multistage_diffusion.denoiser import fastest_memory_format, set_compute_dtype
from multistage_diffusion.files import write_json
from multistage_diffusion.model import Model, build_denoiser, load_model, save_model
from multistage_diffusion.schedule import SCHEDULES
from multistage_diffusion.training.batches.batch import Batch, Draws, Samples, share_out
from multistage_diffusion.training.batches.held_out import split
from multistage_diffusion.training.batches.levels import Levels
from multistage_diffusion.training.batches.prefetch import Feed
from multistage_diffusion.training.checkpoints import load_latest, save_checkpoint, whole_weights
from multistage_diffusion.training.compilation import compile_parts
from multistage_diffusion.training.config import RunConfig, provenance
from multistage_diffusion.training.distributed.gradients import Exchange, part_norms
from multistage_diffusion.training.ema.snapshots import keep_snapshots, save_snapshot
from multistage_diffusion.training.learned_weight import write_curve
from multistage_diffusion.training.monitoring.divergence import PATIENCE, Diverged, Health, poison
from multistage_diffusion.training.monitoring.grids import draw_grids
from multistage_diffusion.training.monitoring.memory import memory_in_use
from multistage_diffusion.training.monitoring.probe import Probe
from multistage_diffusion.training.monitoring.records import Record, append_record, keep_records
from multistage_diffusion.training.monitoring.trackers import (
    joined_accelerator,
    start_trackers,
    track,
)
from multistage_diffusion.training.precision import dtype_of, set_precision
from multistage_diffusion.training.randomness import Stream, seed_globally
from multistage_diffusion.training.rates import Rates
from multistage_diffusion.training.resume import begin_with, check_run
from multistage_diffusion.training.state import State

__all__ = ["train"]


def train(
    config: RunConfig,
    images: Images,
    out: Path,
    should_stop: Callable[[], bool] = lambda: False,
    init: Model | None = None,
) -> Generator[Record, None, None]:
    """Trains until ``config.training.images`` images have been seen, continuing from the latest checkpoint in ``out``.

    An interrupted and repeated run has the same weights, bit by bit, as an uninterrupted one on the same machine.

    Args:
        config: the run; ``check_run`` says whether it fits what is in ``out``.
        images: the data set.
        out: the folder of the run.
        should_stop: asked after every step; if it says so, a checkpoint is written and the generator ends.
        init: weights to begin with, where there is no checkpoint to continue from.

    Yields:
        A record after every ``record_images`` images and at the end; each is also a line of ``stats.jsonl``.

    Raises:
        BadInput: if the configuration contradicts itself or a checkpoint is damaged.
        Diverged: if loss or gradient are not finite in one step after the other; the last checkpoint is kept.
    """
    loop = _Loop(config, images, out, init)
    while loop.state.images < config.training.images:
        loop.step()
        stopping = loop.agree(should_stop())
        if loop.crossed(config.training.record_images):
            yield loop.record()
        if config.training.grid_images and loop.crossed(config.training.grid_images):
            loop.grids()
        if config.training.posthoc_ema and loop.crossed(config.training.snapshot_images):
            loop.snapshot()
        if stopping or loop.crossed(config.training.checkpoint_images):
            loop.checkpoint(stopping or loop.state.images >= config.training.images)
        if stopping and loop.state.images < config.training.images:
            return
    loop.finish()


class _Loop:
    """A run in progress."""

    def __init__(self, config: RunConfig, images: Images, out: Path, init: Model | None) -> None:
        self.config, self.recipe, self.out = config, config.training, out
        self.accelerator = joined_accelerator(config.training.track, out)
        self.device = self.accelerator.device
        self.schedule, self.levels, self.rates = (
            SCHEDULES[config.model.schedule],
            Levels.of(config),
            Rates(config),
        )
        set_precision(self.recipe.precision)
        seed_globally(self.recipe.seed, Stream.WEIGHTS)
        denoiser = build_denoiser(config.model).to(self.device)
        if init is not None:
            begin_with(denoiser, config, init)
        self.state = State.begin(
            set_compute_dtype(denoiser, dtype_of(self.recipe.precision)), self.recipe
        )
        self.layout = fastest_memory_format(denoiser)
        self.sharded = self.recipe.shard and distributed.world_size() > 1
        self.health, self.exchange = (
            Health(self.device),
            Exchange(p for _, p in self.state.named_parameters()),
        )
        check_run(out, config, images)
        self.shares = share_out(
            self.recipe.batch_size, distributed.world_size(), self.recipe.accumulate
        )
        self._resume()
        start_trackers(self.accelerator, out, config)
        if self.recipe.compile:
            compile_parts(denoiser.network)
        self.images, held_out = split(images, self.recipe.held_out, self.recipe.seed)
        own = [part[distributed.rank()] for part in self.shares]
        self.feed = Feed(config, self.images, self.levels, own, self.device)
        self.probe = self._probe(self.images)
        self.held_out = self._probe(held_out) if held_out else None
        self.optimal_loss, self.zero_loss = (
            self.probe.optimal_loss(self.images, denoiser),
            self.probe.zero_loss(denoiser),
        )
        self.clock, self.timed_images, self.timed_seconds = time.monotonic(), 0, 0.0

    def _probe(self, images: Images) -> Probe:
        conditional = self.config.model.classes > 0
        return Probe.draw(
            images, self.state.denoiser.stages, self.schedule, conditional, self.recipe.seed
        )

    def _resume(self) -> None:
        distributed.barrier()  # all have looked at the folder before the first one writes to it
        load_latest(self.out, self.state)
        if distributed.is_main_process():
            keep_records(self.out, self.state.images)
            keep_snapshots(self.out, self.state.images)
            write_json(self.out / "config.json", to_json(self.config))
        distributed.barrier()

    def agree(self, wish: bool) -> bool:
        """Whether any process wishes it."""
        return (
            wish
            if distributed.world_size() == 1
            else bool(distributed.all_reduce_max(torch.tensor(float(wish), device=self.device)))
        )

    def crossed(self, interval: int) -> bool:
        """Whether the last step reached or passed a multiple of ``interval`` images, or the end."""
        now, batch = self.state.images, self.recipe.batch_size
        return now // interval > (now - batch) // interval or now >= self.recipe.images

    def step(self) -> None:
        """One batch: loss, gradient, Adam, averages. Nothing here waits for the device."""
        state, recipe = self.state, self.recipe
        draws, read = self.feed(state.images)
        seed_globally(recipe.seed, Stream.DROPOUT, state.images, distributed.rank())
        self.rates.apply(state.optimizer, state.images)
        state.optimizer.zero_grad(set_to_none=True)
        for part, samples in zip(self.shares, read, strict=True):
            self._backward(draws, part, samples)
        stage, frozen = state.denoiser.stages.index(draws.sigma), self.rates.frozen(state.images)
        self.exchange.add((frozenset(stage.tolist()), frozen))
        self._update()
        counts = stage.bincount(minlength=len(state.denoiser.stages)).tolist()
        state.macs += sum(
            n * cost
            for n, cost in zip(counts, training_macs(self.config.model, frozen), strict=True)
        )
        state.count(counts)
        self.timed_images += recipe.batch_size

    def _update(self) -> None:
        """A step of the optimiser, or none if the gradient is not finite."""
        state, every = self.state, part_norms(self.state.modules())
        norms = every[: len(state.sums.norm)]  # without that of the learned weight
        if self.recipe.clip_norm:
            nn.utils.clip_grads_with_norm_(
                state.denoiser.parameters(), self.recipe.clip_norm, torch.linalg.vector_norm(norms)
            )
        bad = self.health.failed(
            torch.linalg.vector_norm(every), state.images // self.recipe.batch_size
        )
        state.optimizer.found_inf = bad  # type: ignore[attr-defined]  # fused optimisers leave the step out then
        state.optimizer.step()
        state.sums.norm += norms.nan_to_num(0, 0, 0) * (1 - bad)
        state.sums.taken += 1 - bad
        state.sums.skipped += bad

    def _backward(self, draws: Draws, part: list[tuple[int, int]], samples: Samples) -> None:
        """Adds the gradient of this process's samples of a part in the mean over the batch."""
        batch = draws.place(samples, self.device, self.layout)
        force_stages = self._stages(draws, part) if self.sharded else ()
        losses = self._losses(batch, force_stages)
        objective = poison(self._weighted(losses, batch.sigma).sum() / self.recipe.batch_size)
        if objective.requires_grad:  # else all parts that were used are frozen
            objective.backward()
        stage = self.state.denoiser.stages.index(batch.sigma).to(self.device, non_blocking=True)
        sums, finite = self.state.sums, losses.detach().isfinite()
        sums.loss.index_add_(0, stage, losses.detach().where(finite, 0).to(sums.loss.dtype))
        sums.count.index_add_(0, stage, finite.to(sums.count.dtype))

    def _weighted(self, losses: Tensor, sigma: Tensor) -> Tensor:
        """What is minimised, for each sample."""
        if self.state.uncertainty is not None:
            losses = self.state.uncertainty.balance(losses, sigma)
        return (
            losses * self.levels.weights(sigma).to(losses, non_blocking=True)
            if self.recipe.importance
            else losses
        )

    def _losses(self, batch: Batch, force_stages: Collection[int]) -> Tensor:
        return self.state.denoiser.loss(
            batch.y, batch.sigma, batch.noise, batch.conditions, force_stages=force_stages
        )

    def _stages(self, draws: Draws, part: list[tuple[int, int]]) -> frozenset[int]:
        """The stages of the samples that all processes compute in a part."""
        sigma = torch.cat([draws.sigma[start:stop] for start, stop in part])
        return frozenset(self.state.denoiser.stages.index(sigma).tolist())

    def _gather(self) -> None:
        """Puts the sums of all processes' losses into the first process.

        Raises:
            Diverged: in every process, if too many steps in a row were left out.
        """
        sums = self.state.sums
        if self.health.longest >= PATIENCE:
            raise self._diverged()
        if distributed.world_size() > 1:
            for value in (sums.loss, sums.count):
                value.copy_(
                    distributed.all_reduce_sum(value)
                    if distributed.is_main_process()
                    else 0 * distributed.all_reduce_sum(value)
                )

    def _diverged(self) -> Diverged:
        """Names the sample with the worst loss in the batch that failed first; the weights have not changed since."""
        seen = int(self.health.first) * self.recipe.batch_size
        ranges, stages = [own for part in self.shares for own in part], self.state.denoiser.stages
        draws, read = Feed(
            self.config, self.feed.images, self.levels, ranges, self.device, ahead=0
        )(seen)
        seed_globally(self.recipe.seed, Stream.DROPOUT, seen, distributed.rank())
        force_stages = range(len(stages)) if self.sharded else ()
        with torch.no_grad():
            losses = torch.cat(
                [
                    self._losses(draws.place(samples, self.device, self.layout), force_stages)
                    for samples in read
                ]
            ).cpu()
        worst = int(losses.nan_to_num(torch.inf).argmax())
        sample = [index for own in ranges for index in range(*own)][worst]
        what = "The gradient" if losses.isfinite().all() else "The loss"
        return Diverged(
            f"{what} was not finite in {PATIENCE} steps in a row, which were left out. The first was the batch after {seen} "
            f"images; its largest loss, {losses[worst]:.3g}, is in stage {int(stages.index(draws.sigma[sample])) + 1}, of image "
            f"{int(draws.chosen[sample])} at sigma {float(draws.sigma[sample]):.4g}. Earlier checkpoints are kept; train in "
            f"another --out with a lower learning rate (now {self.rates})."
        )

    def record(self) -> Record:
        """The record of the steps since the last one, written to ``stats.jsonl``; whole in the first process only."""
        self._gather()
        state, sums = self.state, self.state.sums
        loss, count, norm, taken = (
            value.tolist() for value in (sums.loss, sums.count, sums.norm, sums.taken)
        )
        self._tick(training=True)
        begun, probed = (
            state.images - self.recipe.batch_size,
            self.probe.network_losses(state.averages.main, self.device),
        )
        speed = self.timed_images / self.timed_seconds
        record = Record(
            images=state.images,
            loss=[total / n if n else None for total, n in zip(loss, count, strict=True)],
            share=[n / max(1, sum(count)) for n in count],
            probe_loss=self.probe.per_stage(probed),
            optimal_loss=self.optimal_loss,
            learning_rate=max(self.rates.at(begun)),
            learning_rates=self.rates.differing(begun),
            images_per_second=speed,
            seconds=round(state.seconds, 3),
            gradient_norm=[total / max(1, taken[0]) for total in norm],
            skipped=int(sums.skipped),
            zero_loss=self.zero_loss,
            held_out_loss=self.held_out.network_loss(state.averages.main, self.device)
            if self.held_out
            else [],
            macs=state.macs,
            memory=memory_in_use(self.device),
            seconds_left=max(0, self.recipe.images - state.images) / speed,
        )
        sums.clear()
        self.timed_images, self.timed_seconds = 0, 0.0
        if distributed.is_main_process():
            append_record(self.out, record)
            if state.uncertainty is not None:
                write_curve(self.out, state.uncertainty, state.images, self.probe.sigma, probed)
        if self.recipe.track:
            track(self.accelerator, record)
        self._tick(training=False)
        return record

    def grids(self) -> None:
        """Draws samples with the weights as they are and with the averaged ones."""
        self._tick(training=True)
        draw_grids(self.out, self.config, self.state, self.device)
        self._tick(training=False)

    def snapshot(self) -> None:
        """Writes the averages from which others can be made."""
        self._tick(training=True)
        save_snapshot(self.out, self.state, self.config)
        self._tick(training=False)

    def checkpoint(self, stopping: bool) -> None:
        """Writes a checkpoint, unless the last steps failed and there will be another occasion."""
        self._gather()
        self._tick(training=True)
        if stopping or not self.health.failing:
            save_checkpoint(self.out, self.state, self.config)
        distributed.barrier()
        self._tick(training=False)

    def finish(self) -> None:
        """Writes the finished model."""
        path, weights = self.out / "model.safetensors", whole_weights(self.state.averages.main)
        if distributed.is_main_process() and (
            not path.exists() or load_model(path).images != self.state.images
        ):
            save_model(path, weights, self.config.model, self.state.images, provenance(self.config))
        if self.recipe.track:
            self.accelerator.end_training()

    def _tick(self, training: bool) -> None:
        """Counts the time since the last call."""
        now = time.monotonic()
        self.state.seconds += now - self.clock
        self.timed_seconds += (now - self.clock) * training
        self.clock = now
