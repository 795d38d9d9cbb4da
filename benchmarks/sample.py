"""Speed of sampling: a multi-stage model, its unified twin, and a pipeline of diffusers.

    python benchmarks/sample.py [--preset small] [--batch 32] [--steps 10] [--precision float32]
        [--decoder-widths 48 32 16]

Everything is measured in one run, on the GPU if there is one, in turns: DDIM with the same number
of steps for the preset's networks and for diffusers' DDPMPipeline with the UNet2DModel whose width
makes its multiply-accumulates closest to the unified network's. Weights are random, which changes
no time. The script prints medians as a table in Markdown; the report is ``sample.md``.
"""

import statistics
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
import tyro
from diffusers import DDIMScheduler, UNet2DModel
from machine import DEVICE, convolution_rate, device_name, peak_bytes, seconds_of
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from multistage_diffusion.cost import stage_costs, unified
from multistage_diffusion.denoiser import MEMORY_FORMAT, set_compute_dtype
from multistage_diffusion.model import ModelConfig, build_denoiser
from multistage_diffusion.presets import PRESETS, choose_stages, preset_model
from multistage_diffusion.sampling import SampleOptions, karras_grid, sampling_macs
from multistage_diffusion.sampling.solvers import SOLVERS

WIDTHS = range(8, 129, 8)


@dataclass(frozen=True)
class Settings:
    """What is measured."""

    preset: str = "small"
    batch: int = 32
    steps: int = 10
    precision: Literal["float32", "bf16"] = "float32"
    decoder_widths: tuple[int, ...] = ()
    """Of the multi-stage model, instead of the preset's."""
    repeats: int = 5
    """Rounds of which the median is taken, after one that is not counted."""

    @property
    def dtype(self) -> torch.dtype:
        """Of products and convolutions."""
        return torch.bfloat16 if self.precision == "bf16" else torch.float32


@dataclass(frozen=True)
class Candidate:
    """Something that draws a batch."""

    name: str
    macs: float
    """Of an image, all steps together."""
    draw: Callable[[], object]


def of_this_package(name: str, config: ModelConfig, settings: Settings) -> Candidate:
    """A network of this package with DDIM."""
    denoiser = set_compute_dtype(build_denoiser(config).to(DEVICE).eval(), settings.dtype)
    grid = karras_grid(settings.steps, *config.density.sampling_range)
    start = torch.randn(settings.batch, *config.shape, device=DEVICE) * grid[0]
    start = start.to(memory_format=MEMORY_FORMAT)
    options = SampleOptions(solver="ddim", steps=settings.steps)

    def draw() -> Tensor:
        with torch.inference_mode(), torch.autocast(DEVICE.type, enabled=False):
            return SOLVERS["ddim"](denoiser, start, grid)

    return Candidate(name, sampling_macs(config, options), draw)


def unet2d(config: ModelConfig, width: int) -> Any:
    """A UNet2DModel with the levels, blocks and attention of a configuration."""
    network = config.network
    sizes = [config.shape[1] >> level for level in range(len(network.channel_mult))]
    attention = [size in network.attention_resolutions for size in sizes]
    down = ["AttnDownBlock2D" if here else "DownBlock2D" for here in attention]
    up = ["AttnUpBlock2D" if here else "UpBlock2D" for here in reversed(attention)]
    return UNet2DModel(
        sample_size=config.shape[1],
        in_channels=config.shape[0],
        out_channels=config.shape[0],
        layers_per_block=network.blocks,
        block_out_channels=[width * multiple for multiple in network.channel_mult],
        down_block_types=down,
        up_block_types=up,
        norm_num_groups=8,
    )


def evaluation_macs(model: Any, shape: tuple[int, ...]) -> int:
    """Multiply-accumulates of an evaluation for one image."""
    x = torch.zeros(1, *shape, device=next(model.parameters()).device)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(x, 1)
    return counter.get_total_flops() // 2


def of_diffusers(config: ModelConfig, settings: Settings) -> Candidate:
    """The loop of DDPMPipeline with DDIM, without its conversion to pictures."""
    wanted = stage_costs(unified(config))[0].macs
    with torch.device("meta"):
        found = {w: evaluation_macs(unet2d(config, w), config.shape) for w in WIDTHS}
    width = min(found, key=lambda w: abs(found[w] - wanted))
    model = unet2d(config, width).to(DEVICE, settings.dtype).eval()
    model = model.to(memory_format=torch.channels_last)
    scheduler = DDIMScheduler()
    noise = torch.randn(settings.batch, *config.shape, device=DEVICE, dtype=settings.dtype)

    def draw() -> Tensor:
        scheduler.set_timesteps(settings.steps)
        x = noise
        with torch.no_grad():
            for t in scheduler.timesteps:
                x = scheduler.step(model(x, t).sample, t, x).prev_sample
        return x

    return Candidate(f"diffusers, width {width}", settings.steps * found[width], draw)


def main(settings: Settings) -> None:
    """Measures in turns and prints the table."""
    preset = PRESETS[settings.preset]
    widths = settings.decoder_widths or preset.network.decoder_widths
    preset = replace(preset, network=replace(preset.network, decoder_widths=widths))
    config = preset_model(preset, choose_stages(preset, None))
    candidates = [
        of_this_package("multi-stage", config, settings),
        of_this_package("unified", unified(config), settings),
        of_diffusers(config, settings),
    ]
    rounds = [[seconds_of(one.draw) for one in candidates] for _ in range(settings.repeats + 1)]
    medians = [statistics.median(times) for times in zip(*rounds[1:], strict=True)]
    peaks = [peak_bytes(one.draw) for one in candidates]
    largest = convolution_rate(settings.repeats, settings.dtype)
    print(
        f"{device_name()}; {settings.precision}, batch {settings.batch}, {settings.steps} steps; "
        f"a large convolution: {largest / 1e9:.0f} GMAC/s"
    )
    print("\n| model | MMACs an image | images/s | of a large convolution | peak MiB", end=" | ")
    print("seconds, of unified | MACs, of unified |\n|---|---|---|---|---|---|---|")
    for one, seconds, peak in zip(candidates, medians, peaks, strict=True):
        speed = settings.batch / seconds
        ratios = f"{seconds / medians[1]:.3f} | {one.macs / candidates[1].macs:.3f}"
        print(
            f"| {one.name} | {one.macs / 1e6:.0f} | {speed:.2f} | {one.macs * speed / largest:.2f} "
            f"| {peak / 2**20:.0f} | {ratios} |"
        )


if __name__ == "__main__":
    main(tyro.cli(Settings))
