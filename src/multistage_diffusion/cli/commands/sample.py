"""``multistage sample``: images from a trained model."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated

import tyro

from multistage_diffusion.cli.holding import holding
from multistage_diffusion.cli.plans import with_plan
from multistage_diffusion.cli.progress import show_progress
from multistage_diffusion.cli.terminal import print_line, print_settings, print_table
from multistage_diffusion.config import Settings, setting, to_json
from multistage_diffusion.errors import BadInput
from multistage_diffusion.model import Model, load_model, named_classes
from multistage_diffusion.run import find_model, run_of
from multistage_diffusion.sampling import SampleOptions, evaluations_per_stage
from multistage_diffusion.sampling.draw import drawn_classes
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
    labels: tuple[str, ...] = ()
    """Several classes, by names or numbers, that take turns."""
    per_label: int | None = setting(None, at_least=1, at_most=10_000_000)
    """Number of images of each class that is drawn, instead of --images."""
    bands: tuple[int, ...] = ()
    """Channels that pictures of many channels show, as 3 2 1 for red, green and blue. Default: the
    first three. All channels are in 000000.npy then."""
    label_names: bool = False
    """Print the number and the name of each class, and stop."""
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
        if self.label_names:
            return _print_classes(model)
        out = self.out or run_of(self.run_folder).samples
        sampling = replace(self.sampling, turns=self.labels)
        count = self._count(model, sampling)
        if self.dry_run:
            about = {"out": str(out), "model": str(file), "trained_images": model.images}
            return print_settings({**to_json(self), **about})
        options = with_plan(sampling, model, self.run_folder, self.plan, self.budget)
        with holding(out, "sample"):
            folder = draw_samples(
                model, options, count, self.batch_size, out, _show_progress, self.bands
            )
        calls = ", ".join(map(str, evaluations_per_stage(model.config, options)))
        print_line(
            f"{count} images in {out}, a grid of them in {folder.grid}; evaluations per "
            f"image by stage: {calls}"
        )

    def _count(self, model: Model, sampling: SampleOptions) -> int:
        """How many images are drawn.

        Raises:
            BadInput: if their number for each class is given, and the model has no classes.
        """
        if self.per_label is None:
            return self.images
        classes = drawn_classes(model.config, sampling)
        if not classes or self.per_label < 1:
            raise BadInput(
                f"--per-label must be at least 1, and the model class-conditional, not "
                f"{self.per_label} and {model.config.classes} classes."
            )
        return self.per_label * len(classes)


def _print_classes(model: Model) -> None:
    if not model.config.classes:
        return print_line("the model is unconditional")
    rows = [[str(number), name] for number, name in named_classes(model.config)]
    print_table(["number", "class"], rows, texts=["class"])


COMMAND = Sample


def _show_progress(batches: Batches, total: int) -> Batches:
    return show_progress(batches, "images", total, lambda batch: len(batch[0]))
