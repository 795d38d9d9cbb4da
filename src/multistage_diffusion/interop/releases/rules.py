"""Rules: how our tensors are made from the tensors of a release.

Layers are named by their prefix, ours first: the tensors of ``encoders.0.stem`` are
``encoders.0.stem.weight`` and ``encoders.0.stem.bias``.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = [
    "Rule",
    "as_convolution",
    "dense_rules",
    "grouped_qkv_rules",
    "interleaved",
    "layer_rules",
    "module_rules",
    "separate_qkv_rules",
]


@dataclass(frozen=True)
class Rule:
    """How one of our tensors is made."""

    ours: str
    """Its name."""
    theirs: tuple[str, ...]
    """The names of the release's tensors that it is made from."""
    make: Callable[..., Tensor] = lambda tensor: tensor
    """Makes it from these tensors."""


def layer_rules(ours: str, theirs: str, bias: bool = True) -> Iterator[Rule]:
    """Weight and bias of a layer that differs in its name only."""
    yield Rule(f"{ours}.weight", (f"{theirs}.weight",))
    if bias:
        yield Rule(f"{ours}.bias", (f"{theirs}.bias",))


def module_rules(ours: str, theirs: str, layers: Mapping[str, str]) -> Iterator[Rule]:
    """Several layers of a module that differ in their names only.

    Args:
        ours, theirs: the module.
        layers: our names of the layers inside the module, with the release's names.
    """
    for name, other in layers.items():
        yield from layer_rules(f"{ours}.{name}", f"{theirs}.{other}")


def as_convolution(weight: Tensor) -> Tensor:
    """The weight of a 1x1 convolution from it, or from that of a dense layer."""
    return weight.reshape(*weight.shape[:2], 1, 1)


def dense_rules(ours: str, theirs: str) -> Iterator[Rule]:
    """A 1x1 convolution from a dense layer: weight ``W``, ``[inputs, outputs]``, and bias ``b``."""
    yield Rule(f"{ours}.weight", (f"{theirs}.W",), lambda w: w.T[:, :, None, None])
    yield Rule(f"{ours}.bias", (f"{theirs}.b",))


def separate_qkv_rules(ours: str, theirs: tuple[str, str, str]) -> Iterator[Rule]:
    """Queries, keys and values of a single head from three dense layers.

    Our rows are ordered by channel, and query, key or value.
    """

    def weight(*matrices: Tensor) -> Tensor:
        return interleaved(*(matrix.T for matrix in matrices))[:, :, None, None]

    yield Rule(f"{ours}.weight", tuple(f"{name}.W" for name in theirs), weight)
    yield Rule(f"{ours}.bias", tuple(f"{name}.b" for name in theirs), interleaved)


def interleaved(*tensors: Tensor) -> Tensor:
    """Rows of tensors of one shape in turn: the first of each, the second of each, and so on."""
    return torch.stack(tensors, 1).flatten(0, 1)


def grouped_qkv_rules(ours: str, theirs: str, heads: int) -> Iterator[Rule]:
    """Queries, keys and values from a layer whose rows are ordered by head, kind and channel.

    Our rows are ordered by head, channel and kind (query, key or value).

    Args:
        ours, theirs: the layer, with a weight ``[3 * channels, channels, 1]`` in the release.
        heads: number of heads.
    """

    def reordered(tensor: Tensor) -> Tensor:
        rows = tensor.reshape(heads, 3, -1, *tensor.shape[1:2])
        flat = rows.transpose(1, 2).flatten(0, 2)
        return flat[:, :, None, None] if tensor.ndim > 1 else flat

    yield Rule(f"{ours}.weight", (f"{theirs}.weight",), reordered)
    yield Rule(f"{ours}.bias", (f"{theirs}.bias",), reordered)
