"""``multistage sample``: images from a trained model."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated

import tyro
from torch import Tensor

from multistage_diffusion import distributed
from multistage_diffusion.cli.holding import holding
from multistage_diffusion.cli.plans import Quality, with_plan, with_quality
from multistage_diffusion.cli.progress import show_progress
from multistage_diffusion.cli.terminal import print_line, print_settings, print_table
from multistage_diffusion.config import Settings, setting, to_json
from multistage_diffusion.data.png import AS_PNG
from multistage_diffusion.errors import BadInput
from multistage_diffusion.model import Model, load_model, named_classes
from multistage_diffusion.run import claim, find_model, run_of
from multistage_diffusion.sampling import SampleOptions, evaluations_per_stage
from multistage_diffusion.sampling.draw import drawn_classes, labels_of
from multistage_diffusion.sampling.folder import Batches, SampleFolder, draw_samples
from multistage_diffusion.sampling.pack import PackName, pack
from multistage_diffusion.training.compilation import compile_parts

__all__ = ["COMMAND", "Sample"]


@dataclass(frozen=True, kw_only=True)
class Sample(Settings):
    """Draw images from a trained model. The same command again completes an interrupted one.

    Several processes (torchrun) share the images, which stay the same.
    """

    run_folder: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Folder of a run, or a model file."""
    out: Path | None = None
    """Folder for the images 000000.png, 000001.png, ...; a grid of the first 100 goes beside it.
    Default: RUN/samples."""
    images: int = setting(64, at_least=1, at_most=10_000_000)
    """Number of images."""
    labels: tuple[str, ...] = ()
    """Several classes, by name or number, drawn in turn."""
    per_label: int | None = setting(None, at_least=1, at_most=10_000_000)
    """Number of images to draw of each class, instead of --images."""
    bands: tuple[int, ...] = setting((), at_least=1)
    """Channels shown in PNG previews of images with many channels, such as 3 2 1 for red, green and
    blue. Default: the first three. 000000.npy holds all channels."""
    label_names: bool = False
    """Print the number and the name of each class, and stop."""
    batch_size: int = setting(64, at_least=1)
    """Number of images drawn at a time; it changes the memory needed, not the images."""
    sampling: Annotated[SampleOptions, tyro.conf.OmitArgPrefixes] = field(
        default_factory=SampleOptions
    )
    plan: Path | None = None
    """Solver and noise levels from multistage schedule."""
    budget: str | None = None
    """Search noise levels for a cost of one sample, such as 20nfe, 2GMAC or 0.5s, and keep the plan
    in RUN/plans. The solver is dpmpp-2m unless another one than heun is given."""
    quality: Quality | None = None
    """Choose solver and noise levels: fast, 6 evaluations at levels searched for the model; good,
    12 evaluations; best, 48 steps of dpmpp-2m."""
    pack: PackName | None = None
    """Also write all images as one file beside the folder: npz (arr_0 and labels arr_1, as ADM's
    and EDM's evaluations read it), npy, or parquet (Hugging Face's image feature)."""
    compile: bool = False
    """Compile encoder and decoders first: minutes at the start, faster steps."""
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
        options = self._with_levels(sampling, model)
        self._check_pack(model, out)
        if self.compile:
            compile_parts(model.denoiser.network)
        folder = self._draw(model, options, count, out)
        calls = ", ".join(map(str, evaluations_per_stage(model.config, options)))
        print_line(
            f"{count} images in {out}, a grid of them in {folder.grid}; evaluations per "
            f"image by stage: {calls}"
        )

    def _draw(self, model: Model, options: SampleOptions, count: int, out: Path) -> SampleFolder:
        """Draws the images that are missing, and packs all of them if that is asked for."""
        with distributed.process_group(distributed.float64_device()), holding(out, "sample"):
            folder = draw_samples(
                model, options, count, self.batch_size, out, _show_progress, self.bands
            )
            self._pack(folder, count, labels_of(model, options, range(count)))
        return folder

    def _with_levels(self, options: SampleOptions, model: Model) -> SampleOptions:
        """The options with the levels of a quality, a plan or a budget."""
        if self.quality is None:
            return with_plan(options, model, self.run_folder, self.plan, self.budget)
        if self.plan or self.budget:
            raise BadInput("Give one of --quality, --plan and --budget.")
        return with_quality(options, model, self.run_folder, self.quality)

    def _packed(self, out: Path) -> Path:
        return out.with_name(f"{out.name}.{self.pack}")

    def _check_pack(self, model: Model, out: Path) -> None:
        """Raises BadInput if the images cannot be one file, or another file is in its place."""
        if self.pack is None:
            return
        if model.config.image_shape[0] not in AS_PNG:
            raise BadInput("--pack is for images of 1, 3 or 4 channels; leave it out.")
        note = SampleFolder(out).note
        claim(self._packed(out), "was not made by this command", lambda _: note.exists())

    def _pack(self, folder: SampleFolder, count: int, labels: Tensor | None) -> None:
        if self.pack is None or not distributed.is_main_process():
            return
        files = [folder.image(index) for index in range(count)]
        path = self._packed(folder.path)
        pack(self.pack, files, None if labels is None else labels.tolist(), path)
        print_line(f"all of them in {path}")

    def _count(self, model: Model, sampling: SampleOptions) -> int:
        """How many images are drawn.

        Raises:
            BadInput: if --per-label is given, and the model is unconditional.
        """
        if self.per_label is None:
            return self.images
        classes = drawn_classes(model.config, sampling)
        if not classes:
            raise BadInput("--per-label needs a class-conditional model: give --images instead.")
        return self.per_label * len(classes)


def _print_classes(model: Model) -> None:
    if not model.config.classes:
        return print_line("the model is unconditional")
    rows = [[str(number), name] for number, name in named_classes(model.config)]
    print_table(["number", "class"], rows, texts=["class"])


COMMAND = Sample


def _show_progress(batches: Batches, total: int) -> Batches:
    return show_progress(batches, "images", total, lambda batch: len(batch[0]))
