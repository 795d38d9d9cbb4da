"""The exchange of gradients in one process, with other ranks that have the same gradients."""

from dataclasses import replace

import pytest
import torch

from multistage_diffusion import distributed
from multistage_diffusion.denoiser import NetworkDenoiser
from multistage_diffusion.model import build_denoiser
from multistage_diffusion.training.distributed.gradients import GradientReducer
from tests.conftest import MODEL, disturb

BUCKET = 2000


class Link:
    """Doubles what is sent, once it is waited for."""

    def __init__(self) -> None:
        self.sent: list[torch.Tensor] = []

    def begin(self, value: torch.Tensor) -> "Link.Transfer":
        self.sent.append(value)
        return Link.Transfer(value)

    class Transfer:
        def __init__(self, value: torch.Tensor) -> None:
            self.value = value

        def wait(self) -> None:
            self.value.mul_(2)


@pytest.fixture
def link(monkeypatch: pytest.MonkeyPatch) -> Link:
    link = Link()
    monkeypatch.setattr(distributed, "world_size", lambda: 2)
    monkeypatch.setattr(distributed, "all_reduce_max", lambda value: value)
    monkeypatch.setattr(distributed, "begin_all_reduce_sum", link.begin)
    return link


def backward(denoiser: NetworkDenoiser, levels: list[float]) -> None:
    torch.manual_seed(len(levels))
    y = torch.randn(len(levels), 1, 8, 8)
    sigma = torch.tensor(levels, dtype=torch.float64)
    denoiser.loss(y, sigma, torch.randn_like(y)).sum().backward()


FIRST = [0.1, 1.0, 5.0]  # a level in each stage
LAST = [0.1, 5.0, 0.2, 7.0]  # none in the second one


def gradients(denoiser: NetworkDenoiser) -> list[torch.Tensor | None]:
    return [None if p.grad is None else p.grad.clone() for p in denoiser.parameters()]


def test_gradients_are_summed_while_they_are_computed(link: Link) -> None:
    """Also of a decoder that only an earlier micro-batch used; most buckets are on their way before
    the encoder's first layer has its gradient."""
    torch.manual_seed(0)
    denoiser = disturb(build_denoiser(MODEL)).eval()
    alone = disturb(build_denoiser(replace(MODEL))).eval()
    alone.load_state_dict(denoiser.state_dict())
    backward(alone, FIRST)
    backward(alone, LAST)
    reducer = GradientReducer(denoiser.parameters(), BUCKET)
    before_the_first_layer: list[int] = []
    stem = denoiser.network.encoders[0].stem
    stem.weight.register_post_accumulate_grad_hook(  # type: ignore[union-attr, operator]
        lambda _: before_the_first_layer.append(len(link.sent))
    )
    for step in range(3):
        denoiser.zero_grad()
        link.sent.clear()
        backward(denoiser, FIRST)
        before_the_first_layer.clear()
        with reducer.overlap("all", "last"):
            backward(denoiser, LAST)
        reducer.reduce("all")
        for found, expected in zip(gradients(denoiser), gradients(alone), strict=True):
            assert found is not None
            assert expected is not None
            torch.testing.assert_close(found, 2 * expected)
        buckets = len(link.sent)
        assert buckets > 8
        sent = before_the_first_layer[0]
        assert sent == 0 if step == 0 else sent >= buckets - 2


def test_what_no_rank_uses_has_no_gradient_and_is_not_sent(link: Link) -> None:
    denoiser = disturb(build_denoiser(MODEL)).eval()
    reducer = GradientReducer(denoiser.parameters(), BUCKET)
    for _ in range(2):
        denoiser.zero_grad()
        link.sent.clear()
        with reducer.overlap("some", "last"):
            backward(denoiser, LAST)
        reducer.reduce("some")
        decoders = denoiser.network.decoders
        assert all(p.grad is None for p in decoders[1].parameters())
        used = [p for p in denoiser.parameters() if p.grad is not None]
        assert sum(map(len, link.sent)) == sum(p.numel() for p in used)


def test_gradients_keep_the_memory_format_of_their_weights(link: Link) -> None:
    layer = torch.nn.Conv2d(4, 4, 3)
    layer.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    reducer = GradientReducer(layer.parameters())
    layer(torch.randn(2, 4, 8, 8)).sum().backward()
    reducer.reduce("all")
    for parameter in layer.parameters():
        assert parameter.grad is not None
        assert parameter.grad.stride() == parameter.stride()
