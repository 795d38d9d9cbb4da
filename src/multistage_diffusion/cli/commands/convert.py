"""``multistage convert``: weights of other programs, and a unified network as the beginning of a multi-stage one."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import tyro

from multistage_diffusion.cli.terminal import print_line
from multistage_diffusion.errors import BadInput
from multistage_diffusion.interop import read_release, translate, warm_start
from multistage_diffusion.model import Model, build_denoiser, load_model, save_model
from multistage_diffusion.presets import PRESETS, Preset, choose_stages, preset_model
from multistage_diffusion.run import find_model
from multistage_diffusion.stages import Stages
from multistage_diffusion.training.config import DataInfo, RunConfig, provenance

__all__ = ["Convert"]


@dataclass(frozen=True, kw_only=True)
class Convert:
    """Read a checkpoint of EDM (.pkl), score_sde (.pth) or latent diffusion (.ckpt), or give a unified network several decoders.

    Nothing that a checkpoint contains is run: files that ask for more than tensors and plain containers are refused.
    """

    source: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="CHECKPOINT")]
    """A checkpoint of another program, a run of this one, or its model file."""
    out: Path
    """The model file to write, .safetensors."""
    preset: str | None = None
    """The network a foreign checkpoint is of: the name of a preset."""
    decoder_widths: tuple[int, ...] = ()
    """Make a multi-stage network of a unified one, with these decoders."""
    stages: Path | None = None
    """The stages of these decoders: a stages file. Without one, those of the preset's multi-stage twin."""

    def run(self) -> None:
        if self.out.exists():
            raise BadInput(f"{self.out} exists; choose another --out or remove it.")
        own = self.source.is_dir() or self.source.suffix == ".safetensors"
        model = (
            load_model(find_model(self.source))
            if own
            else _foreign(self.source, _preset(self.preset))
        )
        if self.decoder_widths:
            model = self._grown(model)
        save_model(
            self.out, model.denoiser.network.state_dict(), model.config, model.images, model.run
        )
        widths = "/".join(map(str, model.config.network.decoder_widths))
        count = sum(p.numel() for p in model.denoiser.parameters())
        print_line(f"wrote {self.out}: {count:,} parameters, decoders {widths}")

    def _grown(self, model: Model) -> Model:
        stages = Stages.load(self.stages) if self.stages else _stages_of(self.preset)
        denoiser, config = warm_start(model.denoiser, model.config, stages, self.decoder_widths)
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
    classes = len(label) if (label := state.get("label_emb.weight")) is not None else 0
    for name in ("model.map_label.weight", "map_label.weight"):
        classes = state[name].shape[1] if name in state else classes
    config = preset_model(preset, choose_stages(preset, None), classes=classes)
    denoiser = build_denoiser(config)
    denoiser.network.load_state_dict(translate(base, config, state))
    run = RunConfig(
        model=config, training=preset.training, data=DataInfo(path="", fingerprint="", images=0)
    )
    return Model(denoiser.eval(), config, 0, provenance(run))


COMMAND = Convert
