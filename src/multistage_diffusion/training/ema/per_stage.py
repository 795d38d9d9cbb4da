"""A model whose stages come from different models, such as the best checkpoint for each stage.

The noisy stages overfit first (the paper's early stopping), and no single checkpoint is the best
for all. The combined models keep their own encoders: the result is a network of separate pairs,
with the same cost for each evaluation and more parameters.
"""

from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor

from multistage_diffusion.errors import BadInput
from multistage_diffusion.model import Model, ModelConfig, build_denoiser

__all__ = ["combine_stages"]


def combine_stages(models: Sequence[Model]) -> Model:
    """A model with stage k of the k-th of some models.

    Args:
        models: one for each stage, of the same configuration; if all are the same object, it is
            returned as it is.

    Returns:
        The model. The images it has seen are those of the stage that has seen fewest.

    Raises:
        BadInput: if they differ in configuration or their number is not that of the stages.
    """
    first = models[0]
    if any(model.config != first.config for model in models):
        raise BadInput(
            "The models to combine differ in network, stages or images: give models of a run."
        )
    stages = len(first.config.boundaries) + 1
    if len(models) != stages:
        raise BadInput(f"{len(models)} models for {stages} stages: give one for each.")
    if all(model is first for model in models):
        return first
    config = _separate(first.config)
    denoiser = build_denoiser(config)
    weights: dict[str, Tensor] = {}
    for stage, model in enumerate(models):
        weights |= _stage_weights(model, stage)
    denoiser.network.load_state_dict(weights)
    images = min(model.images for model in models)
    return replace(first, denoiser=denoiser.eval(), config=config, images=images)


def _separate(config: ModelConfig) -> ModelConfig:
    """The configuration with an encoder and a decoder for each stage."""
    network = config.network

    def each(widths: tuple[int, ...]) -> tuple[int, ...]:
        return widths * (network.stages if len(widths) == 1 else 1)

    separate = replace(
        network,
        encoder_widths=each(network.encoder_widths),
        decoder_widths=each(network.decoder_widths),
    )
    return replace(config, network=separate)


def _stage_weights(model: Model, stage: int) -> dict[str, Tensor]:
    """The weights of a stage's encoder and decoder, with the names that they get."""
    network = model.config.network
    encoder = stage if len(network.encoder_widths) > 1 else 0
    decoder = stage if len(network.decoder_widths) > 1 else 0
    names = {
        f"encoders.{encoder}.": f"encoders.{stage}.",
        f"decoders.{decoder}.": f"decoders.{stage}.",
    }
    return {
        new + name.removeprefix(old): tensor
        for old, new in names.items()
        for name, tensor in model.denoiser.network.state_dict().items()
        if name.startswith(old)
    }
