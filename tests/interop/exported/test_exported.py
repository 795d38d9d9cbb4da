"""Stages as files of their own: the same function as the denoiser in onnxruntime and in torch."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from multistage_diffusion.cli import main
from multistage_diffusion.conditions import Conditions
from multistage_diffusion.data import Images
from multistage_diffusion.errors import BadInput
from multistage_diffusion.interop.exported import export_onnx, load_exported
from multistage_diffusion.interop.exported import write as writing
from multistage_diffusion.interop.exported.path import StagePath, trace
from multistage_diffusion.latents import find_autoencoder
from multistage_diffusion.model import Model, ModelConfig, build_denoiser, load_model, save_model
from multistage_diffusion.sampling import SOLVERS
from tests.conftest import MODEL, TINY, disturb
from tests.latents.models import make_vq, on_four_channels

FORMATS = ["onnx", "torch-export"]
SMALLEST = replace(
    MODEL,
    boundaries=(0.5,),
    network=replace(
        TINY, encoder_widths=(4,), decoder_widths=(4, 4), channel_mult=(1,), bottom="none"
    ),
)
CHAIN = replace(MODEL, schedule="ddpm", preconditioning="ddpm", classes=3)
TEXT = replace(TINY, decoder_widths=(8, 4), encoder_widths=(8, 8), context_channels=5)
SEPARATE = replace(
    CHAIN, boundaries=(0.5,), network=replace(TEXT, label_embedding="after", resampling="conv")
)


def saved(config: ModelConfig, folder: Path) -> Path:
    file = folder / "model.safetensors"
    save_model(file, disturb(build_denoiser(config)).network.state_dict(), config, 7, {})
    return file


def close(found: torch.Tensor, expected: torch.Tensor) -> None:
    """Equal to 1e-5 of the largest value: at large noise that of the noise."""
    scale = float(expected.abs().max())
    torch.testing.assert_close(found / scale, expected / scale, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("encoders", "decoders"),
    [((8,), (12, 8, 4)), ((8, 4, 8), (8, 8, 4)), ((8, 8, 8), (8,))],
    ids=["multistage", "separate", "one decoder"],
)
def test_the_path_of_a_stage_is_the_denoiser_there(
    encoders: tuple[int, ...], decoders: tuple[int, ...]
) -> None:
    network = replace(TINY, encoder_widths=encoders, decoder_widths=decoders)
    denoiser = disturb(build_denoiser(replace(MODEL, network=network))).eval()
    x = torch.randn(3, 1, 8, 8)
    with torch.no_grad():
        for stage, levels in enumerate([[0.01, 0.1, 0.2], [0.3, 1, 2.4], [2.5, 30, 80]]):
            sigma = torch.tensor(levels)
            found = StagePath(denoiser, stage)(x, sigma)
            torch.testing.assert_close(found, denoiser(x, sigma), rtol=0, atol=1e-6)


def test_a_traced_stage_takes_any_batch_and_size() -> None:
    denoiser = disturb(build_denoiser(SMALLEST))
    traced = trace(Model(denoiser, SMALLEST, 0), 1).module()
    with torch.no_grad():
        for shape in ((1, 1, 8, 8), (5, 1, 6, 11)):
            x, sigma = torch.randn(shape), torch.logspace(0, 2, shape[0])
            close(traced(x=x, sigma=sigma), denoiser.eval()(x, sigma))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A smallest model with its exports."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("exported")
    file = saved(SMALLEST, folder)
    for name in FORMATS:
        assert main(["export", str(file), "--to", name, str(folder / name)]) == 0
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", FORMATS)
def test_files_are_the_denoiser_for_any_batch_and_size(folder: Path, name: str) -> None:
    model, exported = load_model(folder / "model.safetensors"), load_exported(folder / name)
    for shape in ((1, 1, 8, 8), (5, 1, 6, 11)):
        x, sigma = torch.randn(shape), torch.logspace(-2, 2, shape[0])
        with torch.no_grad():
            close(exported(x, sigma), model.denoiser(x, sigma))
    grid = torch.tensor([80.0, 5.0, 1.0, 0.1, 0.0], dtype=torch.float64)
    start = 80 * torch.randn(2, 1, 8, 8)
    with torch.no_grad():
        drawn = [SOLVERS["heun"](one, start, grid) for one in (exported, model.denoiser)]
    close(drawn[0], drawn[1])


@pytest.mark.slow
def test_the_files_say_what_they_are_for_and_nothing_of_this_machine(folder: Path) -> None:
    manifest = json.loads((folder / "onnx" / "model.json").read_text())
    first, second = manifest["files"]
    assert first == {"file": "stage-1.onnx", "sigma_from": 0.0, "sigma_below": 0.5}
    assert second == {"file": "stage-2.onnx", "sigma_from": 0.5, "sigma_below": None}
    assert (manifest["inputs"], manifest["size_multiple"]) == (["x", "sigma"], 1)
    content = b"".join(file.read_bytes() for file in (folder / "onnx").iterdir())
    assert str(Path(writing.__file__).parent).encode() not in content


@pytest.mark.slow
@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("config", [CHAIN, SEPARATE], ids=["chain", "separate encoders and text"])
def test_labels_context_and_separate_encoders(
    tmp_path: Path, name: str, config: ModelConfig
) -> None:
    file = saved(config, tmp_path)
    assert main(["export", str(file), "--to", name, str(tmp_path / name)]) == 0
    model, exported = load_model(file), load_exported(tmp_path / name)
    x, sigma = torch.randn(4, 1, 16, 24), torch.tensor([0.02, 0.4, 0.6, 80.0])
    labels = torch.tensor([0, -1, 2, 1])
    channels = config.network.context_channels
    context = torch.randn(4, 3, channels) if channels else None
    with torch.no_grad():
        expected = model.denoiser(x, sigma, Conditions(labels, context=context))
    close(exported(x, sigma, labels, context), expected)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["pca-f2c4", "vq"])
def test_latents_are_decoded_by_a_file_of_their_own(
    tmp_path: Path, colours: Images, kind: str
) -> None:
    autoencoder = find_autoencoder(_vq(tmp_path) if kind == "vq" else kind, colours)
    latents = on_four_channels(autoencoder.info)
    file = saved(replace(SMALLEST, shape=(4, 4, 4), latents=latents), tmp_path)
    samples = torch.randn(3, 4, 4, 4)
    raw = samples / torch.tensor(latents.scale)[:, None, None]
    raw = raw + torch.tensor(latents.shift)[:, None, None]
    with torch.no_grad():
        expected = autoencoder.decode(raw)
    for name in FORMATS:
        assert main(["export", str(file), "--to", name, str(tmp_path / name)]) == 0
        close(_decoded(tmp_path / name, samples), expected)


def _vq(folder: Path) -> str:
    make_vq().save_pretrained(folder / "vq")
    return str(folder / "vq")


def _decoded(folder: Path, samples: torch.Tensor) -> torch.Tensor:
    entry = json.loads((folder / "model.json").read_text())["decoding"]
    assert (entry["inputs"], entry["range"]) == (["latents"], [-1, 1])
    file = folder / entry["file"]
    if file.suffix == ".pt2":
        images: torch.Tensor = torch.export.load(file).module()(latents=samples)
        return images
    onnxruntime = pytest.importorskip("onnxruntime")
    session = onnxruntime.InferenceSession(file)
    return torch.from_numpy(session.run(["images"], {"latents": samples.numpy()})[0])


def test_a_missing_package_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "find_spec", lambda name: None if name == "onnxscript" else name)
    with pytest.raises(BadInput, match=r"needs onnxscript: pip install .*\[onnx\]"):
        export_onnx(tmp_path, tmp_path / "out")


def test_folders_in_use_are_kept_and_others_not_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = saved(SMALLEST, tmp_path)
    assert main(["export", str(file), "--to", "torch-export", str(tmp_path)]) == 2
    assert "is not an empty folder" in capsys.readouterr().err
    (tmp_path / "model.json").write_text("{}")
    with pytest.raises(BadInput, match="holds no exported model"):
        load_exported(tmp_path)


@pytest.mark.slow
def test_the_snippets_of_the_documentation_run(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = Path(__file__).parents[3] / "docs" / "diffusers.md"
    text = page.read_text().split("## ONNX and torch.export")[1]
    for name in FORMATS:
        shutil.copytree(folder / name, tmp_path / "exported" / name)
    monkeypatch.chdir(tmp_path)
    names: dict[str, torch.Tensor] = {}
    for snippet in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        exec(snippet, names)  # noqa: S102
    model = load_model(folder / "model.safetensors")
    with torch.no_grad():
        close(names["clean"], model.denoiser(names["noisy"], 0.1))
    assert names["images"].shape == names["x"].shape == (4, 1, 8, 8)
    close(torch.as_tensor(names["x"]), names["images"])
