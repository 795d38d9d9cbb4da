"""``multistage plan``: what a network costs, against its unified twin."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import torch
import tyro

from multistage_diffusion.cli.discovery import subcommands
from multistage_diffusion.cli.terminal import print_line, print_table, print_warning
from multistage_diffusion.config import Settings, setting
from multistage_diffusion.distributed import default_device
from multistage_diffusion.errors import BadInput
from multistage_diffusion.model import MOST_CLASSES
from multistage_diffusion.planning.comparison import (
    Comparison,
    Total,
    compare,
    with_proposed_widths,
)
from multistage_diffusion.presets import ABOUT_PRESETS, PRESETS, Preset, choose_stages, preset_model
from multistage_diffusion.sampling import SOLVERS
from multistage_diffusion.stages import StagesFile
from multistage_diffusion.training.batches.sharing import expected_balance
from multistage_diffusion.training.config import DataInfo, RunConfig
from multistage_diffusion.training.precision import EMULATED, is_emulated

__all__ = ["COMMAND", "Plan"]

LEAST_RATIO = 1e-3
FIXED = tuple(name for name, entry in SOLVERS.items() if not entry.adaptive)

if TYPE_CHECKING:
    BudgetName = str
else:
    BudgetName = Literal[("training", *FIXED)]


@dataclass(frozen=True, kw_only=True)
class Plan(Settings):
    """Show what a network costs before it is trained: parameters, multiply-accumulates (MACs),
    memory and time.
    """

    stages: Path | None = None
    """Stages file from multistage cluster; without one, the preset's own boundaries."""
    shape: tuple[int, int, int] | None = setting(None, at_least=1, at_most=65_536)
    """Channels, height and width of an image; by default those of the stages file's data, or the
    preset's usual ones."""
    classes: int | None = setting(None, at_least=0, at_most=MOST_CLASSES)
    """Number of classes of a conditional model; 10 if not given."""
    steps: int = setting(18, at_least=1, at_most=1000)
    """Number of steps of each solver."""
    processes: int | None = setting(None, at_least=1, at_most=65_536)
    """Number of processes (GPUs) to train with: print the balance of their work, which is the mean
    over the maximum of their multiply-accumulates."""
    measure: bool = True
    """Measure this machine's speed for some seconds."""
    budget: str | None = None
    """Propose decoder widths for this multiple of the unified network's cost, such as 1.0x."""
    budget_for: BudgetName = "training"
    """Which cost the budget limits: that of training, or of sampling with a solver."""
    preset: Annotated[Preset, tyro.conf.OmitArgPrefixes, tyro.conf.arg(name="")]

    def run(self) -> None:
        config = self._config()
        if self.budget is not None:
            return self._propose(config, _ratio(self.budget))
        device = default_device()
        found = compare(config, self.steps, self.measure, device)
        _print_comparison(found)
        if self.processes is not None:
            costs = [cost.training_macs for cost in found.ours.costs]
            print_line(f"balance: {expected_balance(config, costs, self.processes):.2f}")
        if self.measure:
            print_line(
                f"Times are measured in {config.training.precision} on {_device_name(device)}, in "
                "short runs of one stage at a time."
            )
            if is_emulated(config.training.precision):
                print_warning(EMULATED)

    def _config(self) -> RunConfig:
        conditional = self.preset.diffusion.conditional
        classes = 10 if self.classes is None else self.classes
        shape = self.shape or _shape_of(self.stages)
        stages = choose_stages(self.preset, self.stages)
        model = preset_model(self.preset, stages, shape, classes if conditional else 0)
        data = DataInfo(path="", fingerprint="", images=0)
        return RunConfig(model=model, training=self.preset.training, data=data)

    def _propose(self, config: RunConfig, ratio: float) -> None:
        proposed = with_proposed_widths(config, ratio, self.steps, self.budget_for)
        _print_comparison(compare(proposed, self.steps, measure=False))
        widths = " ".join(map(str, proposed.model.network.decoder_widths))
        print_line(
            f"at most {ratio:g}x the unified network's cost in {self.budget_for}: "
            f"--decoder-widths {widths}"
        )


COMMAND = subcommands(
    {name: Plan(preset=preset) for name, preset in PRESETS.items()},
    ABOUT_PRESETS,
    Plan.__doc__ or "",
)


def _ratio(text: str) -> float:
    try:
        ratio = float(text.removesuffix("x"))
    except ValueError:
        ratio = 0.0
    if not LEAST_RATIO <= ratio <= 1 / LEAST_RATIO:
        raise BadInput(
            "The budget is a multiple of the unified network's cost such as 1.0x, from "
            f"{LEAST_RATIO:g} to {1 / LEAST_RATIO:,.0f}, not {text!r}."
        )
    return ratio


def _shape_of(stages: Path | None) -> tuple[int, int, int] | None:
    """The shape of the images that a stages file was made from."""
    data = StagesFile.load(stages).data if stages else None
    return data.shape if data else None


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name()
    threads = torch.get_num_threads()
    return f"{threads} {'thread' if threads == 1 else 'threads'} of this CPU"


def _print_comparison(found: Comparison) -> None:
    network = found.config.model.network
    solvers = [f"of {solver}" for solver in found.ours.kinds]
    headings = ["stage", "sigma", "parameters", "MACs forward", "of training", *solvers]
    print_table(headings, [*_stage_rows(found), _twin_row(found)])
    encoders = "/".join(map(str, network.encoder_widths))
    decoders = "/".join(map(str, network.decoder_widths))
    print_line(f"widths: encoder {encoders}, decoders {decoders}")
    print_line("")
    rows = [_total_row(total) for total in found.totals()]
    print_table(["in all", "this network", "unified", "ratio"], rows)


def _stage_rows(found: Comparison) -> list[list[str]]:
    boundaries = found.config.model.boundaries
    edges = ["0", *(f"{boundary:.4g}" for boundary in boundaries), "inf"]
    rows = []
    for stage, cost in enumerate(found.ours.costs):
        evaluations = [found.ours.evaluations[solver] for solver in found.ours.kinds]
        calls = [f"{counts[stage] / sum(counts):.1%}" for counts in evaluations]
        bounds = f"{edges[stage]} .. {edges[stage + 1]}"
        share = f"{found.ours.share[stage]:.2%}"
        cells = [bounds, f"{cost.parameters:,}", _macs(cost.macs), share]
        rows.append([str(stage + 1), *cells, *calls])
    return rows


def _twin_row(found: Comparison) -> list[str]:
    cost = found.twin.costs[0]
    all_calls = ["100%"] * (1 + len(found.ours.kinds))
    return ["unified", "0 .. inf", f"{cost.parameters:,}", _macs(cost.macs), *all_calls]


def _total_row(total: Total) -> list[str]:
    show = FORMATS[total.unit]
    ratio = f"{total.ours / total.unified:.2f}"
    return [total.name, show(total.ours), show(total.unified), ratio]


def _macs(value: float) -> str:
    if value >= 1e12:
        return f"{value / 1e12:,.2f} T"
    return f"{value / 1e9:,.2f} G" if value >= 1e9 else f"{value / 1e6:,.2f} M"


def _bytes(value: float) -> str:
    return f"{value / 2**30:.2f} GiB" if value >= 2**30 else f"{value / 2**20:.1f} MiB"


def _seconds(value: float) -> str:
    if value < 1:
        return f"{value * 1e3:.3g} ms"
    return f"{value:.3g} s" if value < 60 else str(timedelta(seconds=round(value)))


FORMATS: dict[str, Callable[[float], str]] = {
    "number": lambda value: f"{value:,.0f}",
    "bytes": _bytes,
    "MACs": _macs,
    "seconds": _seconds,
}
