"""Sampling as a pipeline of diffusers."""

from collections.abc import Sequence
from typing import Any

import torch
from diffusers import DiffusionPipeline, ImagePipelineOutput
from diffusers.image_processor import VaeImageProcessor
from diffusers.utils import logging
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor

from multistage_diffusion.conditions import Conditions
from multistage_diffusion.denoiser import Denoiser
from multistage_diffusion.interop.pipeline.labels import class_indices
from multistage_diffusion.interop.pipeline.loops import Call, StepEnd, run_scheduler, run_solver
from multistage_diffusion.interop.pipeline.scheduler import SolverScheduler
from multistage_diffusion.interop.pipeline.unet import MultistageUNet
from multistage_diffusion.latents import AutoencoderSpace
from multistage_diffusion.latents.pretrained import identified
from multistage_diffusion.sampling.guidance import Guidance, GuidedDenoiser
from multistage_diffusion.space import PIXELS

__all__ = ["MultistagePipeline"]

logger = logging.get_logger(__name__)

Generators = torch.Generator | list[torch.Generator] | None
PICTURES = (1, 3, 4)  # channels that Pillow can have


class MultistagePipeline(DiffusionPipeline):
    """Images from a multi-stage model.

    Args:
        unet: the model.
        scheduler: a ``SolverScheduler``, or a scheduler of diffusers: DDPM, DDIM, DPM-Solver,
            UniPC, the Euler family, EDM's and those of flow matching.
        vae: the autoencoder of a latent model, of diffusers. Without one, that which the model
            names is looked for.
    """

    model_cpu_offload_seq = "unet->vae"
    _optional_components = ["vae"]  # noqa: RUF012
    _callback_tensor_inputs = ["latents"]  # noqa: RUF012, a list as in all pipelines

    def __init__(self, unet: MultistageUNet, scheduler: Any, vae: Any = None) -> None:
        super().__init__()
        self.register_modules(unet=unet, scheduler=scheduler, vae=vae)
        self.image_processor = VaeImageProcessor(vae_scale_factor=1)
        self._guidance_scale = 1.0
        self._num_timesteps = 0

    @property
    def guidance_scale(self) -> float:
        """Weight of classifier-free guidance; a callback may change ``_guidance_scale``."""
        return self._guidance_scale

    @property
    def num_timesteps(self) -> int:
        """Number of steps of the last call."""
        return self._num_timesteps

    @torch.no_grad()
    def __call__(
        self,
        class_labels: int | str | Sequence[int | str] | None = None,
        batch_size: int | None = None,
        num_images_per_prompt: int = 1,
        num_inference_steps: int = 18,
        guidance_scale: float = 1.0,
        generator: Generators = None,
        latents: Tensor | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
        callback_on_step_end: StepEnd | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = ("latents",),
    ) -> ImagePipelineOutput | tuple[Any]:
        """Draws images.

        Args:
            class_labels: a class or several, by number or name; by default the classes take turns.
            batch_size: how many labels there would be, where none are given. Default: as many as
                there are generators, or latents for ``num_images_per_prompt`` each; else 1.
            num_images_per_prompt: images for each label.
            num_inference_steps: steps from noise to image, unless the scheduler has a plan.
            guidance_scale: weight of classifier-free guidance; 1 for none.
            generator: source of all noise, or one for each image.
            latents: unit noise to begin with, ``[B, C, H, W]``.
            output_type: ``pil``, ``np`` (``[B, H, W, C]``, 0 to 1), ``pt`` (``[B, C, H, W]``, 0 to
                1) or ``latent`` (``[B, C, H, W]``, as the model works on them).
            return_dict: whether an output object is returned, or a tuple.
            callback_on_step_end: called after each step with the pipeline, the index of the step,
                its timestep and the tensors asked for; the tensors that it returns replace them.
            callback_on_step_end_tensor_inputs: names of those tensors.

        Raises:
            ValueError: if the model has no such class, or an argument does not fit.
        """
        self._check(output_type, callback_on_step_end_tensor_inputs)
        self._guidance_scale = guidance_scale
        labels, shape = self._request(
            class_labels, batch_size, num_images_per_prompt, generator, latents
        )
        noise = self._noise(shape, generator, latents)
        call = Call(
            self,
            noise,
            self._denoiser(labels),
            num_inference_steps,
            generator,
            callback_on_step_end,
        )
        own = isinstance(self.scheduler, SolverScheduler)
        images = run_solver(call) if own else run_scheduler(call)
        result = self._output(images, output_type, return_dict)
        self.maybe_free_model_hooks()
        return result

    def _check(self, output_type: str, inputs: Sequence[str]) -> None:
        unknown = set(inputs) - set(self._callback_tensor_inputs)
        if unknown:
            raise ValueError(
                f"callback_on_step_end_tensor_inputs are of {self._callback_tensor_inputs}, "
                f"not {sorted(unknown)}."
            )
        channels = self.unet.model_config.image_shape[0]
        if output_type == "pil" and channels not in PICTURES:
            raise ValueError(
                f"Images of {channels} channels are no pictures; use output_type pt, np or latent."
            )

    def _request(
        self,
        asked: Any,
        batch_size: int | None,
        repeats: int,
        generator: Generators,
        latents: Tensor | None,
    ) -> tuple[Tensor | None, tuple[int, ...]]:
        """The class of each image, and the shape of all of them."""
        config = self.unet.config
        classes = config.num_class_embeds
        if asked is not None:
            indices = class_indices(asked, classes, config.class_names)
            labels = torch.tensor(indices).repeat_interleave(repeats)
            return labels, (len(labels), config.in_channels, *config.sample_size)
        if batch_size is not None:
            count = batch_size
        elif latents is not None:
            count = len(latents) // repeats
        else:
            count = max(1, len(generator) // repeats) if isinstance(generator, list) else 1
        in_turn = torch.arange(count * repeats) % classes if classes else None
        return in_turn, (count * repeats, config.in_channels, *config.sample_size)

    def _noise(
        self, shape: tuple[int, ...], generator: Generators, latents: Tensor | None
    ) -> Tensor:
        """Unit noise to begin with, float32: solvers keep their state in it."""
        device = self._execution_device
        if isinstance(generator, list) and len(generator) not in (1, shape[0]):
            raise ValueError(f"There are {len(generator)} generators for {shape[0]} images.")
        if latents is None:
            return randn_tensor(shape, generator=generator, device=device, dtype=torch.float32)
        if tuple(latents.shape) != shape:
            raise ValueError(f"latents are {tuple(latents.shape)}, but the images {shape}.")
        return latents.to(device, torch.float32)

    def _denoiser(self, labels: Tensor | None) -> Denoiser:
        """The model with these labels, guided with the weight of the moment."""
        unet = self.unet
        if labels is None:
            return lambda x, sigma: unet(x, sigma, return_dict=False)[0]
        here = labels.to(self._execution_device)
        if self._guidance_scale != 1 and not unet.model_config.network.label_dropout:
            logger.warning(
                "The model was trained without label dropout: guidance compares its answer with "
                "one that it never learned."
            )

        def conditional(x: Tensor, sigma: Tensor, conditions: Conditions) -> Tensor:
            return unet(x, sigma, conditions.labels, return_dict=False)[0]

        def guided(x: Tensor, sigma: Tensor | float) -> Tensor:
            guidance = Guidance((self._guidance_scale,))
            stages = unet.denoiser.stages
            return GuidedDenoiser(conditional, Conditions(here), guidance, stages)(x, sigma)

        return guided

    def _output(
        self, images: Tensor, output_type: str, return_dict: bool
    ) -> ImagePipelineOutput | tuple[Any]:
        if output_type != "latent" and self.unet.model_config.latents is not None:
            images = self._decoded(images)
        found = self.image_processor.postprocess(images, output_type=output_type)
        return ImagePipelineOutput(images=found) if return_dict else (found,)

    def _decoded(self, latents: Tensor) -> Tensor:
        """The images of latents, -1 to 1."""
        config = self.unet.model_config
        if self.vae is None:
            return PIXELS.encode(config.space.decode(latents))
        autoencoder = identified(self.vae, config.latents.autoencoder)
        return PIXELS.encode(AutoencoderSpace(config.latents).decode_by(autoencoder, latents))
