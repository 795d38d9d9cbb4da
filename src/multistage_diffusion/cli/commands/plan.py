"""``multistage plan``: what a network costs in training and in sampling, against its unified twin."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal

import torch
import tyro

from multistage_diffusion.cli.discovery import subcommands
from multistage_diffusion.cli.terminal import print_line, print_table
from multistage_diffusion.config import replace_settings
from multistage_diffusion.cost import propose_widths, unified
from multistage_diffusion.errors import BadInput
from multistage_diffusion.files import read_json
from multistage_diffusion.planning.price import Price, price
from multistage_diffusion.presets import ABOUT_PRESETS, PRESETS, Preset, choose_stages, preset_model
from multistage_diffusion.training.config import DataInfo, RunConfig

__all__ = ["Plan"]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Show what a network costs before it is trained: parameters, multiply-accumulates (MACs), memory and time."""

    stages: Path | None = None
    """Stages file from multistage cluster; without one, the preset's own boundaries."""
    shape: tuple[int, int, int] | None = None
    """Channels, height and width of an image; by default those of the stages file's data, or the preset's usual ones."""
    classes: int | None = None
    """Number of classes of a conditional model; 10 if not given."""
    steps: int = 18
    """Steps of each solver."""
    measure: bool = True
    """Measure this machine's speed for some seconds."""
    budget: str | None = None
    """Propose decoder widths for this multiple of the unified network's cost, such as 1.0x."""
    budget_for: Literal["training", "heun", "ddim", "dpmpp-2m", "dpm-2m", "dpm-3s", "dpmpp-3s"] = (
        "training"
    )
    """Which cost the budget is for: training, or sampling with a solver."""
    preset: Annotated[Preset, tyro.conf.OmitArgPrefixes]

    def run(self) -> None:
        config = self._config()
        if self.budget is not None:
            return self._propose(config, _ratio(self.budget))
        device = torch.accelerator.current_accelerator() or torch.device("cpu")
        twin = _twin(config)
        _show(
            config,
            price(config, self.steps, self.measure, device),
            price(twin, self.steps, self.measure, device),
        )
        if self.measure:
            where = (
                torch.cuda.get_device_name()
                if device.type == "cuda"
                else f"{torch.get_num_threads()} threads of this processor"
            )
            print_line(
                f"Times are measured in {config.training.precision} on {where}, in short runs of one stage at a time."
            )

    def _config(self) -> RunConfig:
        classes = (
            (10 if self.classes is None else self.classes)
            if self.preset.diffusion.conditional
            else 0
        )
        shape = self.shape or _shape_of(self.stages)
        model = preset_model(self.preset, choose_stages(self.preset, self.stages), shape, classes)
        return RunConfig(
            model=model,
            training=self.preset.training,
            data=DataInfo(path="", fingerprint="", images=0),
        )

    def _propose(self, config: RunConfig, ratio: float) -> None:
        now = price(config, self.steps, measure=False)
        calls = now.share if self.budget_for == "training" else now.evaluations[self.budget_for]
        share = [count / sum(calls) for count in calls]
        widths = propose_widths(config.model, share, ratio)
        proposed = replace(
            config,
            model=replace(
                config.model, network=replace(config.model.network, decoder_widths=widths)
            ),
        )
        twin = price(_twin(config), self.steps, measure=False)
        _show(proposed, price(proposed, self.steps, measure=False), twin)
        print_line(
            f"at most {ratio:g}x the unified network's cost in {self.budget_for}: --decoder-widths {' '.join(map(str, widths))}"
        )


def _twin(config: RunConfig) -> RunConfig:
    """The unified network, which has a single stage to draw."""
    return replace(
        config,
        model=unified(config.model),
        training=replace_settings(config.training, share_boundaries=config.model.boundaries),
    )


def _ratio(text: str) -> float:
    try:
        ratio = float(text.removesuffix("x"))
    except ValueError:
        ratio = 0.0
    if not 0 < ratio < float("inf"):
        raise BadInput(
            f"The budget is a multiple of the unified network's cost such as 1.0x, not {text!r}."
        )
    return ratio


def _shape_of(stages: Path | None) -> tuple[int, int, int] | None:
    data = read_json(stages).get("data", {}) if stages else {}
    shape = data.get("shape")
    return None if shape is None else (shape[0], shape[1], shape[2])


def _show(config: RunConfig, ours: Price, twin: Price) -> None:
    network = config.model.network
    headings = [
        "stage",
        "sigma",
        "parameters",
        "MACs forward",
        "of training",
        *(f"of {solver}" for solver in ours.evaluations),
    ]
    print_table(headings, _rows(config, ours, twin))
    print_line(
        f"widths: encoder {_listed(network.encoder_widths)}, decoders {_listed(network.decoder_widths)}\n"
    )
    times = _times(config, ours, twin) if ours.speed else []
    print_table(
        ["in all", "this network", "unified", "ratio"], [*_totals(config, ours, twin), *times]
    )


def _listed(widths: tuple[int, ...]) -> str:
    return "/".join(map(str, widths))


def _rows(config: RunConfig, ours: Price, twin: Price) -> list[list[str]]:
    edges = ["0", *(f"{boundary:.4g}" for boundary in config.model.boundaries), "inf"]
    rows = []
    for stage, cost in enumerate(ours.costs):
        calls = [f"{counts[stage] / sum(counts):.1%}" for counts in ours.evaluations.values()]
        row = [
            str(stage + 1),
            f"{edges[stage]} .. {edges[stage + 1]}",
            f"{cost.parameters:,}",
            _macs(cost.macs),
        ]
        rows.append([*row, f"{ours.share[stage]:.2%}", *calls])
    one = twin.costs[0]
    return [
        *rows,
        [
            "unified",
            "0 .. inf",
            f"{one.parameters:,}",
            _macs(one.macs),
            *["100%"] * (1 + len(ours.evaluations)),
        ],
    ]


def _totals(config: RunConfig, ours: Price, twin: Price) -> list[list[str]]:
    batch, both = config.training.batch_size, (ours, twin)
    rows = [
        _compared("parameters", [price.parameters for price in both], lambda count: f"{count:,.0f}")
    ]
    for name, size in (
        ("weights", 4),
        ("gradients", 4),
        ("Adam's moments", 8),
        ("averaged weights", 4),
    ):
        rows.append(_compared(name, [size * price.parameters for price in both], _bytes))
    rows.append(
        _compared(
            f"activations, batch of {batch}", [batch * price.image_bytes for price in both], _bytes
        )
    )
    rows.append(
        _compared("MACs for a training image", [price.training_macs for price in both], _macs)
    )
    for solver, calls in ours.evaluations.items():
        name = f"MACs for a sample, {solver}, {sum(calls)} evaluations"
        rows.append(_compared(name, [price.sample_macs(solver) for price in both], _macs))
    return rows


def _times(config: RunConfig, ours: Price, twin: Price) -> list[list[str]]:
    batch, images, both = config.training.batch_size, config.training.images, (ours, twin)
    rows = [
        _compared(
            "time for a training image", [price.training_seconds(batch) for price in both], _seconds
        )
    ]
    whole = [images * price.training_seconds(batch) for price in both]
    rows.append(_compared(f"time for the run of {images:,} images", whole, _seconds))
    for solver in ours.evaluations:
        rows.append(
            _compared(
                f"time for a sample, {solver}",
                [price.sample_seconds(solver) for price in both],
                _seconds,
            )
        )
    return rows


def _compared(name: str, values: Sequence[float], show: Callable[[float], str]) -> list[str]:
    ours, twin = values
    return [name, show(ours), show(twin), f"{ours / twin:.2f}"]


def _macs(value: float) -> str:
    unit, name = next(
        ((unit, name) for unit, name in ((1e12, "T"), (1e9, "G")) if value >= unit), (1e6, "M")
    )
    return f"{value / unit:,.2f} {name}"


def _bytes(value: float) -> str:
    return f"{value / 2**30:.2f} GiB" if value >= 2**30 else f"{value / 2**20:.1f} MiB"


def _seconds(value: float) -> str:
    if value < 1:
        return f"{value * 1e3:.3g} ms"
    return f"{value:.3g} s" if value < 60 else str(timedelta(seconds=round(value)))


COMMAND = subcommands(
    {name: Plan(preset=preset) for name, preset in PRESETS.items()},
    ABOUT_PRESETS,
    Plan.__doc__ or "",
)
