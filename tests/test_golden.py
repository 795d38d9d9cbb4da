"""Equality with the authors' networks and samplers: every file of the directory ``GOLDEN_DIR``.

Without the variable, ``../shared/golden`` beside the checkout. Each file holds a state dict, single
evaluations and whole trajectories; its metadata says which network it is of.
"""

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from multistage_diffusion.conditions import Conditions
from multistage_diffusion.denoiser import NetworkDenoiser
from multistage_diffusion.interop import release_model, translate
from multistage_diffusion.model import ModelConfig, build_denoiser
from multistage_diffusion.networks.embedding import NO_LABEL
from multistage_diffusion.sampling.dpm import dpm_multistep, dpm_singlestep, singlestep_orders
from multistage_diffusion.sampling.grids import karras_grid, log_snr_grid
from multistage_diffusion.sampling.ode import heun
from multistage_diffusion.schedule import SCHEDULES

FOLDER = Path(os.environ.get("GOLDEN_DIR", Path(__file__).parents[1].parent / "shared" / "golden"))
FILES = sorted(FOLDER.glob("*.safetensors"))
TOLERANCE = 1e-4
Golden = tuple[NetworkDenoiser, ModelConfig, dict[str, Tensor]]
PARAMS = [pytest.param(file, id=file.stem) for file in FILES]
MISSING = pytest.param(
    None, id="none", marks=pytest.mark.skip(reason=f"no golden files in {FOLDER}; set GOLDEN_DIR")
)


@pytest.fixture(scope="module", params=PARAMS or [MISSING])
def golden(request: pytest.FixtureRequest) -> Golden:
    with safe_open(request.param, "pt") as file:
        sizes = json.loads(file.metadata()["config"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (a handle, not a dict)
    config = release_model(sizes)
    denoiser = build_denoiser(config).eval()
    state = {
        name.removeprefix("state."): tensor
        for name, tensor in tensors.items()
        if name.startswith("state.")
    }
    denoiser.network.load_state_dict(translate(sizes["family"], config, state))
    return denoiser, config, tensors


def group(tensors: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    """The tensors ``name.*``."""
    return {
        key.removeprefix(f"{name}."): tensor
        for key, tensor in tensors.items()
        if key.startswith(f"{name}.")
    }


def conditions(case: dict[str, Tensor]) -> Conditions:
    """What a case gives beside image and level, whatever its names; one-hot labels as numbers."""
    found = {}
    for name, tensor in case.items():
        if "augment" in name:
            found["augment"] = tensor
        elif "context" in name:
            found["context"] = tensor
        elif "label" in name or name == "y":
            one_hot = tensor.ndim == 2
            found["labels"] = (
                torch.where(tensor.any(1), tensor.argmax(1), NO_LABEL) if one_hot else tensor.long()
            )
    return Conditions(**found)


def assert_close(found: Tensor, expected: Tensor) -> None:
    assert found.shape == expected.shape
    assert float((found - expected).abs().max() / expected.abs().max()) < TOLERANCE


def column(values: Tensor) -> Tensor:
    return values[:, None, None, None]


@torch.no_grad()
def test_single_evaluations(golden: Golden) -> None:
    denoiser, config, tensors = golden
    names = sorted({name.split(".")[0] for name in tensors if name.startswith("case")})
    assert names
    for name in names:
        case = group(tensors, name)
        if "sigma" in case:
            assert_close(
                denoiser(case["x"], case["sigma"].double(), conditions(case)), case["denoised"]
            )
        else:
            sigma = SCHEDULES[config.schedule].from_clock(case["t"].double())
            x = case["x"].double() * column(
                (1 + sigma**2).sqrt()
            )  # ours is y + sigma n, theirs is scaled to unit variance
            assert_close((x - denoiser(x, sigma, conditions(case))) / column(sigma), case["eps"])


@torch.no_grad()
def test_trajectories(golden: Golden) -> None:
    denoiser, config, tensors = golden
    for name in sorted({name.rsplit(".", 1)[0] for name in tensors if name.endswith(".latents")}):
        case = group(tensors, name)
        start, given = case["latents"].double(), conditions(case)

        def bound(x: Tensor, sigma: Tensor | float, given: Conditions = given) -> Tensor:
            return denoiser(x, sigma, given)

        if name == "heun18":
            assert_close(heun(bound, 80 * start, karras_grid(18, 0.002, 80)), case["images"])
            continue
        high, low = (float(SCHEDULES[config.schedule].from_clock(t)) for t in (1.0, 1e-3))
        x = start * (1 + high**2) ** 0.5
        family, kind = name.split(".")
        if kind == "singlestep3":
            orders = singlestep_orders(20)
            x = dpm_singlestep(
                bound,
                x,
                log_snr_grid(len(orders) + 1, low, high)[:-1],
                orders=orders,
                data="++" in family,
            )
        else:
            assert kind == "multistep2"
            x = dpm_multistep(bound, x, log_snr_grid(21, low, high)[:-1], data="++" in family)
        assert_close(x / (1 + low**2) ** 0.5, case["images"])
