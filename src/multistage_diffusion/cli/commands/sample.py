"""``multistage sample``: images from a trained model."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from multistage_diffusion.cli.holding import holding
from multistage_diffusion.cli.plans import with_plan
from multistage_diffusion.cli.progress import show_progress
from multistage_diffusion.cli.terminal import print_line, print_settings
from multistage_diffusion.config import Settings, setting, to_json
from multistage_diffusion.model import load_model
from multistage_diffusion.run import find_model, run_of
from multistage_diffusion.sampling import SampleOptions, evaluations_per_stage
from multistage_diffusion.sampling.folder import Batches, draw_samples

__all__ = ["COMMAND", "Sample"]


@dataclass(frozen=True, kw_only=True)
class Sample(Settings):
    """Draw images from a trained model. The same command again completes an interrupted one."""

    run_folder: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Folder of a run, or a model file."""
    out: Path | None = None
    """Folder for the images 000000.png, 000001.png, ...; a grid of the first 100 goes beside it.
    Default: RUN/samples."""
    images: int = setting(64, at_least=1, at_most=10_000_000)
    """Number of images."""
    batch_size: int = setting(64, at_least=1)
    """Images at a time; changes the memory needed, not the images."""
    sampling: Annotated[SampleOptions, tyro.conf.OmitArgPrefixes] = field(
        default_factory=SampleOptions
    )
    plan: Path | None = None
    """Solver and noise levels from multistage schedule."""
    budget: str | None = None
    """Search them for what a sample may cost, such as 20nfe, 2GMAC or 0.5s, and keep the plan in
    RUN/plans. The solver is dpmpp-2m unless another one than heun is given."""
    dry_run: bool = False
    """Print the resolved settings and stop."""

    def run(self) -> None:
        file = find_model(self.run_folder)
        model = load_model(file)
        out = self.out or run_of(self.run_folder).samples
        if self.dry_run:
            about = {"out": str(out), "model": str(file), "trained_images": model.images}
            return print_settings({**to_json(self), **about})
        options = with_plan(self.sampling, model, self.run_folder, self.plan, self.budget)
        with holding(out, "sample"):
            folder = draw_samples(model, options, self.images, self.batch_size, out, _show_progress)
        calls = ", ".join(map(str, evaluations_per_stage(model.config, options)))
        print_line(
            f"{self.images} images in {out}, a grid of them in {folder.grid}; evaluations per "
            f"image by stage: {calls}"
        )


COMMAND = Sample


def _show_progress(batches: Batches, total: int) -> Batches:
    return show_progress(batches, "images", total, lambda batch: len(batch[0]))
