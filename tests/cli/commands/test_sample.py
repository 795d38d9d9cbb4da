"""``multistage sample``."""

import json
from pathlib import Path

import pytest
import torch

from multistage_diffusion import distributed
from multistage_diffusion.data import load
from multistage_diffusion.data.decoding import load_image
from multistage_diffusion.model import load_model
from multistage_diffusion.sampling import SampleOptions, generate
from tests.cli.conftest import Command, assert_refused, contents


def test_it_writes_numbered_images_and_a_grid(run: Command, trained: Path, tmp_path: Path) -> None:
    out = tmp_path / "drawn"
    assert run("sample", trained, "--steps", 3, "--images", 5, "--seed", 4, "--out", out)[0] == 0
    assert sorted(path.name for path in out.glob("*.png")) == [f"{k:06d}.png" for k in range(5)]
    assert load(out).shape == (3, 8, 8)
    assert load_image(tmp_path / "drawn.png").shape == (3, 48, 5 * 50 - 2)


def test_it_completes_and_extends_earlier_samples(
    run: Command, trained: Path, tmp_path: Path
) -> None:
    first = tmp_path / "first"
    second = tmp_path / "second"
    run("sample", trained, "--steps", 3, "--images", 6, "--out", first)
    run("sample", trained, "--steps", 3, "--images", 3, "--batch-size", 2, "--out", second)
    (second / "000001.png").unlink()
    assert run("sample", trained, "--steps", 3, "--images", 6, "--out", second)[0] == 0
    difference = load(first).pixels[:].int() - load(second).pixels[:].int()
    assert int(difference.abs().max()) <= 1
    assert (tmp_path / "second.png").exists()


def test_it_refuses_a_folder_of_other_images(
    run: Command, trained: Path, folder: Path, tmp_path: Path
) -> None:
    before = contents(folder)
    assert_refused(run("sample", trained, "--out", folder), "was not made by this command")
    assert contents(folder) == before
    out = tmp_path / "drawn"
    run("sample", trained, "--steps", 3, "--images", 2, "--out", out)
    other = run("sample", trained, "--steps", 4, "--images", 2, "--out", out)
    assert_refused(other, "other settings")


def test_a_dry_run_writes_nothing(run: Command, trained: Path) -> None:
    before = contents(trained)
    code, printed, _ = run("sample", trained, "--dry-run")
    assert code == 0
    assert json.loads(printed)["trained_images"] == 32
    assert contents(trained) == before


def test_when_refused_it_writes_nothing(run: Command, trained: Path) -> None:
    assert_refused(run("sample", trained, "--label", 0), "unconditional")
    assert_refused(run("sample", trained, "--seed", -1), "seed must be zero or positive")
    assert not (trained / "samples").exists()
    assert run("sample", trained, "--steps", 2, "--images", 1)[0] == 0


@pytest.mark.slow
def test_a_plan_says_solver_and_levels(run: Command, trained: Path, tmp_path: Path) -> None:
    plan = tmp_path / "plan.json"
    arguments = ["schedule", trained, "--budget", "5nfe", "--images", 2, "--out", plan]
    code, printed, _ = run(*arguments)
    assert code == 0
    assert "distance to the solution" in printed
    out = ["--images", 2, "--out", tmp_path / "few"]
    code, printed, _ = run("sample", trained, "--plan", plan, *out)
    assert code == 0
    calls = printed.split("by stage: ")[1].split(",")
    assert sum(map(int, calls)) <= 5
    other = tmp_path / "notes.json"
    other.write_text("{}")
    assert_refused(run(*arguments[:-1], other), "is not a plan")
    assert other.read_text() == "{}"
    refused = run("sample", trained, "--plan", plan, "--levels", 2, 1, *out)
    assert_refused(refused, "Give one of --plan, --budget and --levels")


def drawn(folder: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted(folder.iterdir())]


def test_a_quality_is_a_word_for_solver_and_levels(
    run: Command, trained: Path, tmp_path: Path
) -> None:
    best, same = tmp_path / "best", tmp_path / "same"
    assert run("sample", trained, "--quality", "best", "--images", 2, "--out", best)[0] == 0
    asked = ["--solver", "dpmpp-2m", "--steps", 48, "--images", 2, "--out", same]
    assert run("sample", trained, *asked)[0] == 0
    assert drawn(best) == drawn(same)
    refused = run("sample", trained, "--quality", "fast", "--steps", 9)
    assert_refused(refused, "--quality chooses solver and noise levels")
    refused = run("sample", trained, "--quality", "fast", "--budget", "9nfe")
    assert_refused(refused, "Give one of --quality, --plan and --budget")


@pytest.mark.slow
def test_qualities_below_the_best_are_searched_once(
    run: Command, trained: Path, tmp_path: Path
) -> None:
    fast = ["--quality", "fast", "--images", 2]
    code, printed, _ = run("sample", trained, *fast, "--out", tmp_path / "first")
    assert code == 0
    assert "distance to the solution" in printed
    assert (trained / "plans" / "dpmpp-2m-6nfe.json").exists()
    printed = run("sample", trained, *fast, "--out", tmp_path / "second")[1]
    assert "distance to the solution" not in printed
    assert drawn(tmp_path / "first") == drawn(tmp_path / "second")


def test_settings_are_for_solvers_that_take_them(run: Command, trained: Path) -> None:
    refused = run("sample", trained, "--eta", 0.5)
    assert_refused(refused, "--eta is for ddim, dpmpp-sde, dpmpp-2m-sde, not for heun")
    refused = run("sample", trained, "--solver", "ddim", "--eta", 1.5)
    assert_refused(refused, "--eta must be from 0 to 1, not 1.5")


def test_ranks_share_the_images(
    run: Command, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rank 1 of 2 draws every second one, the same as in a single process, and no grid."""
    alone, shared = tmp_path / "alone", tmp_path / "shared"
    assert run("sample", trained, "--steps", 3, "--images", 5, "--out", alone)[0] == 0
    monkeypatch.setattr(distributed, "world_size", lambda: 2)
    monkeypatch.setattr(distributed, "rank", lambda: 1)
    monkeypatch.setattr(distributed, "barrier", lambda: None)
    monkeypatch.setattr(distributed, "is_main_process", lambda: False)
    assert run("sample", trained, "--steps", 3, "--images", 5, "--out", shared)[0] == 0
    drawn = {path.name for path in shared.glob("*.png")}
    assert drawn == {"000001.png", "000003.png"}
    assert not (tmp_path / "shared.png").exists()
    for name in drawn:
        assert int((load_image(alone / name).int() - load_image(shared / name)).abs().max()) <= 1


@pytest.mark.parametrize("form", ["npz", "npy", "parquet"])
def test_all_images_as_one_file(run: Command, trained: Path, tmp_path: Path, form: str) -> None:
    out, packed = tmp_path / "drawn", tmp_path / f"drawn.{form}"
    sample = ("sample", trained, "--steps", 2, "--images", 3, "--out", out, "--pack", form)
    assert run(*sample)[0] == 0
    assert torch.equal(load(packed).pixels[:], load(out).pixels[:])
    assert run(*sample[:-4], "--images", 4, *sample[-4:])[0] == 0  # it grows with the folder
    assert len(load(packed)) == 4


def test_a_file_of_others_is_not_replaced(run: Command, trained: Path, tmp_path: Path) -> None:
    (tmp_path / "drawn.npz").write_bytes(b"mine")
    out = tmp_path / "drawn"
    refused = run("sample", trained, "--steps", 2, "--images", 3, "--out", out, "--pack", "npz")
    assert_refused(refused, "was not made by this command")
    assert (tmp_path / "drawn.npz").read_bytes() == b"mine"


def test_precision_is_that_of_each_call(trained: Path) -> None:
    model = load_model(trained / "model.safetensors")
    exact = generate(model, SampleOptions(steps=2), range(2))
    generate(model, SampleOptions(steps=2, precision="bf16"), range(2))
    assert model.denoiser.dtype == torch.bfloat16
    assert torch.equal(generate(model, SampleOptions(steps=2), range(2)), exact)
    assert model.denoiser.dtype == torch.float32
