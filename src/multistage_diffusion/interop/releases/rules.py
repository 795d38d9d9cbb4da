"""How a tensor of ours is made of tensors of a release."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Rule", "dense", "grouped_heads", "moved", "renamed", "stacked"]


@dataclass(frozen=True)
class Rule:
    """One of our tensors, the names of those it is made of, and how."""

    ours: str
    theirs: tuple[str, ...]
    make: Callable[..., Tensor] = lambda tensor: tensor


def moved(ours: str, theirs: str, bias: bool = True) -> Iterator[Rule]:
    """Weight and bias of a layer that has another name."""
    yield Rule(f"{ours}.weight", (f"{theirs}.weight",))
    if bias:
        yield Rule(f"{ours}.bias", (f"{theirs}.bias",))


def renamed(ours: str, theirs: str, layers: dict[str, str]) -> Iterator[Rule]:
    """The layers of a block, ``{our name: their name}``."""
    for name, other in layers.items():
        yield from moved(f"{ours}.{name}", f"{theirs}.{other}")


def dense(ours: str, theirs: str) -> Iterator[Rule]:
    """A layer with the weight ``W`` ``[inputs, outputs]`` and the bias ``b`` as a 1x1
    convolution.
    """
    yield Rule(f"{ours}.weight", (f"{theirs}.W",), lambda w: w.T[:, :, None, None])
    yield Rule(f"{ours}.bias", (f"{theirs}.b",))


def stacked(ours: str, theirs: tuple[str, str, str]) -> Iterator[Rule]:
    """Queries, keys and values from three such layers, for a single head."""
    yield Rule(
        f"{ours}.weight",
        tuple(f"{name}.W" for name in theirs),
        lambda *w: _interleaved([m.T for m in w])[:, :, None, None],
    )
    yield Rule(
        f"{ours}.bias", tuple(f"{name}.b" for name in theirs), lambda *b: _interleaved(list(b))
    )


def _interleaved(rows: list[Tensor]) -> Tensor:
    return torch.stack(rows, 1).flatten(0, 1)


def grouped_heads(ours: str, theirs: str, heads: int) -> Iterator[Rule]:
    """Queries, keys and values ordered by head, kind and channel; ours are ordered by head, channel
    and kind.
    """

    def order(tensor: Tensor) -> Tensor:
        rows = tensor.reshape(heads, 3, -1, *tensor.shape[1:2])
        flat = rows.transpose(1, 2).flatten(0, 2)
        return flat[:, :, None, None] if tensor.ndim > 1 else flat

    yield Rule(f"{ours}.weight", (f"{theirs}.weight",), order)
    yield Rule(f"{ours}.bias", (f"{theirs}.bias",), order)
