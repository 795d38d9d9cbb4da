"""Compiled encoders and decoders compute the same, and are compiled once for all numbers of
samples."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch._dynamo.utils import counters

from multistage_diffusion.data import Images
from multistage_diffusion.denoiser import NetworkDenoiser
from multistage_diffusion.run import Run
from multistage_diffusion.training import read_records, train
from multistage_diffusion.training.compilation import compile_parts
from tests.conftest import MODEL, TINY, run_on

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # torch warns of itself

SIGMA = torch.tensor([0.1, 1.0, 5.0], dtype=torch.float64)


def test_nothing_is_compiled_again_when_counts_change(denoiser: NetworkDenoiser) -> None:
    batches = [(3, 4, 5), (6, 4, 2), (12, 0, 0), (1, 9, 2), (2, 2, 2), (5, 3, 1)]
    inputs = [
        (torch.randn(sum(counts), 1, 8, 8), SIGMA.repeat_interleave(torch.tensor(counts)))
        for counts in batches
    ]
    expected = [gradients(denoiser, *batch) for batch in inputs]
    counters.clear()
    compile_parts(denoiser.network)
    for batch, known in zip(inputs, expected, strict=True):
        for name, gradient in gradients(denoiser, *batch).items():
            torch.testing.assert_close(gradient, known[name], rtol=1e-3, atol=1e-4, msg=name)
    assert counters["stats"]["unique_graphs"] == 4  # an encoder and three decoders


def gradients(
    denoiser: NetworkDenoiser, x: torch.Tensor, sigma: torch.Tensor
) -> dict[str, torch.Tensor]:
    denoiser.zero_grad(set_to_none=True)
    denoiser(x, sigma).square().sum().backward()
    return {name: p.grad.clone() for name, p in denoiser.named_parameters() if p.grad is not None}


def test_a_compiled_run_learns_the_same(few_digits: Images, tmp_path: Path) -> None:
    model = replace(MODEL, network=replace(TINY, dropout=0.0))  # compilers draw it otherwise
    for name in ("written", "compiled"):
        config = replace(run_on(few_digits, images=48, compile=name == "compiled"), model=model)
        list(train(config, few_digits, tmp_path / name))
    for a, b in zip(
        read_records(Run(tmp_path / "written")),
        read_records(Run(tmp_path / "compiled")),
        strict=True,
    ):
        assert a.probe_loss == pytest.approx(b.probe_loss, rel=1e-3)
