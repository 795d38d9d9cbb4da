"""The denoiser as a model of diffusers."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.utils import BaseOutput
from torch import Tensor

from multistage_diffusion.conditions import Conditions
from multistage_diffusion.config import from_json, to_json
from multistage_diffusion.model import Model, ModelConfig, build_denoiser

__all__ = ["MultistageUNet", "MultistageUNetOutput"]


@dataclass
class MultistageUNetOutput(BaseOutput):
    """What the model returns."""

    sample: Tensor
    """The denoised images, ``[B, C, H, W]``."""


class MultistageUNet(ModelMixin, ConfigMixin):
    """A denoiser with one encoder and a decoder for each stage of noise.

    The arguments are those of ``ModelConfig`` under the names that diffusers uses.

    Args:
        sample_size: height and width of an image.
        in_channels: channels of an image.
        num_class_embeds: number of classes; 0 for an unconditional model.
        boundaries: noise levels sigma between the stages; by default those of CIFAR-10.
        schedule: density of the noise levels in training.
        preconditioning: what the network predicts.
        sigma_data: standard deviation of the data.
        network: the settings of ``NetworkConfig``.
        class_names: names of the classes, or none.

    Raises:
        BadInput: if the configuration contradicts itself.
    """

    _repeated_blocks = ("ResidualBlock",)
    _no_split_modules = ("ResidualBlock",)

    @register_to_config
    def __init__(
        self,
        sample_size: Sequence[int] = (32, 32),
        in_channels: int = 3,
        num_class_embeds: int = 0,
        boundaries: Sequence[float] = (2.51, 7.4),
        schedule: str = "edm",
        preconditioning: str = "edm",
        sigma_data: float = 0.5,
        network: dict[str, Any] | None = None,
        class_names: Sequence[str] = (),
    ) -> None:
        super().__init__()
        settings = {
            "shape": [in_channels, *sample_size],
            "classes": num_class_embeds,
            "boundaries": list(boundaries),
            "schedule": schedule,
            "preconditioning": preconditioning,
            "sigma_data": sigma_data,
            "network": {} if network is None else dict(network),
        }
        self.model_config = from_json(ModelConfig, settings)
        self.denoiser = build_denoiser(self.model_config)

    @classmethod
    def of(cls, model: Model, class_names: Sequence[str] = ()) -> "MultistageUNet":
        """The model of diffusers that shares the weights of a model of this package."""
        config = to_json(model.config)
        channels, *size = config.pop("shape")
        classes = config.pop("classes")
        unet = cls(size, channels, classes, class_names=list(class_names), **config)
        unet.denoiser = model.denoiser
        return unet

    def forward(
        self,
        sample: Tensor,
        timestep: Tensor | float,
        class_labels: Tensor | None = None,
        encoder_hidden_states: Tensor | None = None,
        return_dict: bool = True,
    ) -> MultistageUNetOutput | tuple[Tensor]:
        """Denoises.

        Args:
            sample: noisy images ``y + sigma n``, not scaled: ``[B, C, H, W]``.
            timestep: their noise levels sigma, ``[B]`` or one for all. float64 on the CPU keeps
                levels that lie on a boundary where they are.
            class_labels: classes, int64 ``[B]``; -1 for none.
            encoder_hidden_states: context that is attended to, ``[B, tokens, channels]``.
            return_dict: whether an output object is returned, or a tuple.

        Returns:
            An estimate of ``E[y | sample]``, like ``sample``: diffusers' prediction type "sample".
        """
        conditions = Conditions(class_labels, None, encoder_hidden_states)
        denoised = self.denoiser(sample, torch.as_tensor(timestep), conditions)
        return MultistageUNetOutput(sample=denoised) if return_dict else (denoised,)
