"""Each command on small images, as a person types it; bad input gives one line and exit code 2."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from multistage_diffusion.cli import main
from multistage_diffusion.data import ReadOptions, load
from multistage_diffusion.data.decoding import load_image
from multistage_diffusion.optimal import PairDenoiser

TINY = [
    "--encoder-widths",
    "8",
    "--decoder-widths",
    "12",
    "8",
    "4",
    "--channel-mult",
    "1",
    "2",
    "--blocks",
    "1",
]
SHORT = [
    "--images",
    "32",
    "--batch-size",
    "8",
    "--record-images",
    "8",
    "--checkpoint-images",
    "16",
    "--precision",
    "float32",
]
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Run:
    def command(*arguments: object) -> tuple[int, str, str]:
        code = main([str(argument) for argument in arguments])
        return code, *capfd.readouterr()

    return command


@pytest.fixture
def stages(tmp_path: Path) -> Path:
    path = tmp_path / "stages.json"
    path.write_text(json.dumps({"boundaries": [0.3, 2.5]}))
    return path


@pytest.fixture
def trained(run: Run, tmp_path: Path, stages: Path, folder: Path) -> Path:
    out = tmp_path / "run"
    assert (
        run("train", "small", "--data", folder, "--stages", stages, "--out", out, *TINY, *SHORT)[0]
        == 0
    )
    return out


def contents(root: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}


def assert_refused(result: tuple[int, str, str], says: str) -> None:
    code, _, err = result
    line = err.strip().splitlines()
    assert code == 2
    assert len(line) == 1, err
    assert line[0].startswith("multistage: ")
    assert says in line[0]


def test_cluster_writes_a_stages_file_and_a_table(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "found" / "stages.json"
    code, printed, _ = run(
        "cluster", "--data", "digits", "--pairs", 16, "--levels", 17, "--out", out
    )
    assert code == 0
    found = json.loads(out.read_text())
    assert found["boundaries"] == sorted(found["boundaries"])
    assert found["parameters"]["pairs"] == 16
    assert f"{found['boundaries'][0]:.4g}" in printed
    assert "share" in printed


def test_cluster_continues_from_partial_sums(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("multistage_diffusion.clustering.curves.CHUNK_PAIRS", 8)
    arguments = ["cluster", "--data", "digits", "--levels", 17, "--pairs", 40]
    assert run(*arguments, "--out", tmp_path / "whole.json")[0] == 0
    real, calls = PairDenoiser.by_level, iter(range(3))

    def interrupted(self: PairDenoiser, *tensors: torch.Tensor) -> Iterator[torch.Tensor]:
        if next(calls, None) is None:
            raise KeyboardInterrupt
        return real(self, *tensors)

    monkeypatch.setattr(PairDenoiser, "by_level", interrupted)
    assert run(*arguments, "--out", tmp_path / "s.json")[0] == 130
    monkeypatch.setattr(PairDenoiser, "by_level", real)
    assert_refused(
        run(*arguments, "--eta", 0.1, "--out", tmp_path / "s.json"),
        "partial sums of other data or settings",
    )
    code, printed, _ = run(*arguments, "--out", tmp_path / "s.json")
    assert code == 0
    assert "continuing from 24 pairs" in printed
    assert (tmp_path / "s.json").read_text() == (tmp_path / "whole.json").read_text()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "s.json",
        "s.svg",
        "whole.json",
        "whole.svg",
    ]


def test_cluster_by_the_gradients_of_a_run(
    run: Run, trained: Path, folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "g.json"
    arguments = [
        "cluster",
        "--data",
        folder,
        "--pairs",
        16,
        "--levels",
        8,
        "--method",
        "gradient",
        "--out",
        out,
    ]
    assert_refused(run(*arguments), "--checkpoint")
    code, printed, _ = run(*arguments, "--checkpoint", trained)
    assert code == 0
    found = json.loads(out.read_text())
    assert len(found["boundaries"]) == 2
    assert len(found["parameters"]["checkpoint"]) == 16
    np.testing.assert_allclose(np.diag(found["curves"]["cosines"]), 1)
    assert "cosine of the gradients" in out.with_suffix(".svg").read_text()
    assert "16 pairs" in printed


def test_plan_shows_the_price_and_keeps_a_budget(run: Run, stages: Path) -> None:
    code, printed, _ = run("plan", "digits", "--stages", stages, *TINY)
    assert code == 0
    for name in (
        "MACs for a training image",
        "activations, batch of 128",
        "time for the run of 200,000 images",
        "decoders 12/8/4",
    ):
        assert name in printed
    code, printed, _ = run("plan", "small", "--budget", "0.9x", "--budget-for", "heun")
    assert code == 0
    assert "at most 0.9x the unified network's cost in heun: --decoder-widths 32 24 24" in printed
    assert_refused(
        run("plan", "small", "--budget", "much"), "multiple of the unified network's cost"
    )
    assert_refused(run("plan", "small", "--decoder-widths", 8, 8), "3 stages")


def test_cluster_does_not_overwrite_another_file(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "stages.json"
    arguments = ["cluster", "--data", "digits", "--levels", 17, "--out", out]
    assert run(*arguments, "--pairs", 8)[0] == 0
    before = out.read_bytes()
    assert "already" in run(*arguments, "--pairs", 8)[1]
    assert_refused(run(*arguments, "--pairs", 9), "holds something else")
    assert_refused(run(*arguments[:-1], tmp_path), "holds something else")
    assert out.read_bytes() == before


def test_train_leaves_a_whole_run(trained: Path) -> None:
    names = {path.relative_to(trained).as_posix() for path in trained.rglob("*") if path.is_file()}
    assert {"config.json", "stages.json", "stats.jsonl", "model.safetensors"} <= names
    assert "checkpoints/000000000032/model.safetensors" in names
    assert len((trained / "stats.jsonl").read_text().splitlines()) == 4


def test_train_without_stages_is_unified(run: Run, tmp_path: Path, folder: Path) -> None:
    widths = ["--encoder-widths", "8", "--decoder-widths", "8", "--channel-mult", "1", "2"]
    assert (
        run("train", "small", "--data", folder, "--out", tmp_path / "run", *widths, *SHORT)[0] == 0
    )
    assert json.loads((tmp_path / "run" / "config.json").read_text())["model"]["boundaries"] == []


def test_sample_writes_numbered_images_and_a_grid(run: Run, trained: Path, tmp_path: Path) -> None:
    out = tmp_path / "drawn"
    assert run("sample", trained, "--steps", 3, "--images", 5, "--seed", 4, "--out", out)[0] == 0
    assert sorted(path.name for path in out.glob("*.png")) == [f"{k:06d}.png" for k in range(5)]
    assert load(out).shape == (3, 8, 8)
    assert load_image(tmp_path / "drawn.png").shape == (3, 48, 5 * 50 - 2)


def test_sample_completes_and_extends_what_is_there(
    run: Run, trained: Path, tmp_path: Path
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    run("sample", trained, "--steps", 3, "--images", 6, "--out", first)
    run("sample", trained, "--steps", 3, "--images", 3, "--batch-size", 2, "--out", second)
    (second / "000001.png").unlink()
    assert run("sample", trained, "--steps", 3, "--images", 6, "--out", second)[0] == 0
    one, two = (load(path).pixels[:].int() for path in (first, second))
    assert int((one - two).abs().max()) <= 1
    assert (tmp_path / "second.png").exists()


def test_sample_refuses_a_folder_of_other_images(
    run: Run, trained: Path, folder: Path, tmp_path: Path
) -> None:
    before = contents(folder)
    assert_refused(run("sample", trained, "--out", folder), "was not made by this command")
    assert contents(folder) == before
    run("sample", trained, "--steps", 3, "--images", 2, "--out", tmp_path / "drawn")
    assert_refused(
        run("sample", trained, "--steps", 4, "--images", 2, "--out", tmp_path / "drawn"),
        "other settings",
    )


def test_evaluate_a_folder_and_a_run(run: Run, trained: Path, folder: Path, tmp_path: Path) -> None:
    code, printed, _ = run("evaluate", folder, "--data", folder, "--metric", "fd-pixels")
    assert code == 0
    assert "fd-pixels = " in printed
    (itself,) = json.loads((folder / "evaluations.json").read_text())
    assert itself["value"] == pytest.approx(0, abs=1e-9)
    arguments = [
        "evaluate",
        trained,
        "--data",
        folder,
        "--metric",
        "fd-pixels",
        "--images",
        6,
        "--steps",
        3,
    ]
    assert run(*arguments)[0] == 0
    assert run(*arguments)[0] == 0
    results = json.loads((trained / "evaluations.json").read_text())
    assert len(results) == 2
    assert results[0]["value"] == pytest.approx(results[1]["value"], rel=1e-6)
    assert [set(cost) for cost in results[0]["cost"]["stages"]] == [
        {"parameters", "macs", "training_macs"}
    ] * 3
    assert sum(results[0]["cost"]["evaluations_per_stage"]) == 5


def test_report_writes_a_page_and_replaces_only_reports(
    run: Run, trained: Path, tmp_path: Path
) -> None:
    assert run("report", trained)[0] == 0
    assert run("report", trained, trained)[0] == 0
    assert (trained / "report.html").read_text().count("<h1>") == 2
    notes = tmp_path / "notes.html"
    notes.write_text("mine")
    assert_refused(run("report", trained, "--out", notes), "is no report")
    assert notes.read_text() == "mine"


def test_demo_does_the_whole_job(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "demo"
    code, printed, _ = run("demo", "--out", out, "--images", 256, "--samples", 12)
    assert code == 0
    for name in (
        "stages.json",
        "model.safetensors",
        "samples/000011.png",
        "samples.png",
        "report.html",
        "stats.jsonl",
    ):
        assert (out / name).exists(), name
    assert "copies of real digits" in printed
    before = contents(out / "samples")
    assert run("demo", "--out", out, "--images", 256, "--samples", 12)[0] == 0
    after = contents(out / "samples")
    assert {path: after[path] for path in before if path.suffix == ".png"} == {
        p: b for p, b in before.items() if p.suffix == ".png"
    }


@pytest.mark.parametrize(
    "arguments",
    [
        ["cluster", "--data", "digits"],
        ["data", "inspect", "digits"],
        ["train", "digits", "--data", "digits", "--out", "run", "--decoder-widths", "8"],
        ["evaluate", "somewhere", "--data", "digits"],
        ["report", "somewhere"],
        ["demo"],
    ],
)
def test_dry_runs_print_the_settings_and_write_nothing(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    code, printed, _ = run(*arguments, "--dry-run")
    assert code == 0
    assert json.loads(printed[: printed.rindex("\n}") + 2] if "\n}" in printed else printed)
    assert list(tmp_path.iterdir()) == []


def test_dry_run_of_sample(run: Run, trained: Path) -> None:
    before = contents(trained)
    code, printed, _ = run("sample", trained, "--dry-run")
    assert code == 0
    assert json.loads(printed)["trained_images"] == 32
    assert contents(trained) == before


def test_stages_and_decoders_must_agree(
    run: Run, tmp_path: Path, folder: Path, stages: Path
) -> None:
    out = tmp_path / "run"
    arguments = ["train", "small", "--data", folder, "--out", out]
    assert_refused(
        run(*arguments, "--decoder-widths", "8", "8"), "number of stages is 3, that of decoders 2"
    )
    assert_refused(
        run(*arguments, "--stages", stages, "--decoder-widths", "8", "8"),
        "number of stages is 3, that of decoders 2",
    )
    stages.write_text(json.dumps({"boundaries": [2.5, 0.3]}))
    assert_refused(run(*arguments, "--stages", stages), "increasing")
    assert_refused(run(*arguments, "--stages", tmp_path / "no.json"), "no.json")
    assert not out.exists()


def test_bad_data_is_refused_by_every_command(
    run: Run, trained: Path, tmp_path: Path, folder: Path
) -> None:
    (tmp_path / "empty").mkdir()
    (folder / "cat" / "zz.png").write_bytes(b"broken")
    before = contents(trained)
    for data, says in (
        (tmp_path / "none", "no folder or file"),
        (tmp_path / "empty", "no images"),
        (folder, "zz.png"),
    ):
        assert_refused(run("cluster", "--data", data, "--out", tmp_path / "s.json"), says)
        assert_refused(run("train", "small", "--data", data, "--out", trained, *TINY, *SHORT), says)
        assert_refused(run("evaluate", trained, "--data", data), says)
    assert contents(trained) == before
    assert not (tmp_path / "s.json").exists()


def test_commands_read_one_source_alike(
    run: Run, tmp_path: Path, stages: Path, folder: Path
) -> None:
    """Images of other sizes, one with alpha and twelve that are broken: the options make the same
    data of them everywhere."""
    Image.fromarray(np.zeros((20, 13, 4), dtype=np.uint8)).save(folder / "cat" / "clear.png")
    for index in range(12):
        (folder / "dog" / f"broken{index:02d}.png").write_bytes(b"broken")
    options = ["--data", folder, "--size", 8, 12, "--fit", "pad", "--skip-broken"]
    fingerprint = load(folder, ReadOptions(size=(8, 12), fit="pad", skip_broken=True)).fingerprint
    results = [
        run("cluster", *options, "--method", "snr", "--out", tmp_path / "s.json"),
        run(
            "train", "small", *options, "--stages", stages, "--out", tmp_path / "run", *TINY, *SHORT
        ),
        run(
            "evaluate",
            tmp_path / "run",
            *options,
            "--metric",
            "fd-pixels",
            "--images",
            4,
            "--steps",
            2,
        ),
    ]
    for code, _, err in results:
        assert code == 0, err
        assert "1 of 25 images had transparent parts and were laid on white" in err
        assert err.count("warning: left out") == 10
        assert "warning: and 2 more" in err
    assert json.loads((tmp_path / "s.json").read_text())["data"]["fingerprint"] == fingerprint
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["data"]["fingerprint"] == fingerprint
    assert config["model"]["shape"] == [3, 8, 12]
    (result,) = json.loads((tmp_path / "run" / "evaluations.json").read_text())
    assert result["data"]["fingerprint"] == fingerprint
    assert_refused(run("cluster", *options[:2], "--size", 0), "--size takes")


def test_evaluating_against_other_channels_or_sizes_is_refused(run: Run, trained: Path) -> None:
    assert_refused(run("evaluate", trained, "--data", "digits", "--metric", "fd-pixels"), "3x8x8")


def test_an_existing_run_with_another_configuration_is_refused(
    run: Run, trained: Path, stages: Path, folder: Path
) -> None:
    before = contents(trained)
    arguments = [
        "train",
        "small",
        "--data",
        folder,
        "--stages",
        stages,
        "--out",
        trained,
        *TINY,
        *SHORT,
    ]
    assert_refused(run(*arguments, "--seed", 5), "training.seed is 0 there, 5 here")
    stages.write_text(json.dumps({"boundaries": [0.4, 2.5]}))
    assert_refused(run(*arguments), "model.boundaries")
    assert contents(trained) == before


def test_numbers_of_images_are_checked_before_anything_is_drawn(
    run: Run, trained: Path, folder: Path
) -> None:
    arguments = ["evaluate", trained, "--data", folder, "--metric", "fd-pixels"]
    assert_refused(run(*arguments, "--images", 0), "--images must be at least 2")
    assert_refused(run(*arguments, "--real-images", 1), "--real-images must be at least 2")
    code, printed, _ = run(*arguments, "--images", 4, "--steps", 2, "--real-images", 5000)
    assert code == 0
    assert "against 12 real images" in printed


def test_a_refused_sample_leaves_nothing(run: Run, trained: Path) -> None:
    assert_refused(run("sample", trained, "--label", 0), "unconditional")
    assert_refused(run("sample", trained, "--seed", -1), "seed must not be negative")
    assert not (trained / "samples").exists()
    assert run("sample", trained, "--steps", 2, "--images", 1)[0] == 0


def test_stages_of_other_images_or_out_of_reach_are_warned_of(
    run: Run, tmp_path: Path, folder: Path, stages: Path
) -> None:
    stages.write_text(json.dumps({"boundaries": [0.3, 1e9], "data": {"fingerprint": "other"}}))
    _, _, err = run(
        "train",
        "small",
        "--data",
        folder,
        "--stages",
        stages,
        "--out",
        tmp_path / "run",
        *TINY,
        *SHORT,
    )
    assert "warning: stage 3 gets less than one in 10,000 images" in err
    assert "was made from other images" in err


def test_cluster_by_similarity_shows_its_criterion(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "stages.json"
    code, printed, _ = run(
        "cluster", "--data", "digits", "--pairs", 8, "--levels", 12, "--stages", 4, "--out", out
    )
    assert code == 0
    assert "similarity within stages by their number: 1: 0." in printed
    assert len(json.loads(out.read_text())["boundaries"]) == 3
    assert (tmp_path / "stages.svg").read_text().startswith("<svg")


def test_a_truncated_model_is_refused(run: Run, trained: Path, folder: Path) -> None:
    model = trained / "model.safetensors"
    model.write_bytes(model.read_bytes()[:1000])
    assert_refused(run("sample", trained), "model.safetensors")
    assert_refused(run("evaluate", trained, "--data", folder), "model.safetensors")


def test_what_is_not_there_is_named(run: Run, tmp_path: Path, folder: Path) -> None:
    assert_refused(run("sample", tmp_path / "none"), "holds no model")
    assert_refused(run("evaluate", tmp_path / "none", "--data", folder), "no run or folder")
    assert_refused(run("report", tmp_path / "none"), "holds no run")


def test_images_too_odd_for_the_levels_are_refused(run: Run, tmp_path: Path) -> None:
    Image.fromarray(np.eye(9, dtype=np.uint8)).save(tmp_path / "odd.png")
    arguments = ["--decoder-widths", "8", "--out", tmp_path / "run"]
    assert_refused(run("train", "small", "--data", tmp_path, *arguments), "divisible by 4")
    assert not (tmp_path / "run").exists()


def test_other_stages_beside_a_new_run_are_refused(
    run: Run, tmp_path: Path, folder: Path, stages: Path
) -> None:
    out = tmp_path / "run"
    out.mkdir()
    (out / "stages.json").write_text("mine")
    command = ["train", "small", "--data", folder, "--stages", stages, "--out", out, *TINY, *SHORT]
    assert_refused(run(*command), "holds something else")
    assert [path.name for path in out.iterdir()] == ["stages.json"]


def test_a_file_in_place_of_the_run_is_refused(run: Run, tmp_path: Path, folder: Path) -> None:
    (tmp_path / "run").write_text("mine")
    widths = ["--encoder-widths", "8", "--decoder-widths", "8", "--channel-mult", "1", "2"]
    code, _, err = run(
        "train", "small", "--data", folder, "--out", tmp_path / "run", *widths, *SHORT
    )
    assert code == 2
    assert len(err.strip().splitlines()) == 1
    assert (tmp_path / "run").read_text() == "mine"


def test_a_setting_out_of_range_is_refused(run: Run, folder: Path) -> None:
    command = ["train", "small", "--data", folder, "--out", "run"]
    assert_refused(
        run(*command, "--batch-size", "0"), "multistage: The setting batch_size must be positive"
    )
    assert_refused(run("cluster", "--data", folder, "--alpha", "2"), "alpha")
    assert_refused(run("sample", "run", "--steps", "0"), "at least 1 step")


@pytest.mark.parametrize(
    "arguments",
    [[], ["train"], ["train", "huge"], ["sample"], ["cluster", "--alpha", "x"], ["fly"]],
)
def test_unreadable_arguments_are_one_line(run: Run, arguments: list[str]) -> None:
    assert_refused(run(*arguments), "")
