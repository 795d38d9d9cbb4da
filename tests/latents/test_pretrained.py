import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from multistage_diffusion.data import Images
from multistage_diffusion.errors import BadInput
from multistage_diffusion.latents import decode, encode, find_autoencoder, load_autoencoder
from multistage_diffusion.space import PIXELS
from tests.latents.models import make_vq


def test_kl_is_what_diffusers_computes(
    kl_folder: Path, colours: Images, make_kl: Callable[[int], Any]
) -> None:
    autoencoder = find_autoencoder(str(kl_folder), colours)
    assert (autoencoder.info.factor, autoencoder.info.channels) == (2, 4)
    module = make_kl(0).eval()
    with torch.no_grad():
        posterior = module.encode(PIXELS.encode(colours.pixels[:])).latent_dist
        images = PIXELS.decode(module.decode(posterior.mean).sample)
    found = encode(autoencoder, colours.pixels[:])
    torch.testing.assert_close(found.mean, posterior.mean)
    torch.testing.assert_close(found.deviation, posterior.std)
    difference = decode(autoencoder, posterior.mean).int() - images.int()
    assert difference.abs().max() <= 1


def test_other_classes(tmp_path: Path, colours: Images) -> None:
    diffusers = pytest.importorskip("diffusers")
    made = {
        "vq": make_vq(),
        "tiny": diffusers.AutoencoderTiny(
            encoder_block_out_channels=(8, 8),
            decoder_block_out_channels=(8, 8),
            num_encoder_blocks=(1, 1),
            num_decoder_blocks=(1, 1),
            latent_channels=4,
        ),
        "dc": diffusers.AutoencoderDC(
            latent_channels=4,
            encoder_block_types=("ResBlock",) * 2,
            decoder_block_types=("ResBlock",) * 2,
            encoder_block_out_channels=(8, 8),
            decoder_block_out_channels=(8, 8),
            encoder_layers_per_block=(1, 1),
            decoder_layers_per_block=(1, 1),
            encoder_qkv_multiscales=((), ()),
            decoder_qkv_multiscales=((), ()),
        ),
    }
    for name, module in made.items():
        module.save_pretrained(tmp_path / name)
        autoencoder = find_autoencoder(str(tmp_path / name), colours)
        latents = encode(autoencoder, colours.pixels[:2]).mean
        assert latents.shape == (2, 4, 4, 4), name
        assert decode(autoencoder, latents).shape == (2, 3, 8, 8), name


def test_a_changed_autoencoder_is_noticed(
    kl_folder: Path, colours: Images, make_kl: Callable[[int], Any]
) -> None:
    info = find_autoencoder(str(kl_folder), colours).info
    make_kl(1).save_pretrained(kl_folder)
    load_autoencoder.cache_clear()
    with pytest.raises(BadInput, match="another one than the latents were made with"):
        load_autoencoder(info)


def _tiny_states() -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """State dicts as TAESD publishes them, of factor 2."""

    class Block(nn.Module):
        def __init__(self, pool: bool) -> None:
            super().__init__()
            self.conv = nn.Sequential(
                nn.Conv2d(4, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3)
            )
            if pool:
                self.pool = nn.Sequential(
                    nn.Conv2d(4, 16, 1, bias=False),
                    nn.GroupNorm(4, 16),
                    nn.ReLU(),
                    nn.Conv2d(16, 4, 1, bias=False),
                )

    encoder = nn.Sequential(
        nn.Conv2d(3, 4, 3), Block(False), nn.Conv2d(4, 4, 3, bias=False), Block(True),
        nn.Conv2d(4, 2, 3),
    )  # fmt: skip
    decoder = nn.Sequential(
        nn.Identity(), nn.Conv2d(2, 4, 3), nn.ReLU(), Block(True), nn.Upsample(),
        nn.Conv2d(4, 4, 3, bias=False), Block(False), nn.Conv2d(4, 3, 3),
    )  # fmt: skip
    return encoder.state_dict(), decoder.state_dict()


@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
def test_taesd_files(tmp_path: Path, colours: Images, suffix: str) -> None:
    for name, state in zip(("encoder", "decoder"), _tiny_states(), strict=True):
        path = tmp_path / f"{name}.{suffix}"
        save_file(state, path) if suffix == "safetensors" else torch.save(state, path)
    autoencoder = find_autoencoder(str(tmp_path), colours)
    assert (autoencoder.info.factor, autoencoder.info.channels) == (2, 2)
    latents = encode(autoencoder, colours.pixels[:]).mean
    assert decode(autoencoder, latents).shape == colours.pixels[:].shape


def test_messages(tmp_path: Path, colours: Images, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BadInput, match="There is no autoencoder"):
        find_autoencoder(str(tmp_path / "none"), colours)
    with pytest.raises(BadInput, match="holds no autoencoder"):
        find_autoencoder(str(tmp_path), colours)
    (tmp_path / "config.json").write_text('{"_class_name": "UNet2DModel"}')
    with pytest.raises(BadInput, match="UNet2DModel"):
        find_autoencoder(str(tmp_path), colours)
    (tmp_path / "config.json").write_text('{"_class_name": "AutoencoderKL"}')
    with pytest.raises(BadInput, match="Cannot read the autoencoder"):
        find_autoencoder(str(tmp_path), colours)
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(BadInput, match=r"pip install 'multistage-diffusion\[latent\]'"):
        find_autoencoder(str(tmp_path), colours)


def test_a_damaged_taesd_file(tmp_path: Path, colours: Images) -> None:
    for name in ("encoder", "decoder"):
        (tmp_path / f"{name}.pth").write_bytes(b"nothing")
    with pytest.raises(BadInput, match="Cannot read the autoencoder"):
        find_autoencoder(str(tmp_path), colours)


def test_grey_images_do_not_fit(kl_folder: Path, few_digits: Images) -> None:
    with pytest.raises(BadInput, match="3 channels, the data has 1"):
        find_autoencoder(str(kl_folder), few_digits)
