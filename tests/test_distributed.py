"""Two processes on this machine, joined by gloo."""

import json
import os
import socket
import subprocess
import sys
import weakref
from pathlib import Path

import pytest
import torch
from torch.multiprocessing.spawn import spawn

from multistage_diffusion import distributed
from multistage_diffusion.data import Images
from multistage_diffusion.optimal import PairDenoiser

LEVELS = torch.logspace(-2.7, 2.3, 25, dtype=torch.float64)


def denoise(pixels: torch.Tensor) -> torch.Tensor:
    noise = torch.randn(
        6, *pixels.shape[1:], dtype=torch.float64, generator=torch.Generator().manual_seed(0)
    )
    return PairDenoiser(pixels, block_rows=100)(
        torch.arange(0, len(pixels), len(pixels) // 6)[:6], noise, LEVELS
    )


def one_of_two(number: int, pixels: torch.Tensor, folder: Path, port: str) -> None:
    torch.set_num_threads(1)
    os.environ.update(WORLD_SIZE="2", RANK=str(number), MASTER_ADDR="127.0.0.1", MASTER_PORT=port)
    with distributed.process_group(torch.device("cpu")):
        assert distributed.world_size() == 2
        assert distributed.broadcast(number) == 0
        assert distributed.any_rank(number == 1)
        assert not distributed.any_rank(False)
        group = weakref.ref(distributed.background_group())
        torch.save(denoise(pixels), folder / f"{number}.pt")
    assert distributed.world_size() == 1
    assert group() is None  # its threads have ended


def free_port() -> str:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        return str(holder.getsockname()[1])


def test_two_processes_give_the_optimal_denoiser_of_one(digits: Images, tmp_path: Path) -> None:
    """To 1e-6 of the range of the data, which is 2; both hold the same."""
    spawn(one_of_two, (digits.pixels, tmp_path, free_port()), nprocs=2)
    first, second = (torch.load(tmp_path / f"{number}.pt") for number in (0, 1))
    torch.testing.assert_close(first, denoise(digits.pixels[:]), rtol=0, atol=2e-6)
    assert torch.equal(first, second)


@pytest.mark.slow
def test_clustering_with_torchrun_gives_the_stages_of_one_process(tmp_path: Path) -> None:
    command = [
        "-m",
        "multistage_diffusion",
        "cluster",
        "--data",
        "digits",
        "--pairs",
        "16",
        "--levels",
        "9",
        "--out",
    ]
    one, two = tmp_path / "one.json", tmp_path / "two.json"
    torchrun = [
        "-m",
        "torch.distributed.run",
        "--nproc-per-node",
        "2",
        "--master-port",
        free_port(),
    ]
    for start, out in (([], one), (torchrun, two)):
        found = subprocess.run(
            [sys.executable, *start, *command, str(out)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert found.returncode == 0, found.stderr
        assert found.stdout.count("1797 images") == 1
    first, second = (json.loads(file.read_text()) for file in (one, two))
    for name in ("boundaries", "ci95"):
        torch.testing.assert_close(
            torch.tensor(first[name]), torch.tensor(second[name]), rtol=1e-6, atol=0
        )
