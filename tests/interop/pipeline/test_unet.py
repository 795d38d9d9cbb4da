import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from multistage_diffusion.conditions import Conditions
from multistage_diffusion.model import Model, build_denoiser
from tests.conftest import disturb

diffusers = pytest.importorskip("diffusers")

from multistage_diffusion.interop.pipeline import MultistageUNet  # noqa: E402
from multistage_diffusion.interop.pipeline.unet import USUAL  # noqa: E402
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
UNIFIED = {"encoder_widths": [8], "decoder_widths": [8], "blocks": 1}


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


def gradients(unet: MultistageUNet) -> tuple[dict[str, Tensor], int]:
    """The gradient of each parameter, and how many bytes were kept for the backward pass."""
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    torch.manual_seed(0)  # of dropout
    unet.zero_grad()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = unet.train()(X, SIGMA, LABELS).sample.square().mean()
    loss.backward()
    found = {name: one.grad for name, one in unet.named_parameters() if one.grad is not None}
    return found, sum(kept.values())


def test_gradient_checkpointing_keeps_less_for_the_same_gradients(unet: MultistageUNet) -> None:
    expected, most = gradients(unet)
    unet.enable_gradient_checkpointing()
    found, least = gradients(unet)
    assert least < 0.7 * most
    torch.testing.assert_close(found, expected)
    unet.disable_gradient_checkpointing()
    assert gradients(unet)[1] == most


def test_an_autocast_around_it_is_that_of_the_package(unet: MultistageUNet) -> None:
    exact = unet(X, SIGMA, LABELS).sample
    with torch.autocast("cpu", torch.bfloat16):
        found = unet(X, SIGMA, LABELS).sample
    unet.denoiser.dtype = torch.bfloat16
    assert torch.equal(found, unet(X, SIGMA, LABELS).sample)
    assert not torch.equal(found, exact)


def test_weights_stored_in_another_dtype_are_those_rounded_to_it(unet: MultistageUNet) -> None:
    """All but embeddings and normalisations are stored in it; computations are in float32."""
    rounded = copy.deepcopy(unet)
    for name, module in rounded.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear) and "embedding" not in name:
            module.to(torch.float16).to(torch.float32)
    unet.enable_layerwise_casting(torch.float16, torch.float32)
    assert torch.equal(unet(X, SIGMA, LABELS).sample, rounded(X, SIGMA, LABELS).sample)
    stored = [one.dtype for one in unet.parameters() if one.ndim == 4]
    assert set(stored) == {torch.float16}


FIR = (1, 3, 3, 1)
STYLES: dict[str, dict[str, Any]] = {
    "usual": {},
    "pyramids": {
        "input_pyramid": "residual",
        "output_pyramid": "residual",
        "resample_filter": FIR,
    },
    "convolutions": {"resampling": "conv", "adaptive_scale": True},
    "padded at the end": {"resampling": "conv", "downsampling_padding": "end"},
    "random frequencies": {"embedding": "fourier"},
}


@pytest.mark.parametrize("style", STYLES)
def test_weights_that_lie_on_the_disk_come_for_the_call_of_their_layer(
    style: str, tmp_path: Path
) -> None:
    config = replace(GUIDABLE, network=replace(GUIDABLE.network, **STYLES[style]))
    unet = MultistageUNet.of(Model(disturb(build_denoiser(config).eval()), config, 0))
    unet.save_pretrained(tmp_path)
    parts = {"denoiser.network.encoders": "cpu", "denoiser.network.decoders": "disk"}
    for places in (parts, {"denoiser": "disk"}):
        away = MultistageUNet.from_pretrained(
            tmp_path, device_map=places, offload_folder=tmp_path / "away"
        )
        assert next(away.denoiser.network.decoders.parameters()).is_meta
        torch.testing.assert_close(away(X, SIGMA, LABELS).sample, unet(X, SIGMA, LABELS).sample)


def test_it_can_be_built_from_its_configuration(unet: MultistageUNet) -> None:
    again = MultistageUNet.from_config(unet.config)
    assert again.model_config == unet.model_config
    by_position = MultistageUNet([8, 8], 2, 5)
    assert MultistageUNet.from_config(by_position.config).model_config == by_position.model_config


def test_a_unified_model_is_one_graph_for_all_sizes() -> None:
    unet = MultistageUNet([8, 8], model={**USUAL, "boundaries": [], "network": UNIFIED}).eval()
    disturb(unet)
    sigma = SIGMA.float()
    with torch.no_grad():
        program = torch.export.export(unet, (X, sigma)).module()
        torch.testing.assert_close(program(X, sigma).sample, unet(X, sigma).sample)
        traced = torch.compile(unet, fullgraph=True, dynamic=True, backend="eager")
        with torch._dynamo.config.patch(error_on_recompile=True):
            for x in (torch.randn(4, 3, 8, 16), torch.randn(4, 3, 40, 32)):
                torch.testing.assert_close(traced(x, sigma).sample, unet(x, sigma).sample)
