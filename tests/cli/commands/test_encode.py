"""``multistage encode``, and latents in the other commands."""

import json
from pathlib import Path

import pytest

from multistage_diffusion.data import load
from tests.cli.conftest import TINY, UNIFIED, Command, assert_refused

SHORT = ("--images", 8, "--batch-size", 8, "--record-images", 8, "--precision", "float32")
PCA = ("--autoencoder", "pca-f2c4")


@pytest.mark.slow
def test_from_images_to_images_over_latents(run: Command, tmp_path: Path, folder: Path) -> None:
    latents, stages, out = (tmp_path / name for name in ("latents", "stages.json", "run"))
    code, text, _ = run("encode", "--data", folder, *PCA, "--out", latents)
    assert code == 0
    assert "as latents 4x4x4, by pca-f2c4" in text
    assert "float16" in text
    clustering = ("--pairs", 8, "--levels", 5, "--out", stages)
    assert run("cluster", "--data", latents, *clustering)[0] == 0
    found = json.loads(stages.read_text())
    assert found["data"]["deviation"] == 1.0
    network = (*TINY, *SHORT, "--attention-resolutions", 4)
    code, _, err = run(
        "train", "small", "--data", latents, "--stages", stages, "--out", out, *network
    )
    assert code == 0
    assert "other images" not in err
    model = json.loads((out / "config.json").read_text())["model"]
    assert model["boundaries"] == [boundary / 2 for boundary in found["boundaries"]]
    assert model["latents"]["deviation"] == 0.5
    assert (out / "preview.png").exists()
    assert run("sample", out, "--steps", 2, "--images", 3)[0] == 0
    assert load(out / "samples").shape == (3, 8, 8)
    metric = ("--metric", "fd-pixels", "--bootstrap", 0, "--images", 4, "--steps", 2)
    assert run("evaluate", out, "--data", folder, *metric)[0] == 0
    for data in (folder, latents):
        denoising = ("--metric", "denoising", "--images", 8)
        assert run("evaluate", out, "--data", data, *denoising)[0] == 0
    results = json.loads((out / "evaluations.json").read_text())
    losses = [result["value"] for result in results if result["metric"] == "denoising"]
    assert abs(losses[0] / losses[1] - 1) < 0.01  # latents are stored as float16
    assert run("report", out, "--out", tmp_path / "report.html")[0] == 0


def test_training_encodes_by_itself(run: Command, tmp_path: Path, folder: Path) -> None:
    network = (*UNIFIED, "--blocks", 1, *SHORT, "--attention-resolutions", 4)
    cache = ("--cache", tmp_path / "cache")
    words = ("train", "small", "--data", folder, *PCA, "--out", tmp_path / "run", *network, *cache)
    assert run(*words)[0] == 0
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*.npy")}
    assert any("mirrored" in path.name for path in before)
    assert run("sample", tmp_path / "run", "--steps", 1, "--images", 2)[0] == 0
    assert load(tmp_path / "run" / "samples").shape == (3, 8, 8)
    assert run(*words)[0] == 0  # continues with the same latents
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert_refused(run(*words, "--normalise", "raw"), "model.latents")


def test_what_does_not_fit_is_refused(run: Command, tmp_path: Path, folder: Path) -> None:
    latents = tmp_path / "latents"
    assert run("encode", "--data", folder, *PCA, "--out", latents, "--no-mirrored")[0] == 0
    train = ("train", "small", "--out", tmp_path / "run", *TINY, *SHORT)
    assert_refused(run(*train, "--data", latents), "no mirrored copies")
    assert_refused(run(*train, "--data", latents, *PCA), "latents already")
    wrong = ("--autoencoder", tmp_path / "nowhere")
    assert_refused(run(*train, "--data", folder, *wrong), "There is no autoencoder")
    assert_refused(run("encode", "--data", folder, *wrong, "--out", latents), "no autoencoder")
    other = ("--autoencoder", "pca-f2c3")
    assert_refused(run("encode", "--data", folder, *other, "--out", latents), "another autoencoder")
    assert_refused(run("encode", "--data", latents, *PCA, "--out", tmp_path / "x"), "already")
    assert not (tmp_path / "run").exists()
