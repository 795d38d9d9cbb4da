from pathlib import Path

import pytest
import torch

from multistage_diffusion.conditions import Conditions
from multistage_diffusion.model import Model, build_denoiser
from tests.conftest import disturb

diffusers = pytest.importorskip("diffusers")

from multistage_diffusion.interop.pipeline import MultistageUNet  # noqa: E402
from tests.interop.pipeline.test_pipeline import GUIDABLE  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@pytest.fixture
def unet() -> MultistageUNet:
    denoiser = build_denoiser(GUIDABLE).eval()
    disturb(denoiser)
    return MultistageUNet.of(Model(denoiser, GUIDABLE, 0))


X = torch.linspace(-2, 2, 4 * 3 * 64).view(4, 3, 8, 8)
SIGMA = torch.tensor([0.1, 0.3, 2.5, 40.0], dtype=torch.float64)
LABELS = torch.tensor([0, 1, 2, -1])


def test_it_is_the_denoiser_with_each_sample_in_its_own_stage(unet: MultistageUNet) -> None:
    expected = unet.denoiser(X, SIGMA, Conditions(LABELS))
    assert torch.equal(unet(X, SIGMA, LABELS).sample, expected)
    (output,) = unet(X, SIGMA, LABELS, return_dict=False)
    assert torch.equal(output, expected)
    alone = unet(X[1:2], 0.3, LABELS[1:2]).sample
    torch.testing.assert_close(alone, expected[1:2])


@pytest.mark.parametrize("size", ["10GB", "20KB"])
def test_saved_whole_or_in_shards_it_is_the_same(
    unet: MultistageUNet, size: str, tmp_path: Path
) -> None:
    unet.save_pretrained(tmp_path, max_shard_size=size)
    loaded = MultistageUNet.from_pretrained(tmp_path)
    torch.testing.assert_close(loaded(X, SIGMA, LABELS).sample, unet(X, SIGMA, LABELS).sample)
    assert loaded.model_config == GUIDABLE


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float16, 0.02), (torch.bfloat16, 0.1)])
def test_it_moves_to_half_precision(
    unet: MultistageUNet, dtype: torch.dtype, tolerance: float, tmp_path: Path
) -> None:
    """Also a state of large noise, whose values have no place in float16."""
    x = X * torch.tensor([1.0, 1.0, 1.0, 1e5])[:, None, None, None]
    expected = unet(x, SIGMA, LABELS).sample
    half = unet.to(dtype)
    assert half.dtype == dtype
    output = half(x, SIGMA, LABELS).sample
    assert output.dtype == torch.float32
    torch.testing.assert_close(output, expected, rtol=tolerance, atol=tolerance)
    half.save_pretrained(tmp_path)
    loaded = MultistageUNet.from_pretrained(tmp_path, torch_dtype=dtype)
    assert all(map(torch.equal, loaded.state_dict().values(), half.state_dict().values()))


def test_it_trains(unet: MultistageUNet) -> None:
    unet.train()
    unet(X, SIGMA, LABELS).sample.square().mean().backward()
    assert all(parameter.grad is not None for parameter in unet.parameters())


def test_gradient_checkpointing_is_refused(unet: MultistageUNet) -> None:
    with pytest.raises(ValueError, match="does not support gradient checkpointing"):
        unet.enable_gradient_checkpointing()
