"""``multistage convert``: weights of other programs, and warm starts of multi-stage networks."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import tyro
from torch import Tensor

from multistage_diffusion.cli.terminal import print_line, print_warning
from multistage_diffusion.config import Settings, setting
from multistage_diffusion.errors import BadInput
from multistage_diffusion.interop import read_release, release_classes, translate, warm_start
from multistage_diffusion.interop.unet2d import (
    Prediction,
    UNetFiles,
    holds_unet,
    may_be_hub_id,
    read_scheduler,
    read_unet,
    unet_config,
    unet_weights,
)
from multistage_diffusion.latents.prepared import raw_latents
from multistage_diffusion.model import Model, ModelConfig, build_denoiser, load_model, save_model
from multistage_diffusion.preconditioning import PreconditioningName
from multistage_diffusion.presets import PRESETS, Preset, choose_stages, preset_model
from multistage_diffusion.run import claim, find_model
from multistage_diffusion.schedule import DENSITIES, ScheduleName
from multistage_diffusion.stages import Stages
from multistage_diffusion.training.config import DataInfo, RunConfig, TrainingConfig, provenance

__all__ = ["Convert"]


@dataclass(frozen=True, kw_only=True)
class Convert(Settings):
    """Read a checkpoint of EDM (.pkl), score_sde (.pth) or latent diffusion (.ckpt) or a U-Net of
    diffusers, or give a unified network several decoders.

    Of diffusers, UNet2DModel and UNet2DConditionModel can be read: the folder of the model or of a
    pipeline, or the id of one on the Hugging Face hub. Nothing that a checkpoint contains is run:
    files that ask for more than tensors and plain containers are refused.
    """

    source: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="CHECKPOINT")]
    """A checkpoint of another program, a folder or hub id of diffusers, a run of this program, or
    its model file."""
    out: Path
    """The model file to write, .safetensors."""
    preset: str | None = None
    """The preset with the network of another program's checkpoint."""
    decoder_widths: tuple[int, ...] = setting((), at_least=1, at_most=65_536)
    """Make a multi-stage network from a unified one, with decoders of these widths. With --stages
    alone, all have the width of the unified one."""
    stages: Path | None = None
    """The stages file for these decoders. Default: the stages of the preset's multi-stage twin."""
    schedule: ScheduleName | None = None
    """The noise schedule of a network of diffusers that comes without a scheduler."""
    preconditioning: PreconditioningName = "ddpm"
    """What such a network predicts: the noise (ddpm) or v (ddpm-v)."""
    autoencoder: str | None = None
    """The autoencoder whose raw latents the network works on: a folder or hub id."""

    def run(self) -> None:
        claim(self.out, "would be overwritten")
        model = self._read()
        if self.autoencoder:
            config = model.config
            latents = raw_latents(self.autoencoder, config.shape, config.sigma_data)
            model = replace(model, config=replace(config, latents=latents))
        if self.decoder_widths or self.stages:
            model = self._with_decoders(model)
        weights = model.denoiser.network.state_dict()
        save_model(self.out, weights, model.config, model.images, model.run)
        widths = "/".join(map(str, model.config.network.decoder_widths))
        count = sum(p.numel() for p in model.denoiser.parameters())
        print_line(f"wrote {self.out}: {count:,} parameters, decoders {widths}")

    def _read(self) -> Model:
        name = str(self.source)
        if may_be_hub_id(name) or (self.source.is_dir() and holds_unet(self.source)):
            return self._read_unet(read_unet(name))
        if self.source.is_dir() or self.source.suffix == ".safetensors":
            return load_model(find_model(self.source))
        return _foreign(self.source, _preset(self.preset))

    def _read_unet(self, files: UNetFiles) -> Model:
        """A model from one of diffusers."""
        if self.schedule is None and files.scheduler is None:
            raise BadInput(
                "No scheduler_config.json says what the network predicts: give --schedule, one of "
                f"{', '.join(DENSITIES)}, and --preconditioning."
            )
        if files.on_latents and self.autoencoder is None:
            print_warning(
                "the network works on latents; --autoencoder names what makes images of them"
            )
        given = self.schedule and Prediction(self.schedule, (), self.preconditioning)
        config = unet_config(files.settings, given or read_scheduler(files.scheduler or {}))
        weights = unet_weights(config, files.settings, files.weights)
        return _model(config, weights, TrainingConfig())

    def _with_decoders(self, model: Model) -> Model:
        stages = Stages.load(self.stages) if self.stages else _stages_of(self.preset)
        widths = self.decoder_widths or model.config.network.decoder_widths * len(stages)
        denoiser, config = warm_start(model.denoiser, model.config, stages, widths)
        return replace(model, denoiser=denoiser, config=config)


def _preset(name: str | None) -> Preset:
    if name not in PRESETS:
        given = "no preset is given" if name is None else f"there is no preset {name!r}"
        raise BadInput(
            f"Which network is this a checkpoint of? {given}; --preset takes {', '.join(PRESETS)}."
        )
    return PRESETS[name]


def _stages_of(name: str | None) -> Stages:
    """The stages of a preset, or of its multi-stage twin."""
    preset = PRESETS.get((name or "").removesuffix("-unified"))
    if preset is None or not preset.diffusion.boundaries:
        raise BadInput(
            "Which stages are the decoders for? Give --stages, a file from multistage cluster."
        )
    return Stages(preset.diffusion.boundaries)


def _foreign(source: Path, preset: Preset) -> Model:
    """A model from a checkpoint of another program."""
    base, state = read_release(source)
    stages = choose_stages(preset, None)
    config = preset_model(preset, stages, classes=release_classes(state))
    return _model(config, translate(base, config, state), preset.training)


def _model(config: ModelConfig, weights: Mapping[str, Tensor], training: TrainingConfig) -> Model:
    """A model with the weights of another program, of which no data are known."""
    denoiser = build_denoiser(config)
    denoiser.network.load_state_dict(weights)
    unknown = DataInfo(path="", fingerprint="", images=0)
    run = RunConfig(model=config, training=training, data=unknown)
    return Model(denoiser.eval(), config, 0, provenance(run))


COMMAND = Convert
