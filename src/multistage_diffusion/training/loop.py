"""The training loop: a generator of records. The only module that knows accelerate."""

import math
import time
from collections.abc import Callable, Generator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from multistage_diffusion import processes
from multistage_diffusion.checkpoint import Model, load_model, save_model
from multistage_diffusion.config import ModelConfig, RunConfig, TrainingConfig, from_json, to_json
from multistage_diffusion.data.images import Images
from multistage_diffusion.denoiser import NetworkDenoiser, build_denoiser, fastest_layout, lay_out
from multistage_diffusion.errors import BadInput
from multistage_diffusion.files import read_json, write_json
from multistage_diffusion.schedule import SCHEDULES
from multistage_diffusion.training.batches import Batch, draw_batch
from multistage_diffusion.training.draws import Levels, Stream, seed_globally
from multistage_diffusion.training.gradients import add_over_processes
from multistage_diffusion.training.probe import Probe
from multistage_diffusion.training.records import Record, append_record, keep_records
from multistage_diffusion.training.state import State, checkpoints, images_seen, load_checkpoint, save_checkpoint

__all__ = ["Diverged", "check_run", "ema_decay", "learning_rate", "train"]


WELCOME = ("stages.json", "stages.svg")  # what may lie in the folder of a new run


class Diverged(RuntimeError):
    """The loss is no longer a finite number."""


def ema_decay(config: TrainingConfig, images: int) -> float:
    """Decay of the averaged weights for one batch: the half-life in images, ramped up (Karras et al. 2024, EDM's code)."""
    half_life = min(config.ema_half_life, config.ema_rampup * images)
    return 0.5 ** (config.batch_size / half_life) if half_life > 0 else 0.0


def learning_rate(config: TrainingConfig, images: int) -> float:
    """The learning rate of the batch that begins after ``images`` images: a linear ramp to a constant."""
    return config.learning_rate * min(1.0, (images + config.batch_size) / max(config.warmup_images, 1))


def check_run(out: Path, config: RunConfig, images: Images) -> None:
    """Checks that ``out`` is new or holds the same run, up to its length and the path of its data.

    Raises:
        BadInput: if ``out`` holds another run or other files, or the data is not what the configuration says.
    """
    if images.fingerprint != config.data.fingerprint:
        raise BadInput(f"The images differ from those of the run ({images.fingerprint}, not {config.data.fingerprint}).")
    path = out / "config.json"
    if path.exists():
        old = from_json(RunConfig, read_json(path))
        if old.data.fingerprint != config.data.fingerprint:
            raise BadInput(f"{out} holds a run on other images, those of {old.data.path}; choose another --out.")
        _check_same(out, to_json(_without_length(old)), to_json(_without_length(config)))
    elif out.is_dir() and (other := sorted(path.name for path in out.iterdir() if not _welcome(path.name))):
        raise BadInput(f"{out} holds {other[0]} but no config.json, so it is no run; choose another --out.")
    seen = images_seen(out)
    if seen - config.training.batch_size >= config.training.images:
        raise BadInput(f"The run in {out} has already seen {seen} images; give --images {seen} or more to continue it.")


def _welcome(name: str) -> bool:
    """Whether a file may lie in the folder of a new run: its stages, or what is being written under a temporary name."""
    return name in WELCOME or any(name.startswith(f".{file}.") for file in (*WELCOME, "config.json", "stats.jsonl"))


def _without_length(config: RunConfig) -> RunConfig:
    """A run without what may change from sitting to sitting."""
    training = replace(config.training, images=1, keep_last=1, keep_every=0)
    return replace(config, training=training, data=replace(config.data, path=""))


def _check_same(out: Path, old: object, new: object, where: str = "") -> None:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in old.keys() | new.keys():
            _check_same(out, old.get(key), new.get(key), f"{where}.{key}" if where else key)
    elif old != new:
        raise BadInput(f"{out} holds a run with another configuration: {where} is {old} there, {new} here. Choose another --out.")


def train(
    config: RunConfig, images: Images, out: Path, should_stop: Callable[[], bool] = lambda: False, init: Model | None = None
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
        Diverged: if the loss is not finite; the last checkpoint is kept.
    """
    loop = _Loop(config, images, out, init)
    while loop.state.images < config.training.images:
        loop.step()
        stopping = loop.agree(should_stop())
        if loop.crossed(config.training.record_images):
            yield loop.record()
        if stopping or loop.crossed(config.training.checkpoint_images):
            loop.checkpoint()
        if stopping and loop.state.images < config.training.images:
            return
    loop.finish()


def _begin_with(denoiser: NetworkDenoiser, config: RunConfig, init: Model) -> None:
    """Gives a network the weights of a model, which must be of the same network and stages."""
    ours, given = config.model, init.config.model
    if any(_same_function(ours)[name] != value for name, value in _same_function(given).items()):
        raise BadInput(
            f"The model to begin with has decoders {list(given.network.decoder_widths)} and boundaries {list(given.boundaries)}, "
            f"the run {list(ours.network.decoder_widths)} and {list(ours.boundaries)}, or their blocks or preconditioning differ."
        )
    try:
        denoiser.network.load_state_dict(init.denoiser.network.state_dict())
    except RuntimeError as error:
        raise BadInput("The model to begin with is for other images or classes.") from error


def _same_function(config: ModelConfig) -> dict[str, object]:
    """What two models must share for the same weights to mean the same."""
    network = replace(config.network, dropout=0.0, label_dropout=0.0)
    return {"network": network, "boundaries": config.boundaries, "preconditioning": config.preconditioning}


class _Loop:
    """A run in progress."""

    def __init__(self, config: RunConfig, images: Images, out: Path, init: Model | None) -> None:
        self.config, self.recipe, self.images, self.out = config, config.training, images, out
        self.device = Accelerator().device  # joins the other processes, if there are any
        self.schedule, self.levels = SCHEDULES[config.model.schedule], Levels.of(config)
        seed_globally(self.recipe.seed, Stream.WEIGHTS)
        denoiser = lay_out(build_denoiser(config.model).to(self.device))
        if init is not None:
            _begin_with(denoiser, config, init)
        denoiser.dtype = torch.bfloat16 if self.recipe.precision == "bf16" else torch.float32
        self.layout, self.state = fastest_layout(denoiser), State.begin(denoiser, self.recipe)
        check_run(out, config, images)
        self._share_of_batch()
        self._resume()
        self.probe = Probe.draw(images, denoiser.stages, self.schedule, config.model.classes > 0, self.recipe.seed)
        self.optimal_loss = self.probe.optimal_loss(images, denoiser)
        self.clock, self.timed_images, self.timed_seconds = time.monotonic(), 0, 0.0

    def _share_of_batch(self) -> None:
        """Which samples of a batch are this process's."""
        batch, count, number = self.recipe.batch_size, processes.count(), processes.number()
        if batch < count * self.recipe.accumulate:
            raise BadInput(
                f"Batches of {batch} images are too small for {count} processes and {self.recipe.accumulate} parts in each."
            )
        self.first, self.last = batch * number // count, batch * (number + 1) // count

    def _resume(self) -> None:
        processes.wait()  # all have looked at the folder before the first one writes to it
        for checkpoint in checkpoints(self.out)[-1:]:
            load_checkpoint(checkpoint, self.state)
        if processes.leading():
            keep_records(self.out, self.state.images)
            write_json(self.out / "config.json", to_json(self.config))
        else:
            self.state.loss_sum.zero_()
            self.state.loss_count.zero_()
        processes.wait()

    def agree(self, wish: bool) -> bool:
        """Whether any process wishes it."""
        return wish if processes.count() == 1 else bool(processes.greatest(torch.tensor(float(wish), device=self.device)))

    def crossed(self, interval: int) -> bool:
        """Whether the last step reached or passed a multiple of ``interval`` images, or the end."""
        now, batch = self.state.images, self.recipe.batch_size
        return now // interval > (now - batch) // interval or now >= self.recipe.images

    def step(self) -> None:
        """One batch: loss, gradient, Adam, average."""
        start, state, recipe = time.monotonic(), self.state, self.recipe
        batch = draw_batch(self.config, self.images, self.levels, state.images)
        seed_globally(recipe.seed, Stream.DROPOUT, state.images, processes.number())
        for group in state.optimizer.param_groups:
            group["lr"] = learning_rate(recipe, state.images)
        state.optimizer.zero_grad(set_to_none=True)
        cuts = [self.first + (self.last - self.first) * part // recipe.accumulate for part in range(recipe.accumulate + 1)]
        for begin, end in pairwise(cuts):
            self._backward(batch.part(begin, end, self.device, self.layout))
        parameters = list(state.denoiser.parameters())
        add_over_processes(parameters)
        if recipe.clip_norm:
            nn.utils.clip_grad_norm_(parameters, recipe.clip_norm)
        state.optimizer.step()
        state.images += recipe.batch_size
        state.update_average(ema_decay(recipe, state.images))
        self.timed_images += recipe.batch_size
        self.timed_seconds += time.monotonic() - start

    def _backward(self, batch: Batch) -> None:
        """Adds the gradient of some samples' part in the mean over the batch."""
        losses = self.state.denoiser.loss(batch.y, batch.sigma, batch.noise, batch.labels, batch.augment)
        weighted = losses * self.levels.weights(batch.sigma).to(losses) if self.recipe.importance else losses
        (weighted.sum() / self.recipe.batch_size).backward()
        stage = self.state.denoiser.stages.index(batch.sigma)
        self.state.loss_sum.index_add_(0, stage, losses.detach().double().cpu())
        self.state.loss_count.index_add_(0, stage, torch.ones_like(stage, dtype=torch.float64))

    def _gather(self) -> None:
        """Puts the sums of all processes' losses into the first.

        Raises:
            Diverged: in every process, if a loss was not finite.
        """
        state = self.state
        sums = torch.stack([state.loss_sum, state.loss_count])
        if processes.count() > 1:
            sums = processes.total(sums.to(self.device)).cpu()
        self._check_finite(sums[0])
        state.loss_sum, state.loss_count = sums if processes.number() == 0 else torch.zeros_like(sums)

    def record(self) -> Record:
        """The record of the steps since the last one, written to ``stats.jsonl``; whole in the first process only."""
        self._gather()
        state = self.state
        self._tick()
        means = [s / n if n else None for s, n in zip(state.loss_sum.tolist(), state.loss_count.tolist(), strict=True)]
        record = Record(
            images=state.images,
            loss=means,
            share=(state.loss_count / state.loss_count.sum().clamp(min=1)).tolist(),
            probe_loss=self.probe.network_loss(state.average, self.device),
            optimal_loss=self.optimal_loss,
            learning_rate=learning_rate(self.recipe, state.images - self.recipe.batch_size),
            images_per_second=self.timed_images / self.timed_seconds,
            seconds=round(state.seconds, 3),
        )
        state.loss_sum.zero_()
        state.loss_count.zero_()
        self.timed_images, self.timed_seconds = 0, 0.0
        if processes.leading():
            append_record(self.out, record)
        return record

    def checkpoint(self) -> None:
        self._gather()
        self._tick()
        if processes.leading():
            save_checkpoint(self.out, self.state, self.config)
        processes.wait()

    def finish(self) -> None:
        """Writes the finished model."""
        path = self.out / "model.safetensors"
        if processes.leading() and (not path.exists() or load_model(path).images != self.state.images):
            save_model(path, self.state.average, self.config, self.state.images)

    def _tick(self) -> None:
        now = time.monotonic()
        self.state.seconds += now - self.clock
        self.clock = now

    def _check_finite(self, sums: Tensor) -> None:
        if not math.isfinite(sums.sum()):
            bad = [k + 1 for k, value in enumerate(sums.tolist()) if not math.isfinite(value)]
            raise Diverged(
                f"The loss of stage {bad[0]} is not finite after {self.state.images} images; earlier checkpoints are kept. "
                f"Train in another --out with a lower learning rate (now {self.recipe.learning_rate:g})."
            )
