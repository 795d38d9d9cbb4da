"""A patch discriminator: how real each patch of a reconstruction looks.

Source: Isola et al. 2017 (the network), Esser et al. 2021 (its use, with the hinge loss).
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from multistage_diffusion.training.autoencoder.config import AutoencoderRun
from multistage_diffusion.training.distributed.gradients import GradientReducer
from multistage_diffusion.training.optimization import OptimizationConfig, make_optimizer

__all__ = ["Critic"]

WIDTH = 64
MOST_LEVELS = 3


class Critic:
    """The discriminator and its optimizer.

    Args:
        config: the run of the autoencoder.
        device: where it is trained.
    """

    def __init__(self, config: AutoencoderRun, device: torch.device) -> None:
        channels, height, width = config.shape
        levels = max(1, min(MOST_LEVELS, (min(height, width) // 8).bit_length()))
        self.network = _network(channels, levels).to(device)
        self.optimizer = make_optimizer(OptimizationConfig(), [self.network], None)
        for group in self.optimizer.param_groups:
            group["lr"] = config.preset.training.learning_rate
        self.reducer = GradientReducer(self.network.parameters())

    def realism(self, images: Tensor) -> Tensor:
        """What the autoencoder minimises: minus the mean score of its images."""
        self.network.requires_grad_(False)
        score: Tensor = self.network(images)
        return -score.mean()

    def learn(self, real: Tensor, made: Tensor, share: float) -> None:
        """A step towards a score above 1 for real images and below -1 for reconstructions.

        Args:
            real, made: originals and reconstructions, -1 to 1, ``[B, C, H, W]``.
            share: of the batch that these are.
        """
        self.network.requires_grad_(True)
        self.optimizer.zero_grad(set_to_none=True)
        loss = F.relu(1 - self.network(real)).mean() + F.relu(1 + self.network(made)).mean()
        (share * loss / 2).backward()
        self.reducer.reduce("all")
        self.optimizer.step()


def _network(channels: int, levels: int) -> nn.Sequential:
    layers: list[nn.Module] = [nn.Conv2d(channels, WIDTH, 4, 2, 1), nn.LeakyReLU(0.2)]
    width = WIDTH
    for _ in range(levels - 1):
        layers += [
            nn.Conv2d(width, 2 * width, 4, 2, 1, bias=False),
            nn.GroupNorm(1, 2 * width),
            nn.LeakyReLU(0.2),
        ]
        width *= 2
    return nn.Sequential(*layers, nn.Conv2d(width, 1, 3, 1, 1))
