"""``multistage autoencoder``."""

from pathlib import Path

from tests.cli.conftest import Command, assert_refused

TINY = (
    *("--widths", 8, 8, "--blocks", 1, "--images", 16, "--batch-size", 8, "--held-out", 0.3),
    *("--record-images", 8, "--precision", "float32"),
)


def test_it_trains_one_that_encode_takes(run: Command, tmp_path: Path, folder: Path) -> None:
    out = tmp_path / "ae"
    words = ("autoencoder", "kl-f2", "--data", folder, "--out", out, *TINY)
    code, text, _ = run(*words)
    assert code == 0
    assert "reconstructions.png" in text
    assert (out / "config.json").exists()
    latents = tmp_path / "latents"
    code, text, _ = run("encode", "--data", folder, "--autoencoder", out, "--out", latents)
    assert code == 0
    assert "latents 4x4x4" in text
    evaluate = ("evaluate", out, "--data", folder, "--metric", "fd-pixels")
    code, text, _ = run(*evaluate)
    assert code == 0
    assert "psnr = " in text
    assert "reconstructed against" in text
    assert_refused(run(*words, "--kl-weight", 1), "another configuration")
    # the autoencoder is trained on: the latents are no longer its own
    assert run(*words, "--images", 24)[0] == 0
    again = run("encode", "--data", folder, "--autoencoder", out, "--out", latents)
    assert_refused(again, "another autoencoder")
    assert_refused(run("autoencoder", "kl-f2", "--data", latents, "--out", out, *TINY), "latents")


def test_a_dry_run_prints_the_configuration(run: Command, tmp_path: Path, folder: Path) -> None:
    out = tmp_path / "ae"
    code, text, _ = run("autoencoder", "vq-f4", "--data", folder, "--out", out, "--dry-run")
    assert code == 0
    assert '"codes": 8192' in text
    assert not out.exists()
