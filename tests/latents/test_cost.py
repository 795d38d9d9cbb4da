from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from multistage_diffusion.data import Images
from multistage_diffusion.latents import find_autoencoder
from multistage_diffusion.latents.cost import decoding_macs
from multistage_diffusion.space import AutoencoderInfo, LatentConfig


def on_latents(info: AutoencoderInfo) -> LatentConfig:
    ones = (1.0,) * info.channels
    return LatentConfig(
        autoencoder=info, image_shape=(3, 16, 24), shift=ones, scale=ones, deviation=0.5
    )


def test_linear_patches_are_one_product_for_each_patch(colours: Images) -> None:
    info = find_autoencoder("pca-f2c4", colours).info
    assert decoding_macs(on_latents(info)) == (8 * 12) * 4 * (3 * 2 * 2)


def test_of_a_network_all_convolutions_and_products_count(
    kl_folder: Path, colours: Images, make_kl: Callable[[int], Any]
) -> None:
    counted = 0

    def count(layer: nn.Module, inputs: tuple[torch.Tensor], output: torch.Tensor) -> None:
        nonlocal counted
        assert isinstance(layer, nn.Conv2d | nn.Linear)
        counted += output.numel() * layer.weight[0].numel()

    module = make_kl(0).eval()
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            layer.register_forward_hook(count)
    with torch.no_grad():
        module.decode(torch.zeros(1, 4, 8, 12))
    attention = 2 * (8 * 12) ** 2 * 8  # two products of all positions with all, of 8 channels
    info = find_autoencoder(str(kl_folder), colours).info
    assert decoding_macs(on_latents(info)) == counted + attention
