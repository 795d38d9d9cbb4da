"""TAESD's tiny autoencoders as they are published: two plain state dicts, encoder and decoder.

Source: https://github.com/madebyollin/taesd, whose images are 0 to 1. The layers are numbered as in
its ``nn.Sequential``; which kind each of them is follows from the shapes of its weights.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from multistage_diffusion.errors import BadInput

__all__ = ["TinyDecoder", "TinyEncoder", "find_tiny", "read_state"]

SUFFIXES = (".safetensors", ".pth")
GROUPS = 4

State = Mapping[str, Tensor]


def find_tiny(folder: Path) -> tuple[Path, Path] | None:
    """The files of encoder and decoder in a folder, if it holds such an autoencoder."""
    for suffix in SUFFIXES:
        encoder, decoder = (folder / f"{name}{suffix}" for name in ("encoder", "decoder"))
        if encoder.is_file() and decoder.is_file():
            return encoder, decoder
    return None


def read_state(path: Path) -> dict[str, Tensor]:
    """A state dict, in float32. Files of pickles are read without executing anything in them.

    Raises:
        BadInput: if the file is damaged.
    """
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
        return {name: tensor.float() for name, tensor in state.items()}
    except Exception as error:  # these readers raise errors of many kinds
        raise BadInput(f"Cannot read the autoencoder {path}: {error}.") from error


class TinyEncoder(nn.Sequential):
    """Images, -1 to 1, to latents.

    Args:
        state: its state dict.
    """

    def __init__(self, state: State) -> None:
        super().__init__(*_layers(state, stride=2))
        _load(self, state)

    def forward(self, images: Tensor) -> Tensor:
        return super().forward((images + 1) / 2)


class TinyDecoder(nn.Sequential):
    """Latents to images, about -1 to 1. Layers without weights fill the gaps between numbers.

    Args:
        state: its state dict.
    """

    def __init__(self, state: State) -> None:
        super().__init__(*_layers(state, stride=1))
        _load(self, state)

    def forward(self, latents: Tensor) -> Tensor:
        return super().forward(latents).clamp(0, 1) * 2 - 1


def _layers(state: State, stride: int) -> list[nn.Module]:
    """The layers, in order. In the decoder's gaps there are a clamp, a ReLU and upsampling."""
    names = {int(name.split(".")[0]) for name in state}
    layers: list[nn.Module] = []
    for number in range(max(names) + 1):
        if number not in names:
            gaps = {0: _Clamp(), 2: nn.ReLU()}
            layers.append(gaps.get(number, nn.Upsample(scale_factor=2)))
        elif f"{number}.conv.0.weight" in state:
            layers.append(_Block(state, number))
        else:
            weight = state[f"{number}.weight"]
            bias = f"{number}.bias" in state
            step = 1 if bias else stride
            layers.append(nn.Conv2d(weight.shape[1], weight.shape[0], 3, step, 1, bias=bias))
    return layers


def _load(module: nn.Module, state: State) -> None:
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        raise BadInput(f"This is not one of TAESD's autoencoders: {error}.") from error


class _Clamp(nn.Module):
    """Latents softly limited to -3 to 3."""

    def forward(self, latents: Tensor) -> Tensor:
        return (latents / 3).tanh() * 3


class _Block(nn.Module):
    """A residual block, in newer ones after a normalised 1x1 layer."""

    def __init__(self, state: State, number: int) -> None:
        super().__init__()
        widths = state[f"{number}.conv.0.weight"].shape
        inside, outside = widths[1], widths[0]
        self.conv = nn.Sequential(
            nn.Conv2d(inside, outside, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(outside, outside, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(outside, outside, 3, padding=1),
        )
        self.skip: nn.Module = nn.Identity()
        if inside != outside:
            self.skip = nn.Conv2d(inside, outside, 1, bias=False)
        self.pool: nn.Sequential | None = None
        if f"{number}.pool.0.weight" in state:
            wide = state[f"{number}.pool.0.weight"].shape[0]
            self.pool = nn.Sequential(
                nn.Conv2d(inside, wide, 1, bias=False),
                nn.GroupNorm(GROUPS, wide),
                nn.ReLU(),
                nn.Conv2d(wide, inside, 1, bias=False),
            )

    def forward(self, x: Tensor) -> Tensor:
        if self.pool is not None:
            x = x + self.pool(x)
        return F.relu(self.conv(x) + self.skip(x))
