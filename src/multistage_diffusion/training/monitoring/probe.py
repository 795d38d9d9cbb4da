"""The yardstick of a run: fixed images, noise and levels at which network and optimal denoiser are compared."""

from dataclasses import dataclass

import torch
from torch import Tensor

from multistage_diffusion.conditions import Conditions
from multistage_diffusion.data.images import Images, to_unit_range
from multistage_diffusion.denoiser import Denoiser, NetworkDenoiser
from multistage_diffusion.optimal import OptimalDenoiser
from multistage_diffusion.preconditioning import weighted_error
from multistage_diffusion.schedule import Schedule
from multistage_diffusion.stages import Stages
from multistage_diffusion.training.batches.levels import stage_levels
from multistage_diffusion.training.randomness import Stream, generator

__all__ = ["Probe"]

PER_STAGE = 64
PART = 192  # evaluated at once


@dataclass(frozen=True)
class Probe:
    """As many noisy images in each stage, the same ones throughout a run."""

    clean: Tensor
    noise: Tensor
    sigma: Tensor
    """Noise levels, the same number in each stage, smallest noise first."""
    stages: int
    labels: Tensor | None

    @staticmethod
    def draw(
        images: Images,
        stages: Stages,
        schedule: Schedule,
        conditional: bool,
        seed: int,
        per_stage: int = PER_STAGE,
    ) -> "Probe":
        """Draws images and noise at random and levels stratified inside each stage, under the schedule's density."""
        draw = generator(seed, Stream.PROBE)
        chosen = torch.randint(len(images), (per_stage * len(stages),), generator=draw)
        clean = to_unit_range(images.pixels[chosen])
        sigma = torch.cat(
            [stage_levels(schedule, stages, k, per_stage, draw) for k in range(len(stages))]
        )
        labels = images.labels[chosen] if conditional and images.labels is not None else None
        return Probe(clean, torch.randn(clean.shape, generator=draw), sigma, len(stages), labels)

    @property
    def noisy(self) -> Tensor:
        return self.clean + self.sigma.float()[:, None, None, None] * self.noise

    def network_loss(self, denoiser: NetworkDenoiser, device: torch.device) -> list[float]:
        """Mean weighted loss of the network in each stage."""
        return self.per_stage(self.network_losses(denoiser, device))

    @torch.no_grad()
    def network_losses(self, denoiser: NetworkDenoiser, device: torch.device) -> Tensor:
        """Weighted loss of the network on each image, in the order of ``sigma``."""
        denoised = []
        for part in torch.arange(len(self.sigma)).split(PART):
            conditions = Conditions(labels=self.labels).at(part).to(device)
            noisy = self.noisy[part].to(device)
            denoised.append(denoiser(noisy, self.sigma[part], conditions).cpu())
        return self._losses(torch.cat(denoised), denoiser)

    def zero_loss(self, denoiser: NetworkDenoiser) -> list[float]:
        """Mean weighted loss in each stage of a network whose output is zero."""
        skip = denoiser.preconditioning.c_skip(self.sigma).float()[:, None, None, None]
        return self.per_stage(self._losses(skip * self.noisy, denoiser))

    def optimal_loss(self, images: Images, denoiser: NetworkDenoiser) -> list[float]:
        """Mean weighted loss of the optimal denoiser in each stage: the least any denoiser can have on this data set.

        For a conditional network the optimal denoiser of each class is meant.
        """
        if self.labels is None or images.labels is None:
            return self.per_stage(
                self._losses(OptimalDenoiser(images.pixels)(self.noisy, self.sigma), denoiser)
            )
        denoised = torch.empty_like(self.clean)
        for label in self.labels.unique():
            here = self.labels == label
            best: Denoiser = OptimalDenoiser(images.at(images.labels == label).pixels)
            denoised[here] = best(self.noisy[here], self.sigma[here])
        return self.per_stage(self._losses(denoised, denoiser))

    def _losses(self, denoised: Tensor, denoiser: NetworkDenoiser) -> Tensor:
        return weighted_error(denoised, self.clean, self.sigma, denoiser.preconditioning)

    def per_stage(self, losses: Tensor) -> list[float]:
        """The mean of the losses in each stage."""
        means: list[float] = losses.unflatten(0, (self.stages, -1)).mean(1).tolist()
        return means
