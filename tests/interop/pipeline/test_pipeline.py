from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from multistage_diffusion.errors import BadInput
from multistage_diffusion.model import Model, build_denoiser
from multistage_diffusion.sampling import SampleOptions, generate, noise
from multistage_diffusion.space import to_pixels
from tests.conftest import MODEL, TINY, disturb

diffusers = pytest.importorskip("diffusers")

from multistage_diffusion.interop.pipeline import (  # noqa: E402
    MultistagePipeline,
    MultistageUNet,
    SolverScheduler,
)

pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:__array_wrap__ must:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*algorithm_type:FutureWarning"),
]

C = 0.5
NAMES = ["ant", "bee", "cat"]
GUIDABLE = replace(
    MODEL,
    shape=(3, 8, 8),
    classes=3,
    class_names=tuple(NAMES),
    network=replace(TINY, label_dropout=0.1),
)
SHAPE = GUIDABLE.shape


@pytest.fixture(scope="module")
def model() -> Model:
    torch.manual_seed(0)
    denoiser = build_denoiser(GUIDABLE).eval()
    disturb(denoiser)
    return Model(denoiser, GUIDABLE, 0)


@pytest.fixture
def pipe(model: Model) -> MultistagePipeline:
    return quiet(MultistagePipeline(MultistageUNet.of(model), SolverScheduler("dpmpp-2m")))


def quiet(pipe: MultistagePipeline) -> MultistagePipeline:
    pipe.set_progress_bar_config(disable=True)
    return pipe


def drawn(pipe: MultistagePipeline, **arguments: Any) -> Tensor:
    settings = {"num_inference_steps": 4, "output_type": "latent", **arguments}
    images: Tensor = pipe(**settings)[0]
    return images


OPTIONS = [
    {"solver": "heun"},
    {"solver": "unipc", "boundary": "restart"},
    {"solver": "dpmpp-2m", "levels": (5.0, 2.5, 0.3, 0.1)},
    {"solver": "ddim", "grid": "log-snr", "boundary": "snap"},
]


@pytest.mark.parametrize("options", OPTIONS)
def test_it_draws_the_images_of_this_package(model: Model, options: dict[str, Any]) -> None:
    """Also where noise levels lie exactly on a boundary."""
    scheduler = SolverScheduler(**options)
    pipe = quiet(MultistagePipeline(MultistageUNet.of(model), scheduler))
    images = drawn(pipe, latents=noise(3, range(4), SHAPE))
    assert pipe.num_timesteps == 4
    expected = generate(model, SampleOptions(steps=4, seed=3, **options), range(4))
    assert torch.equal(to_pixels(images), expected)


def test_saved_and_loaded_it_draws_the_same(pipe: MultistagePipeline, tmp_path: Path) -> None:
    pipe.save_pretrained(tmp_path)
    loaded = quiet(MultistagePipeline.from_pretrained(tmp_path))
    start = noise(0, range(2), SHAPE)
    torch.testing.assert_close(drawn(loaded, latents=start), drawn(pipe, latents=start))
    assert loaded.unet.config.class_names == NAMES


def test_a_scheduler_can_be_built_from_its_configuration() -> None:
    scheduler = SolverScheduler("ddim", "log-snr", levels=(4.0, 1.0), settings={"eta": 0.5})
    again = SolverScheduler.from_config(scheduler.config)
    assert dict(again.config) == dict(scheduler.config)
    assert again.timesteps.tolist() == [4.0, 1.0]


def test_an_image_is_a_function_of_its_own_generator_and_label(pipe: MultistagePipeline) -> None:
    def sources() -> list[torch.Generator]:
        return [torch.Generator().manual_seed(seed) for seed in range(3)]

    pipe.scheduler = SolverScheduler("ddpm")
    together = drawn(pipe, class_labels=["cat", 0, "bee"], generator=sources())
    alone = drawn(pipe, class_labels="bee", generator=sources()[2])
    torch.testing.assert_close(together[2:], alone, rtol=1e-4, atol=1e-5)


def test_labels_by_name_by_number_and_in_turn(pipe: MultistagePipeline) -> None:
    start = noise(0, range(3), SHAPE)
    in_turn = drawn(pipe, latents=start)
    assert torch.equal(drawn(pipe, latents=start, class_labels=NAMES), in_turn)
    assert torch.equal(drawn(pipe, latents=start, class_labels=[[0], [1], [2]]), in_turn)
    twice = drawn(pipe, latents=start[:2], class_labels="bee", num_images_per_prompt=2)
    assert torch.equal(twice, drawn(pipe, latents=start[:2], class_labels=[1, 1]))
    for wrong in ("dog", 3, -1):
        with pytest.raises(ValueError, match="has the classes ant, bee, cat"):
            pipe(wrong)


@pytest.mark.parametrize(
    ("arguments", "count"),
    [
        ({}, 1),
        ({"batch_size": 3}, 3),
        ({"batch_size": 2, "num_images_per_prompt": 2}, 4),
        ({"class_labels": [0, 1], "num_images_per_prompt": 2}, 4),
        ({"generator": [torch.Generator() for _ in range(3)]}, 3),
        ({"generator": [torch.Generator()], "num_images_per_prompt": 2}, 2),
    ],
)
def test_the_number_of_images(
    pipe: MultistagePipeline, arguments: dict[str, Any], count: int
) -> None:
    assert len(drawn(pipe, num_inference_steps=1, **arguments)) == count


def test_kinds_of_output(pipe: MultistagePipeline) -> None:
    start = noise(0, range(2), SHAPE)
    raw = drawn(pipe, latents=start)
    unit = ((raw + 1) / 2).clamp(0, 1)
    torch.testing.assert_close(drawn(pipe, latents=start, output_type="pt"), unit)
    arrays = pipe(latents=start, num_inference_steps=4, output_type="np")[0]
    np.testing.assert_allclose(arrays, unit.permute(0, 2, 3, 1), atol=1e-6)
    (pictures,) = pipe(latents=start, num_inference_steps=4, return_dict=False)
    assert [picture.size for picture in pictures] == [(8, 8)] * 2
    bytes_ = torch.from_numpy(np.stack([np.array(picture) for picture in pictures]))
    assert torch.equal(bytes_.permute(0, 3, 1, 2), to_pixels(raw))


def test_guidance_is_that_of_this_package_and_follows_the_callback(
    pipe: MultistagePipeline, model: Model
) -> None:
    start = noise(0, range(3), SHAPE)
    guided = drawn(pipe, latents=start, guidance_scale=3.0)
    options = SampleOptions(solver="dpmpp-2m", steps=4, guidance=(3.0,))
    assert torch.equal(to_pixels(guided), generate(model, options, range(3)))

    def stop(pipe: MultistagePipeline, step: int, t: Any, tensors: dict[str, Tensor]) -> Any:
        pipe._guidance_scale = 1.0
        return tensors

    less = drawn(pipe, latents=start, guidance_scale=3.0, callback_on_step_end=stop)
    assert pipe.guidance_scale == 1.0
    assert not torch.equal(less, guided)
    assert not torch.equal(less, drawn(pipe, latents=start))


@pytest.mark.parametrize("scheduler", ["own", "DDIMScheduler"])
def test_a_callback_sees_each_step_and_replaces_its_result(
    pipe: MultistagePipeline, scheduler: str
) -> None:
    if scheduler != "own":
        pipe.scheduler = getattr(diffusers, scheduler)()
    seen = []

    def end(pipe: MultistagePipeline, step: int, t: Any, tensors: dict[str, Tensor]) -> Any:
        seen.append((step, float(t)))
        last = step == pipe.num_timesteps - 1
        return {"latents": torch.zeros_like(tensors["latents"])} if last else tensors

    assert not drawn(pipe, callback_on_step_end=end).any()
    assert [step for step, _ in seen] == [0, 1, 2, 3]
    assert [t for _, t in seen] == pipe.scheduler.timesteps.tolist()
    with pytest.raises(ValueError, match="are of"):
        pipe(callback_on_step_end_tensor_inputs=["prompt_embeds"])


class Gaussian(MultistageUNet):
    """The denoiser of data from N(0, C^2 I)."""

    def forward(self, sample: Tensor, timestep: Any, *_: Any, **__: Any) -> tuple[Tensor]:
        sigma = torch.as_tensor(timestep, dtype=torch.float64)
        return (sample * float(C**2 / (C**2 + sigma**2)),)


SCHEDULERS: list[tuple[str, dict[str, Any], float]] = [
    ("EDMEulerScheduler", {}, 0.03),
    ("EDMEulerScheduler", {"prediction_type": "v_prediction"}, 0.03),
    ("EDMDPMSolverMultistepScheduler", {}, 2e-3),
    ("UniPCMultistepScheduler", {}, 2e-3),
    ("UniPCMultistepScheduler", {"prediction_type": "v_prediction"}, 2e-3),
    ("UniPCMultistepScheduler", {"prediction_type": "sample"}, 2e-3),
    (
        "UniPCMultistepScheduler",
        {"use_flow_sigmas": True, "prediction_type": "flow_prediction"},
        2e-3,
    ),
    ("FlowMatchEulerDiscreteScheduler", {}, 0.03),
    ("FlowMatchHeunDiscreteScheduler", {}, 2e-3),
    ("DPMSolverMultistepScheduler", {}, 2e-3),
    ("DDIMScheduler", {"clip_sample": False}, 0.03),
    ("EulerDiscreteScheduler", {}, 0.03),
    ("HeunDiscreteScheduler", {}, 2e-3),
    ("KDPM2DiscreteScheduler", {}, 2e-3),
]


@pytest.mark.parametrize(("name", "settings", "tolerance"), SCHEDULERS)
def test_schedulers_of_diffusers_lead_to_the_exact_solution(
    name: str, settings: dict[str, Any], tolerance: float
) -> None:
    """Of data from N(0, C^2 I) it is C n for the noise n, up to the last level's own."""
    unet = Gaussian([8, 8], 1)
    pipe = quiet(MultistagePipeline(unet, getattr(diffusers, name)(**settings)))
    start = noise(0, range(1), (1, 8, 8))
    images = drawn(pipe, latents=start, num_inference_steps=100)
    torch.testing.assert_close(images, C * start, rtol=tolerance, atol=1e-4)


def test_what_does_not_fit_is_refused(pipe: MultistagePipeline) -> None:
    with pytest.raises(ValueError, match="latents are"):
        pipe(latents=torch.zeros(1, 1, 4, 4))
    with pytest.raises(ValueError, match="3 generators for 2 images"):
        pipe([0, 1], generator=[torch.Generator() for _ in range(3)])
    with pytest.raises(ValueError, match="neither noise levels nor alphas"):
        drawn(quiet(MultistagePipeline(pipe.unet, diffusers.IPNDMScheduler())))
    with pytest.raises(BadInput, match="eta"):
        SolverScheduler("heun", settings={"eta": 1.0})
    with pytest.raises(ValueError, match="one decoder"):
        SolverScheduler(boundary="blend")
    unconditional = MultistagePipeline(MultistageUNet([8, 8], 2), SolverScheduler())
    with pytest.raises(ValueError, match="unconditional"):
        unconditional(1, output_type="pt")
    with pytest.raises(ValueError, match="2 channels"):
        unconditional()
