import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from torch import Tensor

from multistage_diffusion.config import replace_settings
from multistage_diffusion.data import Images
from multistage_diffusion.errors import BadInput
from multistage_diffusion.latents import decode, encode, find_autoencoder
from multistage_diffusion.latents.quality import image_psnr
from multistage_diffusion.tensorfile import read_tensors
from multistage_diffusion.training.autoencoder import (
    AutoencoderPreset,
    AutoencoderRun,
    NetworkSettings,
    train_autoencoder,
)
from multistage_diffusion.training.autoencoder.network import build_network, reconstruct

TINY = NetworkSettings(widths=(8, 8), blocks=1, latent_channels=4, codes=16)
PRESET = replace_settings(
    AutoencoderPreset(network=TINY),
    images=96,
    batch_size=8,
    learning_rate=3e-3,
    warmup_images=8,
    ema_half_life=100,
    precision="float32",
    held_out=0.2,
    record_images=48,
    checkpoint_images=48,
)


def run_of(images: Images, preset: AutoencoderPreset = PRESET) -> AutoencoderRun:
    return AutoencoderRun(preset=preset, shape=images.shape, data=images.fingerprint)


def state_of(out: Path) -> dict[str, bytes]:
    tensors, _ = read_tensors(out / "training" / "state.safetensors")
    return {name: tensor.numpy().tobytes() for name, tensor in tensors.items()}


def stop_after(steps: int) -> Callable[[], bool]:
    calls = count(1)
    return lambda: next(calls) == steps


@pytest.mark.parametrize("kind", ["kl", "vq"])
def test_an_interrupted_run_continues_bit_by_bit(
    colours: Images, tmp_path: Path, kind: Literal["kl", "vq"]
) -> None:
    preset = replace(PRESET, network=replace(TINY, kind=kind))
    preset = replace_settings(preset, discriminator=0.1, discriminator_start=32)
    config = run_of(colours, preset)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    records = list(train_autoencoder(config, colours, whole))
    assert [record.images for record in records] == [48, 96]
    assert (records[-1].codes is not None) == (kind == "vq")
    list(train_autoencoder(config, colours, parts, stop_after(5)))
    list(train_autoencoder(config, colours, parts))
    assert state_of(parts) == state_of(whole)
    lines = (parts / "training" / "stats.jsonl").read_text().splitlines()
    assert [json.loads(line)["images"] for line in lines] == [48, 96]
    list(train_autoencoder(config, colours, parts))  # nothing is left to do
    assert state_of(parts) == state_of(whole)


def test_the_folder_is_an_autoencoder_that_reconstructs(colours: Images, tmp_path: Path) -> None:
    diffusers = pytest.importorskip("diffusers")
    out = tmp_path / "out"
    config = run_of(
        colours, replace_settings(PRESET, images=800, record_images=80, checkpoint_images=800)
    )
    records = list(train_autoencoder(config, colours, out))
    assert records[-1].psnr > records[0].psnr + 1
    assert records[-1].ssim > records[0].ssim
    autoencoder = find_autoencoder(str(out), colours)
    module: Any = diffusers.AutoencoderKL.from_pretrained(out)
    assert module.config.latent_channels == autoencoder.info.channels == 4
    images = decode(autoencoder, encode(autoencoder, colours.pixels[:]).mean)
    assert float(image_psnr(images, colours.pixels[:]).mean()) > records[-1].psnr - 3
    assert (out / "training" / "reconstructions.png").exists()


def test_penalties(colours: Images) -> None:
    images = colours.pixels[:4].float() / 127.5 - 1
    assert isinstance(images, Tensor)
    torch.manual_seed(0)
    kl: Any = build_network(TINY, colours.shape)
    loss = PRESET.loss
    posterior = kl.encode(images).latent_dist
    expected = (posterior.mean**2 + posterior.var - 1 - posterior.logvar).sum() / 2
    found = reconstruct(kl, images, "kl", replace(loss, kl_weight=0.1)).penalty
    torch.testing.assert_close(found, 0.1 * expected / images.numel())
    vq: Any = build_network(replace(TINY, kind="vq"), colours.shape)
    codes = reconstruct(vq, images, "vq", loss)
    latents = vq.quant_conv(vq.encoder(images))
    book = vq.quantize.embedding.weight
    distances = torch.cdist(latents.movedim(1, -1).flatten(0, 2), book)
    assert codes.codes is not None
    assert torch.equal(codes.codes.flatten(), distances.argmin(1))


def test_another_run_is_refused(colours: Images, few_digits: Images, tmp_path: Path) -> None:
    out = tmp_path / "out"
    list(train_autoencoder(run_of(colours), colours, out, stop_after(1)))
    other = replace_settings(PRESET, kl_weight=0.5)
    with pytest.raises(BadInput, match="another configuration"):
        next(train_autoencoder(run_of(colours, other), colours, out))
    with pytest.raises(BadInput, match="other images"):
        next(train_autoencoder(run_of(few_digits), few_digits, out))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "note.txt").write_text("mine")
    with pytest.raises(BadInput, match="other files"):
        next(train_autoencoder(run_of(colours), colours, tmp_path / "mine"))
    with pytest.raises(BadInput, match="no multiples of 4"):
        run_of(
            replace(colours, pixels=colours.pixels[:][:, :, :6]),
            replace(PRESET, network=replace(TINY, widths=(8, 8, 8))),
        )


def test_a_perceptual_distance_is_zero_only_for_equal_images(colours: Images) -> None:
    from multistage_diffusion.evaluation.features.perceptual import perceptual_distance

    distance = perceptual_distance(torch.device("cpu"))
    images = colours.pixels[:2].float() / 127.5 - 1
    assert isinstance(images, Tensor)
    changed = images.clone().requires_grad_()
    assert float(distance(changed.detach(), images)) == pytest.approx(0, abs=1e-9)
    value = distance(changed * 0.5, images)
    value.backward()
    assert float(value.detach()) > 1e-4
    assert changed.grad is not None
    assert bool(changed.grad.abs().max() > 0)


def test_records_without_steps_are_not_made(colours: Images, tmp_path: Path) -> None:
    made: Iterator[object] = train_autoencoder(run_of(colours), colours, tmp_path / "out")
    assert len(list(made)) == 2
    longer = run_of(colours, replace_settings(PRESET, images=104))
    (last,) = train_autoencoder(longer, colours, tmp_path / "out")
    assert last.images == 104
