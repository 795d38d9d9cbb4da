"""A model as a folder for diffusers and the hub: a pipeline with a model card."""

import shutil
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import jinja2

from multistage_diffusion.cost import stage_costs, total_parameters
from multistage_diffusion.errors import BadInput
from multistage_diffusion.evaluation.samples import results_of_run
from multistage_diffusion.files import folder_atomically
from multistage_diffusion.model import Model, load_model
from multistage_diffusion.report.section import stages_svg
from multistage_diffusion.run import Run, claim, find_model, run_of

__all__ = ["export_pipeline", "model_card"]

CARD, STAGES, SAMPLES = "README.md", "stages.svg", "samples.png"


def export_pipeline(target: Path, out: Path) -> None:
    """Writes a pipeline of diffusers, with a model card made from the run.

    Args:
        target: a run or a model file.
        out: a new folder.

    Raises:
        BadInput: if there is no model, the folder is in use, or diffusers is missing.
    """
    if find_spec("diffusers") is None:
        raise BadInput("A pipeline needs diffusers: pip install 'multistage-diffusion[diffusers]'.")
    from multistage_diffusion.interop.pipeline.export import write_pipeline

    claim(out, "is not an empty folder", folder=True)
    file = find_model(target)
    model = load_model(file)
    with folder_atomically(out) as folder:
        write_pipeline(model, folder)
        _add_figures(run_of(target), folder)
        folder.joinpath(CARD).write_text(model_card(model, run_of(target), folder, out.name))


def model_card(model: Model, run: Run, folder: Path, name: str) -> str:
    """The card as Markdown.

    Args:
        model: the model.
        run: where it lies; its measurements are listed if there are any.
        folder: where the card will lie; it shows the figures that are there.
        name: of the model.
    """
    environment = jinja2.Environment(  # noqa: S701, Markdown and not HTML
        trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    text = files("multistage_diffusion.report").joinpath("model_card.md").read_text("utf-8")
    return environment.from_string(text).render(
        name=name,
        config=model.config,
        images=model.images,
        data=model.run.get("data", {}),
        rows=list(zip(_ranges(model), stage_costs(model.config), strict=True)),
        parameters=total_parameters(model.config),
        figures=[file for file in (SAMPLES, STAGES) if folder.joinpath(file).exists()],
        results=_of_model(results_of_run(run), model.images),
    )


def _add_figures(run: Run, folder: Path) -> None:
    if figure := stages_svg(run):
        folder.joinpath(STAGES).write_text(figure)
    if run.sample_grid.exists():
        shutil.copyfile(run.sample_grid, folder / SAMPLES)


def _ranges(model: Model) -> list[tuple[float, float]]:
    stages = model.denoiser.stages
    return [stages.bounds(stage) for stage in range(len(stages))]


def _of_model(results: list[dict[str, Any]], images: int) -> list[dict[str, Any]]:
    """The measurements of the model after this number of images."""
    return [result for result in results if result.get("trained_images", images) == images]
