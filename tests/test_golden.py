"""Equality with the authors' networks and samplers.

Networks need the golden files, see ``tests/golden/files.py``. Solvers are also tested without
them, on recorded outputs of the networks.
"""

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from multistage_diffusion.conditions import Conditions
from multistage_diffusion.networks.embedding import NO_LABEL
from multistage_diffusion.schedule import SCHEDULES
from tests.golden.files import (
    FILES,
    FOLDER,
    Golden,
    assert_close,
    column,
    group,
    read_all,
    read_golden,
)
from tests.golden.make import trajectory_names
from tests.golden.trajectories import FILE, Replay, solve

PARAMS = [pytest.param(file, id=file.stem) for file in FILES]
MISSING = pytest.param(
    None, id="none", marks=pytest.mark.skip(reason=f"no golden files in {FOLDER}; set GOLDEN_DIR")
)
TRAJECTORIES = (
    "heun18",
    "dpmsolver.multistep2",
    "dpmsolver.singlestep3",
    "dpmsolver++.multistep2",
    "dpmsolver++.singlestep3",
)


@pytest.fixture(scope="module", params=PARAMS or [MISSING])
def golden(request: pytest.FixtureRequest) -> Golden:
    return read_golden(request.param)


def conditions(case: dict[str, Tensor]) -> Conditions:
    """The conditions of a case, whatever their names; one-hot labels as numbers."""
    found = {}
    for name, tensor in case.items():
        if "augment" in name:
            found["augment"] = tensor
        elif "context" in name:
            found["context"] = tensor
        elif "label" in name or name == "y":
            found["labels"] = class_numbers(tensor)
    return Conditions(**found)


def class_numbers(labels: Tensor) -> Tensor:
    if labels.ndim == 1:
        return labels.long()
    return torch.where(labels.any(1), labels.argmax(1), NO_LABEL)


@torch.no_grad()
def test_single_evaluations(golden: Golden) -> None:
    denoiser, config, tensors = golden
    names = sorted({name.split(".")[0] for name in tensors if name.startswith("case")})
    assert names
    for name in names:
        case = group(tensors, name)
        if "sigma" in case:
            denoised = denoiser(case["x"], case["sigma"].double(), conditions(case))
            assert_close(denoised, case["denoised"])
        else:
            sigma = config.density.from_clock(case["t"].double())
            scale = (1 + sigma**2).sqrt()  # ours is y + sigma n, theirs has unit variance
            x = case["x"].double() * column(scale)
            denoised = denoiser(x, sigma, conditions(case))
            assert_close((x - denoised) / column(sigma), case["eps"])


@torch.no_grad()
def test_trajectories(golden: Golden) -> None:
    denoiser, config, tensors = golden
    for name in trajectory_names(tensors):
        case = group(tensors, name)
        given = conditions(case)

        def bound(x: Tensor, sigma: Tensor | float, given: Conditions = given) -> Tensor:
            return denoiser(x, sigma, given)

        assert_close(solve(name, config.density, bound, case["latents"]), case["images"])


@pytest.mark.parametrize("name", TRAJECTORIES)
def test_solvers_repeat_recorded_trajectories(name: str) -> None:
    """Each call has its recorded level and state; the end is the authors'."""
    with safe_open(FILE, "pt") as file:
        schedule = SCHEDULES[file.metadata()[name]]
    case = group(read_all(FILE), name)
    replay = Replay(case["sigma"], case["x"], case["denoised"])
    assert_close(solve(name, schedule, replay, case["latents"]), case["images"])
    assert replay.calls == len(case["sigma"])
