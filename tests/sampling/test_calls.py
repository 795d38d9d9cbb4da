"""What drawing an image costs: equal to what torch counts while it is drawn."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel  # fused kernels are not counted
from torch.utils.flop_counter import FlopCounterMode

from multistage_diffusion.errors import BadInput
from multistage_diffusion.model import Model, build_denoiser, save_model
from multistage_diffusion.sampling import SampleOptions, generate, sampling_macs
from tests.conftest import MODEL, TINY, disturb

CONFIG = replace(MODEL, classes=3, network=replace(TINY, label_dropout=0.1))
LEVELS = (40.0, 20.0, 8.0, 5.0, 1.0, 0.5, 0.25)


@pytest.fixture
def model() -> Model:
    torch.manual_seed(0)
    return Model(disturb(build_denoiser(CONFIG)).eval(), CONFIG, 0)


@pytest.fixture
def earlier(tmp_path: Path) -> Path:
    torch.manual_seed(1)
    weights = disturb(build_denoiser(CONFIG)).network.state_dict()
    save_model(tmp_path / "earlier.safetensors", weights, CONFIG, 0, {})
    return tmp_path / "earlier.safetensors"


def counted(model: Model, options: SampleOptions) -> int:
    """Multiply-accumulates of one image while it is drawn."""
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        generate(model, options, [0])
    return counter.get_total_flops() // 2


@pytest.mark.parametrize(
    "settings",
    [
        {"solver": "heun", "steps": 5},
        {"levels": LEVELS, "solver": "dpmpp-2m"},
        {"levels": LEVELS, "solver": "euler", "reuse": LEVELS[1:4]},
        {"levels": LEVELS, "solver": "euler", "guidance": (1.0, 2.0, 2.0)},
        {"levels": LEVELS, "boundary": "blend"},
    ],
    ids=["heun", "levels", "reuse", "guidance", "blend"],
)
def test_the_cost_of_an_image_is_what_is_counted(model: Model, settings: dict[str, object]) -> None:
    options = SampleOptions(**settings)  # type: ignore[arg-type]
    assert sampling_macs(model.config, options) == counted(model, options)


def test_a_weaker_model_costs_its_decoders_where_it_guides(model: Model, earlier: Path) -> None:
    plain = SampleOptions(levels=LEVELS, solver="dpmpp-2m")
    guided = replace(plain, guidance=(1.5,), guidance_range=(0.3, 10.0), weaker=earlier)
    assert sampling_macs(model.config, guided) == counted(model, guided)
    twice = replace(guided, weaker=None)
    assert counted(model, plain) < counted(model, guided) < counted(model, twice)


def test_a_weaker_model_guides_unless_its_weight_is_one(model: Model, earlier: Path) -> None:
    plain = SampleOptions(levels=LEVELS, solver="dpmpp-2m")
    same = generate(model, replace(plain, guidance=(1.0,), weaker=earlier), range(2))
    assert torch.equal(same, generate(model, plain, range(2)))
    moved = generate(model, replace(plain, guidance=(2.0,), weaker=earlier), range(2))
    assert int((moved.int() - same.int()).abs().max()) > 1


def test_a_weaker_model_needs_a_weight(earlier: Path) -> None:
    with pytest.raises(BadInput, match="--weaker needs --guidance"):
        SampleOptions(weaker=earlier)
