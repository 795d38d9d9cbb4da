"""What a checkpoint holds, and the names of its files."""

from collections.abc import Iterator

from torch import Tensor

from multistage_diffusion.training.state import State

__all__ = ["MODEL", "SHARDS", "TRAINING", "all_tensors", "averaged_tensors", "is_small"]

MODEL = "model.safetensors"
TRAINING = "training.safetensors"
SHARDS = "shards"
"""In the metadata of ``training.safetensors``: the names of the ranks' own files."""

SMALL = ("sum.", "seen", "step.")


def averaged_tensors(state: State) -> Iterator[tuple[str, Tensor]]:
    """The tensors of ``model.safetensors``."""
    yield from state.averages.main.network.state_dict().items()


def all_tensors(state: State) -> Iterator[tuple[str, Tensor]]:
    """The tensors of a checkpoint."""
    network = state.denoiser.network
    yield from averaged_tensors(state)
    yield from ((f"sum.{name}", value) for name, value in vars(state.sums).items())
    yield "seen", state.averages.seen
    yield from ((f"average.{name}", tensor) for name, tensor in state.averages.tensors())
    persistent = network.state_dict()
    buffers = network.named_buffers()
    yield from ((f"net.{name}", buffer) for name, buffer in buffers if name in persistent)
    for name, parameter in state.named_parameters():
        yield f"net.{name}", parameter.detach()
        for moment, value in state.optimizer.state.get(parameter, {}).items():
            yield f"{moment}.{name}", value


def is_small(name: str) -> bool:
    """Whether every rank holds the whole of a tensor, by its name."""
    return name.startswith(SMALL)
