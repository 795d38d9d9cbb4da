"""A training step: from loss to averages."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from multistage_diffusion import distributed
from multistage_diffusion.cost import known_costs, step_macs
from multistage_diffusion.data.images import Images
from multistage_diffusion.denoiser import MEMORY_FORMAT
from multistage_diffusion.errors import Diverged
from multistage_diffusion.training.batches.batch import Batch, Draws, Samples
from multistage_diffusion.training.batches.levels import Levels
from multistage_diffusion.training.batches.reader import BatchReader
from multistage_diffusion.training.batches.sharing import check_sharing, share_out
from multistage_diffusion.training.config import RunConfig
from multistage_diffusion.training.distributed.config import ExecutionConfig
from multistage_diffusion.training.distributed.gradients import GradientReducer, part_norms
from multistage_diffusion.training.monitoring.divergence import (
    MOST_FAILED_STEPS,
    FailedSteps,
    spread_non_finite,
)
from multistage_diffusion.training.randomness import Stream, seed_globally
from multistage_diffusion.training.rates import Rates
from multistage_diffusion.training.state import State

__all__ = ["TrainingStep"]


class TrainingStep:
    """Changes the state by a batch. Nothing in it waits for the device.

    Args:
        config: the run.
        state: what is changed.
        images: the images to train on.
        device: where the network is.
    """

    def __init__(
        self, config: RunConfig, state: State, images: Images, device: torch.device
    ) -> None:
        self.config = config
        self.state = state
        self.device = device
        self.levels = Levels.of(config)
        self.rates = Rates(config)
        check_sharing(
            config.training.batch_size, distributed.world_size(), self._execution.accumulate
        )
        self.sharded = self._execution.shard and distributed.world_size() > 1
        self.failed = FailedSteps(device)
        self.reducer = GradientReducer(parameter for _, parameter in state.named_parameters())
        self.reader = BatchReader(config, images, self.levels, self._own_parts, device)

    def __call__(self) -> None:
        """Loss, gradient, optimizer and averages for the next batch."""
        state = self.state
        draws, samples = self.reader(state.images)
        frozen = self.rates.frozen(state.images)
        self._prepare()
        forced = self._forced_stages(draws)
        stages = state.denoiser.stages.index(draws.sigma)
        used = frozenset(stages.tolist()), frozen
        for force_stages, part in zip(forced[:-1], samples[:-1], strict=True):
            self._backward(draws, force_stages, part)
        with self.reducer.overlap(used, frozenset(stages[samples[-1].rows].tolist())):
            self._backward(draws, forced[-1], samples[-1])
        self.reducer.reduce(used)
        self._update_weights()
        self._count(stages, frozen)

    def _prepare(self) -> None:
        """Sets the seed of dropout and the learning rates, and clears gradients."""
        state = self.state
        seed = self.config.training.seed
        seed_globally(seed, Stream.DROPOUT, state.images, distributed.rank())
        self.rates.apply(state.optimizer, state.images)
        state.optimizer.zero_grad(set_to_none=True)

    @property
    def _execution(self) -> ExecutionConfig:
        return self.config.training.execution

    def _parts(self, draws: Draws) -> list[list[Tensor]]:
        """The samples of a batch by rank and micro-batch, of nearly equal cost."""
        frozen = self.rates.frozen(draws.first)
        by_stage = [cost.training_macs for cost in known_costs(self.config.model, frozen)]
        costs = torch.tensor(by_stage, dtype=torch.float64)
        stages = self.state.denoiser.stages.index(draws.sigma)
        return share_out(costs[stages], distributed.world_size(), self._execution.accumulate)

    def _own_parts(self, draws: Draws) -> list[Tensor]:
        """The samples of a batch that this rank computes, by micro-batch."""
        return self._parts(draws)[distributed.rank()]

    def _all_samples(self, draws: Draws) -> list[Tensor]:
        """The samples of a batch in parts that every rank has memory for."""
        return [rows for parts in self._parts(draws) for rows in parts]

    def _backward(self, draws: Draws, force_stages: Sequence[int], samples: Samples) -> None:
        """Adds the gradient of this rank's part of a micro-batch, as a part of the batch's mean."""
        batch = draws.place(samples, self.device, MEMORY_FORMAT)
        losses = self._losses(batch, force_stages)
        total = self._weighted(losses, batch.sigma).sum()
        objective = spread_non_finite(total / self.config.training.batch_size)
        if objective.requires_grad:  # otherwise all parts that were used are frozen
            objective.backward()
        self._add_to_sums(losses.detach(), batch.sigma)

    def _losses(self, batch: Batch, force_stages: Sequence[int]) -> Tensor:
        return self.state.denoiser.loss(
            batch.y, batch.sigma, batch.noise, batch.conditions, force_stages=force_stages
        )

    def _forced_stages(self, draws: Draws) -> list[list[int]]:
        """The stages that all ranks must evaluate in each micro-batch if weights are sharded."""
        if not self.sharded:
            return [[]] * self._execution.accumulate
        micro_batches = (torch.cat(parts) for parts in zip(*self._parts(draws), strict=True))
        stages = self.state.denoiser.stages.index(draws.sigma)
        return [sorted(set(stages[rows].tolist())) for rows in micro_batches]

    def _weighted(self, losses: Tensor, sigma: Tensor) -> Tensor:
        """What is minimised, for each sample."""
        if self.state.learned_weight is not None:
            losses = self.state.learned_weight.balance(losses, sigma)
        if self.config.training.optimization.min_snr:
            losses = losses * self._min_snr(sigma).to(losses, non_blocking=True)
        if self.config.training.draws.importance:
            losses = losses * self.levels.weights(sigma).to(losses, non_blocking=True)
        return losses

    def _min_snr(self, sigma: Tensor) -> Tensor:
        """Min-SNR's weight of the squared error, divided by the one that losses have."""
        weight = (1 / sigma**2).clamp(max=self.config.training.optimization.min_snr)
        return weight / self.state.denoiser.preconditioning.weight(sigma)

    def _add_to_sums(self, losses: Tensor, sigma: Tensor) -> None:
        sums = self.state.sums
        stage = self.state.stages.index(sigma).to(self.device, non_blocking=True)
        finite = losses.isfinite()
        sums.loss.index_add_(0, stage, losses.where(finite, 0).to(sums.loss.dtype))
        sums.count.index_add_(0, stage, finite.to(sums.count.dtype))

    def _update_weights(self) -> None:
        """A step of the optimizer, or none if the gradient is not finite."""
        state = self.state
        norms = part_norms(state.modules())
        network_norms = norms[: len(state.sums.norm)]  # without that of the learned weight
        self._clip(torch.linalg.vector_norm(network_norms))
        step = state.images // self.config.training.batch_size
        failed = self.failed.add(torch.linalg.vector_norm(norms), step)
        state.optimizer.found_inf = failed  # type: ignore[attr-defined]  # fused ones skip then
        state.optimizer.step()
        state.sums.norm += network_norms.nan_to_num(0, 0, 0) * (1 - failed)
        state.sums.taken += 1 - failed
        state.sums.skipped += failed

    def _clip(self, norm: Tensor) -> None:
        limit = self.config.training.optimization.clip_norm
        if limit:
            nn.utils.clip_grads_with_norm_(self.state.denoiser.parameters(), limit, norm)

    def _count(self, stages: Tensor, frozen: tuple[bool, ...]) -> None:
        """Counts the images and multiply-accumulates of the batch, and updates the averages."""
        counts: list[int] = stages.bincount(minlength=len(self.state.denoiser.stages)).tolist()
        forward, backward = step_macs(self.config.model, frozen, counts)
        self.state.ledger.forward_macs += forward
        self.state.ledger.backward_macs += backward
        self.state.count(counts)

    def check_divergence(self) -> None:
        """Reads from the device how the last steps went.

        Raises:
            Diverged: on every rank, if too many steps in a row were skipped.
        """
        if self.failed.longest >= MOST_FAILED_STEPS:
            raise self._diverged()

    def _diverged(self) -> Diverged:
        """Names the sample with the largest loss in the batch that failed first.

        The weights have not changed since.
        """
        seen = int(self.failed.first) * self.config.training.batch_size
        draws, losses = self._losses_at(seen)
        worst = int(losses.nan_to_num(torch.inf).argmax())
        sample = int(torch.cat(self._all_samples(draws))[worst])
        sigma = draws.sigma[sample]
        what = "The gradient" if losses.isfinite().all() else "The loss"
        return Diverged(
            f"{what} was not finite in {MOST_FAILED_STEPS} steps in a row, which were skipped. The "
            f"first was the batch after {seen} images; its largest loss, {losses[worst]:.3g}, is "
            f"in stage {int(self.state.stages.index(sigma)) + 1}, of image "
            f"{int(draws.chosen[sample])} at sigma {float(sigma):.4g}. Earlier checkpoints are "
            f"kept; train in another --out with a lower learning rate (now {self.rates})."
        )

    @torch.no_grad()
    def _losses_at(self, seen: int) -> tuple[Draws, Tensor]:
        """The losses of the whole batch after ``seen`` images, on the CPU."""
        reader = BatchReader(
            self.config, self.reader.images, self.levels, self._all_samples, self.device, ahead=0
        )
        draws, samples = reader(seen)
        seed_globally(self.config.training.seed, Stream.DROPOUT, seen, distributed.rank())
        force_stages = range(len(self.state.denoiser.stages)) if self.sharded else ()
        batches = (draws.place(part, self.device, MEMORY_FORMAT) for part in samples)
        return draws, torch.cat([self._losses(batch, force_stages) for batch in batches]).cpu()
