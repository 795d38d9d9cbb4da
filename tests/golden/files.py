"""Golden files: outputs of the authors' code with random weights.

They are too large for the repository and are read from ``GOLDEN_DIR``, or without this variable
from ``../shared/golden`` beside the checkout. Each file holds a state dict, single evaluations and
whole trajectories of one network; its metadata gives the sizes of the network.
"""

import json
import os
from pathlib import Path

from safetensors import safe_open
from torch import Tensor

from multistage_diffusion.denoiser import NetworkDenoiser
from multistage_diffusion.interop import release_model, translate
from multistage_diffusion.model import ModelConfig, build_denoiser

BESIDE = Path(__file__).parents[2].parent / "shared" / "golden"
FOLDER = Path(os.environ.get("GOLDEN_DIR", BESIDE))
FILES = sorted(FOLDER.glob("*.safetensors"))
TOLERANCE = 1e-4  # of the largest value
Golden = tuple[NetworkDenoiser, ModelConfig, dict[str, Tensor]]


def read_golden(path: Path) -> Golden:
    """The authors' network as ours, its configuration, and all tensors of the file."""
    with safe_open(path, "pt") as file:
        sizes = json.loads(file.metadata()["config"])
    tensors = read_all(path)
    config = release_model(sizes)
    denoiser = build_denoiser(config).eval()
    state = translate(sizes["family"], config, group(tensors, "state"))
    denoiser.network.load_state_dict(state)
    return denoiser, config, tensors


def read_all(path: Path) -> dict[str, Tensor]:
    """All tensors of a safetensors file."""
    with safe_open(path, "pt") as file:
        names = list(file.keys())
        return {name: file.get_tensor(name) for name in names}


def group(tensors: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    """The tensors ``name.*``."""
    prefix = f"{name}."
    return {
        key.removeprefix(prefix): tensor
        for key, tensor in tensors.items()
        if key.startswith(prefix)
    }


def assert_close(found: Tensor, expected: Tensor, tolerance: float = TOLERANCE) -> None:
    assert found.shape == expected.shape
    assert float((found - expected).abs().max() / expected.abs().max()) < tolerance


def column(values: Tensor) -> Tensor:
    return values[:, None, None, None]
