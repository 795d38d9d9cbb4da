"""The denoiser as a model of diffusers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.utils import BaseOutput
from torch import Tensor

from multistage_diffusion.conditions import Conditions
from multistage_diffusion.config import from_json, to_json
from multistage_diffusion.model import Model, ModelConfig, build_denoiser, named_classes
from multistage_diffusion.networks.embedding import Embedding

__all__ = ["MultistageUNet", "MultistageUNetOutput"]

USUAL: dict[str, Any] = {
    "boundaries": [2.51, 7.4],
    "schedule": "edm",
    "preconditioning": "edm",
    "sigma_data": 0.5,
    "network": {},
}


@dataclass
class MultistageUNetOutput(BaseOutput):
    """What the model returns."""

    sample: Tensor
    """The denoised images, ``[B, C, H, W]``."""


class MultistageUNet(ModelMixin, ConfigMixin):
    """A denoiser with one encoder and a decoder for each stage of noise.

    Args:
        sample_size: height and width of an image.
        in_channels: channels of an image.
        num_class_embeds: number of classes; 0 for an unconditional model.
        class_names: names of the classes, or none.
        model: the other settings of ``ModelConfig``, as JSON. By default, EDM's preconditioning,
            the boundaries of CIFAR-10, and the smallest of networks.

    Raises:
        BadInput: if the configuration contradicts itself.
    """

    _repeated_blocks = ("ResidualBlock",)
    _no_split_modules = ("ResidualBlock",)
    _supports_gradient_checkpointing = True
    _skip_layerwise_casting_patterns = ("embedding",)  # its dtype is that of the computation

    @register_to_config
    def __init__(
        self,
        sample_size: Sequence[int] = (32, 32),
        in_channels: int = 3,
        num_class_embeds: int = 0,
        class_names: Sequence[str] = (),
        model: Mapping[str, Any] = USUAL,
    ) -> None:
        super().__init__()
        self.register_to_config(_use_default_values=[])  # arguments by position count as such
        shape = [in_channels, *sample_size]
        settings = {**model, "shape": shape, "classes": num_class_embeds}
        self.model_config = from_json(ModelConfig, settings)
        self.denoiser = build_denoiser(self.model_config)

    @classmethod
    def of(cls, model: Model) -> "MultistageUNet":
        """The model of diffusers that shares the weights of a model of this package."""
        config = to_json(model.config)
        channels, *size = config.pop("shape")
        classes = config.pop("classes")
        names = [name for _, name in named_classes(model.config)]
        with torch.device("meta"):  # its own weights are not needed
            unet = cls(size, channels, classes, names, config)
        unet.denoiser = model.denoiser
        return unet

    @classmethod
    def from_pretrained(cls, *args: Any, **kwargs: Any) -> Any:
        """Loads a model, as ``ModelMixin.from_pretrained``, with all of its buffers.

        accelerate leaves those of modules whose weights stay on the disk as they were initialised.
        """
        loaded = super().from_pretrained(*args, **kwargs)
        _read_frequencies(loaded[0] if isinstance(loaded, tuple) else loaded)
        return loaded

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


def _read_frequencies(unet: MultistageUNet) -> None:
    """Reads the random frequencies of embeddings whose weights stay on the disk."""
    for module in unet.modules():
        weights = getattr(getattr(module, "_hf_hook", None), "weights_map", None)
        if isinstance(module, Embedding) and module.kind == "fourier" and weights is not None:
            module.frequencies.copy_(weights["frequencies"])
