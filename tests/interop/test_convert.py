"""The authors' files in the formats of their programs, read and converted by the command."""

import json
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from multistage_diffusion.cli import main
from multistage_diffusion.interop import release_model
from multistage_diffusion.model import load_model
from multistage_diffusion.presets import PRESETS, Preset
from multistage_diffusion.presets.preset import DiffusionConfig
from multistage_diffusion.schedule import SCHEDULES
from tests.golden.files import FOLDER, assert_close, column, group, read_all
from tests.interop.releases.test_pickles import Attack, persistent, persistent_module


def tree(state: dict[str, Tensor]) -> dict[str, Any]:
    """A state dict as the nested fields of modules."""
    fields: dict[str, Any] = {"_parameters": {}, "_buffers": {}, "_modules": {}}
    children: dict[str, dict[str, Tensor]] = {}
    for name, tensor in state.items():
        head, _, rest = name.partition(".")
        if rest:
            children.setdefault(head, {})[rest] = tensor
        else:
            fields["_parameters"][head] = torch.nn.Parameter(tensor)
    fields["_modules"] = {name: module(child) for name, child in children.items()}
    return fields


def module(state: dict[str, Tensor]) -> Attack:
    return persistent("raise SystemExit('this code must not run')", tree(state))


def edm(state: dict[str, Tensor]) -> bytes:
    return pickle.dumps({"ema": module(state), "loss_fn": None, "dataset_kwargs": {}})


def saved(content: object) -> bytes:
    from io import BytesIO

    file = BytesIO()
    torch.save(content, file)
    return file.getvalue()


def score_sde(state: dict[str, Tensor]) -> bytes:
    """The weights in training are others; the averaged ones count."""
    model = {
        f"module.{name}": tensor if name == "sigmas" else tensor + 1
        for name, tensor in state.items()
    }
    shadow = [tensor for name, tensor in state.items() if name != "sigmas"]
    return saved(
        {
            "model": model,
            "ema": {"decay": 0.9999, "num_updates": 1, "shadow_params": shadow},
            "step": 3,
            "optimizer": {},
        }
    )


def latent_diffusion(state: dict[str, Tensor]) -> bytes:
    prefix = "model.diffusion_model."
    weights = {f"{prefix}{name}": tensor + 1 for name, tensor in state.items()}
    averaged = {
        f"model_ema.diffusion_model{name.replace('.', '')}": tensor
        for name, tensor in state.items()
    }
    return saved(
        {
            "state_dict": {**weights, **averaged, "first_stage_model.x": torch.ones(1)},
            "global_step": 3,
        }
    )


WRITERS: dict[str, Callable[[dict[str, Tensor]], bytes]] = {
    "edm": edm,
    "dpm": score_sde,
    "ldm": latent_diffusion,
}


@pytest.mark.parametrize("base", WRITERS)
def test_a_checkpoint_of_the_release_is_converted(
    base: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = FOLDER / f"{base}_tiny.safetensors"
    if not file.exists():
        pytest.skip(f"{file} is not there; set GOLDEN_DIR")
    with safe_open(file, "pt") as golden:
        config = release_model(json.loads(golden.metadata()["config"]))
    tensors = read_all(file)
    persistent_module(monkeypatch)
    preset = Preset(
        diffusion=DiffusionConfig(
            schedule=config.schedule,
            preconditioning=config.preconditioning,
            sigma_data=config.sigma_data,
            boundaries=config.boundaries,
        ),
        shape=config.shape,
        network=config.network,
        training=PRESETS["small"].training,
    )
    monkeypatch.setitem(PRESETS, "tiny", preset)
    (tmp_path / "checkpoint").write_bytes(WRITERS[base](group(tensors, "state")))
    out = tmp_path / "model.safetensors"
    arguments = ["convert", str(tmp_path / "checkpoint"), "--out", str(out)]
    assert main([*arguments, "--preset", "small"]) == 2
    assert "another network" in capsys.readouterr().err
    assert main([*arguments, "--preset", "tiny"]) == 0
    denoiser = load_model(out).denoiser
    case = group(tensors, "case3")
    with torch.no_grad():
        if base == "edm":
            assert_close(denoiser(case["x"], case["sigma"].double()), case["denoised"])
        else:
            sigma = SCHEDULES[config.schedule].from_clock(case["t"].double())
            x = case["x"].double() * column((1 + sigma**2).sqrt())
            assert_close((x - denoiser(x, sigma)) / column(sigma), case["eps"])
    assert main([*arguments, "--preset", "tiny"]) == 2
    assert "exists" in capsys.readouterr().err


SHORT = "--images 16 --batch-size 8 --record-images 8 --blocks 1 --encoder-widths 8"


@pytest.mark.slow
def test_a_unified_run_becomes_the_beginning_of_a_multi_stage_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train = ["train", "digits", "--data", "digits", *SHORT.split()]
    unified = tmp_path / "unified"
    assert main([*train, "--out", str(unified), "--decoder-widths", "8"]) == 0
    stages = tmp_path / "stages.json"
    stages.write_text(json.dumps({"boundaries": [0.3, 2.5]}))
    warm = tmp_path / "warm.safetensors"
    arguments = ["convert", str(unified), "--out", str(warm), "--decoder-widths", "12", "8", "4"]
    assert main(arguments) == 2
    assert "--stages" in capsys.readouterr().err
    assert main([*arguments, "--stages", str(stages)]) == 0
    assert "decoders 12/8/4" in capsys.readouterr().out
    run = [*train, "--out", str(tmp_path / "run"), "--stages", str(stages), "--init", str(warm)]
    assert main([*run, "--decoder-widths", "12", "8", "8"]) == 2
    assert "[12, 8, 4]" in capsys.readouterr().err
    still = ["--learning-rate", "1e-12"]
    assert main([*run, "--decoder-widths", "12", "8", "4", *still]) == 0
    trained = load_model(tmp_path / "run" / "model.safetensors")
    begun = load_model(warm)
    assert trained.run["init"]
    assert replace(trained.config.network, dropout=0.0) == replace(
        begun.config.network, dropout=0.0
    )
    for name, tensor in begun.denoiser.network.state_dict().items():
        torch.testing.assert_close(
            trained.denoiser.network.state_dict()[name], tensor, rtol=0, atol=1e-6
        )


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "Which network is this a checkpoint of? no preset is given"),
        (["--preset", "huge"], "there is no preset 'huge'"),
        (["--preset", "edm-cifar10"], "is refused. It asks for builtins.print"),
    ],
)
def test_what_cannot_be_converted_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], says: str
) -> None:
    (tmp_path / "bad.pkl").write_bytes(pickle.dumps(Attack(print, "run")))
    out = tmp_path / "m.safetensors"
    assert main(["convert", str(tmp_path / "bad.pkl"), "--out", str(out), *arguments]) == 2
    printed = capsys.readouterr()
    assert says in printed.err
    assert "run" not in printed.out
    assert not out.exists()
