"""A run and a study with everything that a report shows."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from multistage_diffusion.clustering import ClusterOptions, cluster
from multistage_diffusion.config import to_json
from multistage_diffusion.data import Images
from multistage_diffusion.data.png import grid_image, save_png
from multistage_diffusion.report import render
from multistage_diffusion.run import Run
from multistage_diffusion.schedule import VP
from multistage_diffusion.study import Arm, StudyConfig
from multistage_diffusion.training import train
from tests.conftest import run_on

NAME = 'run <b> & "quoted"'
"""Of a folder and of a class: it must be escaped."""


def point(images: int, value: float) -> dict[str, object]:
    return {
        "images": images,
        "macs": 1e9 * images,
        "seconds": 3.0 * images,
        "processor_seconds": 0.0,
        "value": value,
        "interval": None,
    }


@pytest.fixture(scope="session")
def trained_run(
    tmp_path_factory: pytest.TempPathFactory, few_digits: Images, digits: Images
) -> Path:
    """A run with stages, samples and evaluations; not to be changed."""
    torch.manual_seed(0)
    run = Run(tmp_path_factory.mktemp("report") / NAME)
    list(train(run_on(few_digits, held_out=0.2), few_digits, run.path))
    found = cluster(digits, VP(), ClusterOptions(pairs=8, levels=17))
    run.stages.write_text(json.dumps(found.to_json(digits, "vp")))
    pixels = digits.pixels[:16]
    for picture in (run.sample_grid, run.nearest_pairs):
        save_png(picture, grid_image(pixels, 4))
    data = {"path": NAME, "fingerprint": "0", "images": 100}
    result = {"metric": "fd-pixels", "value": 4.5, "interval": [4.0, 5.0], "data": data}
    run.evaluations.write_text(json.dumps([{**result, "images": 64, "samples": "samples"}]))
    return run.path


@pytest.fixture(scope="session")
def other_run(tmp_path_factory: pytest.TempPathFactory, trained_run: Path) -> Path:
    """The same with another learning rate and a better score."""
    run = Run(shutil.copytree(trained_run, tmp_path_factory.mktemp("report") / "other"))
    config = json.loads(run.config.read_text())
    config["training"]["learning_rate"] = 0.5
    run.config.write_text(json.dumps(config))
    run.evaluations.write_text(run.evaluations.read_text().replace("4.5", "3.25"))
    return run.path


@pytest.fixture(scope="session")
def pages(trained_run: Path, other_run: Path, finished_study: Path) -> dict[str, str]:
    """What is written about a run, about two, and about a study."""
    return {
        "run": render([trained_run]),
        "runs": render([trained_run, other_run]),
        "study": render([finished_study]),
    }


@pytest.fixture(scope="session")
def finished_study(tmp_path_factory: pytest.TempPathFactory, digits: Images) -> Path:
    """A study without its runs, as it may be kept."""
    folder = tmp_path_factory.mktemp("study")
    arms = {"unified": Arm(), "staged": Arm(about=NAME, train={"decoder_widths": [2, 1, 1]})}
    study = StudyConfig(
        name="tiny",
        preset="digits",
        data="digits",
        reference="unified",
        images=8,
        seeds=(0, 1),
        arms=arms,
    )
    (folder / "study.json").write_text(json.dumps(to_json(study)))
    curves = {
        "unified": {seed: {"fd-pixels": [point(4, 8.0), point(8, 4.0)]} for seed in "01"},
        "staged": {seed: {"fd-pixels": [point(4, 4.0), point(8, 2.0)]} for seed in "01"},
    }
    stored = {name: {"parameters": 5, "curves": found} for name, found in curves.items()}
    (folder / "results.json").write_text(json.dumps({"arms": stored}))
    save_png(folder / "samples" / "staged-0.png", grid_image(digits.pixels[:16], 4))
    return folder
