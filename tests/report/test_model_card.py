import json
import re
import runpy
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from multistage_diffusion.cli import main
from multistage_diffusion.files import write_json
from multistage_diffusion.model import Model, build_denoiser, save_model
from multistage_diffusion.sampling import noise
from tests.conftest import MODEL, disturb

diffusers = pytest.importorskip("diffusers")

from multistage_diffusion.interop.pipeline import MultistagePipeline, MultistageUNet  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """The folder of a run with a model and some measurements."""
    denoiser = build_denoiser(MODEL)
    disturb(denoiser)
    folder = tmp_path / "digits"
    data = {"path": "digits", "fingerprint": "abc123", "images": 50}
    weights = denoiser.network.state_dict()
    save_model(folder / "model.safetensors", weights, MODEL, 1234, {"data": data})
    of = {"metric": "fd-pixels", "images": 64, "seeds": [0], "samples": "run"}
    of["data"] = {"path": "digits", "images": 50}
    now = {"value": 4.5, "interval": [4, 5], "trained_images": 1234}
    before = {"value": 9.5, "interval": None, "trained_images": 600}
    write_json(folder / "evaluations.json", [{**of, **now}, {**of, **before}])
    return folder


@pytest.fixture
def exported(run: Path, tmp_path: Path) -> Path:
    out = tmp_path / "pipeline"
    assert main(["export", str(run), str(out), "--to", "diffusers"]) == 0
    return out


START = noise(0, range(2), MODEL.shape)


def draw(pipe: MultistagePipeline) -> torch.Tensor:
    pipe.set_progress_bar_config(disable=True)
    images: torch.Tensor = pipe(latents=START, num_inference_steps=3, output_type="latent")[0]
    return images


def test_diffusers_alone_loads_an_exported_model(exported: Path) -> None:
    ours = draw(MultistagePipeline.from_pretrained(exported))
    theirs = diffusers.DiffusionPipeline.from_pretrained(
        exported, custom_pipeline=str(exported), trust_remote_code=True
    )
    assert torch.equal(draw(theirs), ours)


def test_the_card_says_what_was_measured_on_this_model(exported: Path) -> None:
    card = (exported / "README.md").read_text()
    assert "3 decoders" in card
    assert "1,234 images" in card
    assert "| fd-pixels | 4.5 | 4 to 5 | 64 | 0 |" in card
    assert "9.5" not in card  # of an earlier checkpoint
    assert "0.3 to 2.5" in card
    assert "—" not in card
    index = json.loads((exported / "model_index.json").read_text())
    assert index["_class_name"] == "MultistagePipeline"


def test_a_folder_in_use_is_left_alone(
    exported: Path, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.read_bytes() for path in exported.rglob("*") if path.is_file()}
    assert main(["export", str(run), str(exported), "--to", "diffusers"]) == 2
    assert "is not an empty folder" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in exported.rglob("*") if path.is_file()} == before


class Hub:
    """A stand-in for the hub: repositories are folders."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def create_repo(self, repo_id: str, **_: Any) -> Any:
        (self.root / repo_id).mkdir(parents=True, exist_ok=True)
        return type("Url", (), {"repo_id": repo_id})()

    def upload_folder(self, *, repo_id: str, folder_path: str, **_: Any) -> str:
        shutil.copytree(folder_path, self.root / repo_id, dirs_exist_ok=True)
        return repo_id

    def download(self, repo_id: str, **_: Any) -> str:
        return str(self.root / repo_id)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    hub = Hub(tmp_path / "hub")
    utils, pipelines = diffusers.utils.hub_utils, diffusers.pipelines.pipeline_utils
    patches: list[tuple[Any, str, Callable[..., Any]]] = [
        (utils, "create_repo", hub.create_repo),
        (pipelines, "create_repo", hub.create_repo),
        (utils, "upload_folder", hub.upload_folder),
        (utils, "load_or_create_model_card", lambda *_, **__: Card()),
        (pipelines, "load_or_create_model_card", lambda *_, **__: Card()),
        (diffusers.DiffusionPipeline, "download", hub.download),
    ]
    for place, name, value in patches:
        monkeypatch.setattr(place, name, value, raising=False)
    return hub


class Card:
    """A model card as huggingface_hub has them."""

    data: Any = type("Data", (), {"tags": None, "library_name": None})()

    def save(self, path: str) -> None:
        Path(path).write_text("")


def test_pushed_to_the_hub_and_loaded_from_it(exported: Path, hub: Hub) -> None:
    pipe = MultistagePipeline.from_pretrained(exported)
    pipe.push_to_hub("someone/digits")
    assert (hub.root / "someone/digits/unet/config.json").exists()
    loaded = MultistagePipeline.from_pretrained("someone/digits")
    assert torch.equal(draw(loaded), draw(pipe))


def test_names_of_classes_survive(tmp_path: Path) -> None:
    unet = MultistageUNet([8, 8], 1, 2, ["cat", "dog"])
    unet.save_pretrained(tmp_path)
    assert MultistageUNet.from_pretrained(tmp_path).config.class_names == ["cat", "dog"]
    assert Model(unet.denoiser, unet.model_config, 0).config.classes == 2


ROOT = Path(__file__).parents[2]


def test_the_snippets_of_the_documentation_run(
    exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (ROOT / "docs" / "diffusers.md").read_text().split("## From diffusers to stages")[0]
    snippets = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    (tmp_path / "pipelines").mkdir()
    exported.rename(tmp_path / "pipelines" / "mine")
    monkeypatch.chdir(tmp_path)
    exec("\n".join(snippets), {})  # noqa: S102
    assert len(snippets) >= 5


def test_the_example_draws_a_grid(exported: Path, tmp_path: Path) -> None:
    example = runpy.run_path(str(ROOT / "examples" / "diffusers_grid.py"))
    example["main"](str(exported), str(tmp_path / "grid.png"))
    with Image.open(tmp_path / "grid.png") as grid:
        assert grid.size == (64, 64)
