"""The probe of a run: fixed images, noise and noise levels.

Network and optimal denoiser are compared on it.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from multistage_diffusion.conditions import Conditions
from multistage_diffusion.data.images import Images
from multistage_diffusion.denoiser import NetworkDenoiser
from multistage_diffusion.distributed import float64_device
from multistage_diffusion.optimal import OptimalDenoiser
from multistage_diffusion.preconditioning import weighted_error
from multistage_diffusion.schedule import Schedule
from multistage_diffusion.stages import Stages
from multistage_diffusion.training.batches.levels import stage_levels
from multistage_diffusion.training.randomness import Stream, generator

__all__ = ["Probe"]

PER_STAGE = 64
BATCH = 192


@dataclass(frozen=True)
class Probe:
    """The same number of noisy images in each stage, the same ones throughout a run."""

    clean: Tensor
    """``[N, C, H, W]``, -1 to 1."""
    noise: Tensor
    """Unit Gaussian noise like ``clean``."""
    sigma: Tensor
    """Noise levels ``[N]``, smallest noise first."""
    stages: int
    labels: Tensor | None
    """Classes, int64 ``[N]``, for a conditional network."""
    context: Tensor | None = None
    """What the network attends to, ``[N, tokens, channels]``."""

    @staticmethod
    def draw(
        images: Images,
        stages: Stages,
        schedule: Schedule,
        conditional: bool,
        seed: int,
        per_stage: int = PER_STAGE,
    ) -> "Probe":
        """Draws images and noise, and stratified levels of the schedule in each stage."""
        source = generator(seed, Stream.PROBE)
        chosen = torch.randint(len(images), (per_stage * len(stages),), generator=source)
        clean = images.space.encode(images.pixels[chosen])
        levels = [
            stage_levels(schedule, stages, stage, per_stage, source) for stage in range(len(stages))
        ]
        labels = images.labels[chosen] if conditional and images.labels is not None else None
        noise = torch.randn(clean.shape, generator=source)
        context = None if images.context is None else images.context[chosen].float()
        return Probe(clean, noise, torch.cat(levels), len(stages), labels, context)

    def part(self, per_stage: int) -> "Probe":
        """At most ``per_stage`` of the noisy images of each stage, spread over its levels."""
        each = len(self.sigma) // self.stages
        used = min(per_stage, each)
        chosen = (torch.arange(used) * each + each // 2) // used
        rows = (torch.arange(self.stages)[:, None] * each + chosen).flatten()
        labels = None if self.labels is None else self.labels[rows]
        return Probe(self.clean[rows], self.noise[rows], self.sigma[rows], self.stages, labels)

    @property
    def noisy(self) -> Tensor:
        """The noisy images, ``[N, C, H, W]``."""
        return self.clean + self.sigma.float()[:, None, None, None] * self.noise

    def network_loss(self, denoiser: NetworkDenoiser, device: torch.device) -> list[float]:
        """Mean weighted loss of the network in each stage."""
        return self.per_stage(self.network_losses(denoiser, device))

    @torch.no_grad()
    def network_losses(self, denoiser: NetworkDenoiser, device: torch.device) -> Tensor:
        """Weighted loss of the network on each image, in the order of ``sigma``."""
        denoised = []
        for part in torch.arange(len(self.sigma)).split(BATCH):
            conditions = Conditions(self.labels, context=self.context).at(part).to(device)
            noisy = self.noisy[part].to(device)
            denoised.append(denoiser(noisy, self.sigma[part], conditions).cpu())
        return self._losses(torch.cat(denoised), denoiser)

    def zero_loss(self, denoiser: NetworkDenoiser) -> list[float]:
        """Mean weighted loss in each stage of a network that outputs zeros."""
        skip = denoiser.preconditioning.c_skip(self.sigma).float()[:, None, None, None]
        return self.per_stage(self._losses(skip * self.noisy, denoiser))

    def optimal_losses(self, images: Images, denoiser: NetworkDenoiser) -> Tensor:
        """Weighted loss of the optimal denoiser on each image, in the order of ``sigma``.

        Its mean is the minimum over all denoisers on this data set. For a conditional network it is
        that of the optimal denoiser of each class.

        It is computed on the GPU if there is one.
        """
        device = float64_device()
        noisy = self.noisy.to(device)
        if self.labels is None or images.labels is None:
            denoised = OptimalDenoiser(images.pixels)(noisy, self.sigma)
            return self._losses(denoised.cpu(), denoiser)
        denoised = torch.empty_like(noisy)
        for label in self.labels.unique():
            here = self.labels == label
            optimal = OptimalDenoiser(images.at(images.labels == label).pixels)
            denoised[here.to(device)] = optimal(noisy[here.to(device)], self.sigma[here])
        return self._losses(denoised.cpu(), denoiser)

    def per_stage(self, losses: Tensor) -> list[float]:
        """The mean of the losses in each stage."""
        means: list[float] = losses.unflatten(0, (self.stages, -1)).mean(1).tolist()
        return means

    def _losses(self, denoised: Tensor, denoiser: NetworkDenoiser) -> Tensor:
        return weighted_error(denoised, self.clean, self.sigma, denoiser.preconditioning)
