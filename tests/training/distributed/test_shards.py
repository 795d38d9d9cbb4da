"""Checkpoints of which each process writes its own part."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from multistage_diffusion.data import Images
from multistage_diffusion.errors import BadInput
from multistage_diffusion.model import build_denoiser, load_model
from multistage_diffusion.run import Run
from multistage_diffusion.tensorfile import save_tensors
from multistage_diffusion.training.checkpoints.loading import load_latest
from multistage_diffusion.training.checkpoints.saving import Checkpoints
from multistage_diffusion.training.config import RunConfig
from multistage_diffusion.training.distributed.sharding import shard, whole
from multistage_diffusion.training.distributed.shards import (
    check_support,
    join_shards,
    load_shards,
)
from multistage_diffusion.training.ema.snapshots import save_snapshot
from multistage_diffusion.training.state import State
from tests.conftest import disturb, run_on
from tests.test_distributed import free_port
from tests.training.distributed.test_gradients import TINY, assert_close, run
from tests.training.test_safety import cut

MODEL = "model.safetensors"
METADATA = {"images": 3, "config": {"b": 1, "a": [2]}}


def write_shard(path: Path, rows: dict[str, tuple[torch.Tensor, int]]) -> None:
    """A file as torch writes it: tensors, and where their first rows lie in the whole."""
    from safetensors.torch import save_file

    offsets = {
        name: {"saved_offsets": [first, *[0] * (tensor.ndim - 1)]}
        for name, (tensor, first) in rows.items()
    }
    save_file(
        {name: tensor.contiguous() for name, (tensor, _) in rows.items()},
        path,
        {"format": "pt", "DCP_SHARDING_INFO": json.dumps(offsets)},
    )


def test_joined_files_are_the_file_of_the_whole(tmp_path: Path) -> None:
    tensors = {"b": torch.randn(5, 2, 3), "a": torch.randn(4), "c": torch.randn(1, 7)}
    for rank, cuts in enumerate([(0, 2), (2, 4), (4, 9)]):
        rows = {name: (tensor[slice(*cuts)], cuts[0]) for name, tensor in tensors.items()}
        write_shard(tmp_path / f"{2 - rank}.safetensors", rows)
    join_shards(tmp_path / "joined", sorted(tmp_path.glob("*.safetensors")), METADATA)
    save_tensors(tmp_path / "whole", tensors, METADATA)
    assert (tmp_path / "joined").read_bytes() == (tmp_path / "whole").read_bytes()


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_tensors_are_put_together_from_any_number_of_files(tmp_path: Path, ranks: int) -> None:
    tensors = {"a": torch.randn(4, 3), "b": torch.randn(1)}
    for rank in range(ranks):
        rows = {name: (t.chunk(ranks)[rank:][:1], t) for name, t in tensors.items()}
        size = {name: len(t.chunk(ranks)[0]) for name, t in tensors.items()}
        held = {name: (part[0], rank * size[name]) for name, (part, _) in rows.items() if len(part)}
        write_shard(tmp_path / f"{rank}.safetensors", held)
    found = {name: torch.zeros_like(tensor) for name, tensor in tensors.items()}
    load_shards(tmp_path, found)
    assert all(torch.equal(found[name], tensor) for name, tensor in tensors.items())
    with pytest.raises(ValueError, match=r"[Mm]ismatch"):
        load_shards(tmp_path, {"a": torch.zeros(4, 2)})
    with pytest.raises(ValueError, match="Missing"):
        load_shards(tmp_path, {"none": torch.zeros(4)})


@pytest.fixture
def group(tmp_path: Path) -> Iterator[None]:
    store = dist.FileStore(str(tmp_path / "store"), 1)  # type: ignore[attr-defined]
    dist.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def make_state(config: RunConfig, *, sharded: bool) -> State:
    torch.manual_seed(1)
    state = State.initial(build_denoiser(config.model), config.training)
    networks = [state.denoiser.network, *state.averages.networks()]
    for network in networks:
        disturb(network)
        if sharded:
            shard(network)
    return state


def make_later_state(config: RunConfig, *, sharded: bool) -> State:
    """With other weights, sums and moments; the last decoder has no moments yet."""
    state = make_state(config, sharded=sharded)
    for network in (state.denoiser.network, *state.averages.networks()):
        add_to(network, 1)
    for name, parameter in state.named_parameters():
        if not name.startswith("decoders.2."):
            state.optimizer.state[parameter] = {
                "step": torch.tensor(3.0),
                "exp_avg": parameter.detach() + 1,
                "exp_avg_sq": parameter.detach() ** 2,
            }
    state.sums.loss += 2
    state.averages.seen += 24
    state.images = 24
    return state


@torch.no_grad()
def add_to(network: torch.nn.Module, value: float) -> None:
    for parameter in network.parameters():
        parameter.add_(value)


@pytest.mark.parametrize("read_sharded", [False, True])
@pytest.mark.parametrize("written_sharded", [False, True])
def test_both_kinds_are_read_sharded_or_not(
    group: None, few_digits: Images, tmp_path: Path, written_sharded: bool, read_sharded: bool
) -> None:
    """What is saved is the state at the call, even if it changes while files are written."""
    config = run_on(few_digits, posthoc_ema=(0.1,))
    written = make_later_state(config, sharded=written_sharded)
    expected = copies(written)
    checkpoints = Checkpoints(Run(tmp_path / "run"), config)
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    checkpoints.save(written)
    add_to(written.denoiser.network, 1)
    written.sums.loss += 5
    checkpoints.wait()
    files = sorted(path.name for path in (tmp_path / "run/checkpoints/000000000024").iterdir())
    own = ["shard-00001-model-00001-of-00002.safetensors"] if written_sharded else []
    assert files == ["model.safetensors", *own, "training.safetensors"]
    read = make_state(config, sharded=read_sharded)
    load_latest(Run(tmp_path / "run"), read)
    found = copies(read)
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name
    assert read.images == 24


def copies(state: State) -> dict[str, torch.Tensor]:
    """All tensors of a state, gathered."""
    tensors = dict(state.averages.main.network.state_dict())
    tensors |= {f"power.{name}": tensor for name, tensor in state.averages.tensors()}
    tensors |= {f"sum.{name}": tensor for name, tensor in vars(state.sums).items()}
    for name, parameter in state.named_parameters():
        moments = state.optimizer.state.get(parameter, {})
        tensors[f"net.{name}"] = parameter.detach()
        tensors |= {f"{moment}.{name}": value for moment, value in moments.items()}
    return {name: whole(tensor).clone() for name, tensor in tensors.items()}


def test_the_joined_model_is_the_file_of_the_whole(
    group: None, few_digits: Images, tmp_path: Path
) -> None:
    config = run_on(few_digits)
    for name, sharded in (("one", False), ("two", True)):
        (tmp_path / name / "checkpoints").mkdir(parents=True)
        checkpoints = Checkpoints(Run(tmp_path / name), config)
        checkpoints.save(make_later_state(config, sharded=sharded))
        checkpoints.wait()
    one, two = (Run(tmp_path / name).checkpoints()[0] for name in ("one", "two"))
    assert (one / "model.safetensors").read_bytes() == (two / "model.safetensors").read_bytes()


def test_a_joined_snapshot_is_the_file_of_the_whole(
    group: None, few_digits: Images, tmp_path: Path
) -> None:
    config = run_on(few_digits, posthoc_ema=(0.1, 0.05))
    for name, sharded in (("one", False), ("two", True)):
        left = tmp_path / name / "averages" / f".{24:012d}"
        left.mkdir(parents=True)  # by a process that was killed
        (left / "shard-00002-model-00001-of-00002.safetensors").touch()
        save_snapshot(Run(tmp_path / name), make_later_state(config, sharded=sharded), config)
    one, two = (Run(tmp_path / name).snapshots() for name in ("one", "two"))
    assert one[0].read_bytes() == two[0].read_bytes()
    assert [path.name for path in (tmp_path / "two" / "averages").iterdir()] == [two[0].name]


def test_a_torch_without_such_files_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    check_support()
    monkeypatch.setitem(sys.modules, "torch.distributed.checkpoint.hf_storage", None)
    with pytest.raises(BadInput, match="newer torch"):
        check_support()


def test_what_cannot_be_written_is_named_and_leaves_nothing(
    group: None, few_digits: Images, tmp_path: Path
) -> None:
    config = run_on(few_digits)
    (tmp_path / "checkpoints").touch()
    checkpoints = Checkpoints(Run(tmp_path), config)
    checkpoints.save(make_later_state(config, sharded=True))
    with pytest.raises(OSError, match=r"checkpoints/\.000000000024"):
        checkpoints.wait()
    assert (tmp_path / "checkpoints").is_file()
    checkpoints.wait()  # the error is not raised again


@pytest.fixture
def start(few_digits: Images, tmp_path: Path) -> list[str]:
    """The words of a run that has eight checkpoints."""
    stages = tmp_path / "stages.json"
    stages.write_text(json.dumps({"boundaries": [0.3, 2.5]}))
    length = ["--images", "384", "--batch-size", "12", "--checkpoint-images", "48"]
    words = ["-m", "multistage_diffusion", "train", "digits", "--data", "digits", *TINY, *length]
    return [*words, "--stages", str(stages), "--record-images", "192"]


def processes(count: int) -> list[str]:
    if count == 1:
        return []
    ports = ["--master-port", free_port()]
    return ["-m", "torch.distributed.run", "--nproc-per-node", str(count), *ports]


def run_until_killed(command: list[str], folder: Path) -> None:
    """Kills all processes of a run, the launcher first, as soon as there is a second checkpoint."""
    with subprocess.Popen([sys.executable, *command], stdout=-1, stderr=-1) as process:
        while len(list(folder.glob("checkpoints/0*"))) < 2:
            assert process.poll() is None, process.communicate()
            time.sleep(0.01)
        children = subprocess.run(
            ["/usr/bin/env", "pgrep", "-P", str(process.pid)], capture_output=True, text=True
        ).stdout.split()
        for each in (process.pid, *map(int, children)):
            os.kill(each, signal.SIGKILL)


def parts_of(checkpoint: Path) -> list[Path]:
    return sorted(checkpoint.glob("shard-*"))


@pytest.mark.slow
@pytest.mark.parametrize(("before", "after"), [(2, 1), (1, 2), (2, 3)])
def test_killed_and_continued_by_another_number_of_processes(
    tmp_path: Path, start: list[str], before: int, after: int
) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    run([*start, "--out", str(whole)])
    command = [*start, "--shard", "--out", str(parts)]
    run_until_killed([*processes(before), *command], parts)
    found = Run(parts).checkpoints()
    assert int(found[-1].name) < 384
    assert all(len(parts_of(checkpoint)) == (before if before > 1 else 0) for checkpoint in found)
    run([*processes(after), *command])
    assert_close(whole, parts)
    last = Run(parts).checkpoints()
    assert [int(checkpoint.name) for checkpoint in last] == [336, 384]
    assert len(parts_of(last[-1])) == (after if after > 1 else 0)
    assert not list(parts.glob("checkpoints/.*"))
    assert load_model(parts / MODEL).images == 384


@pytest.mark.slow
def test_damaged_or_half_written_parts_are_skipped(
    tmp_path: Path, start: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    run([*start, "--out", str(whole)])
    run([*processes(2), *start, "--shard", "--images", "144", "--out", str(parts)])
    before, last = Run(parts).checkpoints()
    shutil.copytree(last, last.with_name(f".{384:012d}"))  # as if killed before it was complete
    for damage in (lambda path: cut(path), lambda path: path.unlink()):
        copy = tmp_path / "copy"
        shutil.copytree(parts, copy)
        damage(parts_of(copy / "checkpoints" / last.name)[1])
        run([*start, "--out", str(copy)])
        assert (copy / "checkpoints" / f"{last.name}.damaged").exists()
        assert not list(copy.glob("checkpoints/.*"))
        assert not parts_of(Run(copy).checkpoints()[-1])
        assert_close(whole, copy)
        shutil.rmtree(copy)
    for checkpoint in (before, last):
        cut(parts_of(checkpoint)[0])
    found = subprocess.run(
        [sys.executable, *start, "--out", str(parts)], capture_output=True, text=True
    )
    assert found.returncode == 2
    assert f"Cannot read {parts_of(last)[0]}" in found.stderr.splitlines()[-1]
    assert Run(parts).checkpoints() == [before, last]
