import os
import re
import shlex
import subprocess
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from multistage_diffusion.cli import parse
from multistage_diffusion.cli.commands.cluster import Cluster
from multistage_diffusion.cli.commands.train import Train
from multistage_diffusion.data import Images, ReadOptions
from multistage_diffusion.inspection.next_commands import name_of, next_commands, reading_arguments
from multistage_diffusion.inspection.proposal import (
    Proposal,
    Size,
    closed_form,
    enlarged,
    propose,
    propose_size,
)
from multistage_diffusion.model import build_denoiser
from multistage_diffusion.presets import PRESETS, choose_stages, configure_run
from multistage_diffusion.text import printable

READINGS = [
    ReadOptions(),
    ReadOptions(size=(64,)),
    ReadOptions(size=(48, 64), fit="pad", skip_broken=True),
    ReadOptions(size=(32, 32), labels=Path("my labels.csv"), split="test"),
    ReadOptions(label_column="fine label"),
]


@pytest.mark.parametrize(
    ("sizes", "proposed"),
    [
        ({(32, 32): 9}, None),
        ({(8, 8): 9}, None),
        ({(48, 64): 9}, None),
        ({(30, 45): 9}, (28, 44)),
        ({(512, 512): 9}, (64, 64)),
        ({(480, 640): 95, (640, 480): 5}, (48, 64)),
        ({(640, 480): 95, (640, 470): 5}, (64, 48)),
        ({(480, 640): 50, (640, 480): 50}, (64, 64)),
        ({(40, 40): 6, (500, 500): 94}, (32, 32)),
        ({(40, 40): 4, (500, 500): 96}, (64, 64)),
        ({(5, 7): 1, (6, 9): 1}, (4, 8)),
    ],
)
def test_sizes_enlarge_few_images_and_keep_a_common_shape(
    sizes: dict[Size, int], proposed: Size | None
) -> None:
    assert propose_size(Counter(sizes)) == proposed


def test_enlarged_counts_images_that_do_not_cover_a_size() -> None:
    sizes = Counter({(64, 64): 1, (63, 900): 2, (900, 63): 4, (100, 100): 8})
    assert enlarged(sizes, (64, 64)) == 6


@pytest.mark.parametrize(
    "size",
    [(8, 8), (12, 12), (16, 16), (28, 28), (32, 32), (48, 64), (64, 64), (60, 84), (128, 128)],
)
@pytest.mark.parametrize("labelled", [False, True])
def test_what_is_proposed_can_be_built_and_has_attention(size: Size, labelled: bool) -> None:
    proposal = propose((3, *size), 1000, labelled, min(size))
    (command,) = next_commands("some/data", ReadOptions(), proposal, stages=False)
    train = parse(shlex.split(command)[1:])
    assert isinstance(train, Train)
    labels = torch.arange(2) if labelled else None
    images = Images(
        torch.arange(2 * 3 * size[0] * size[1]).remainder(251).to(torch.uint8).reshape(2, 3, *size),
        labels,
        ("a", "b"),
    )
    config = configure_run(train.preset, images, choose_stages(train.preset, None), "")
    with torch.device("meta"):
        network = build_denoiser(config.model).network
    names = " ".join(name for name, _ in network.named_parameters())
    assert ("qkv" in names) == (max(size) <= 64 or "--attention-resolutions" in command)


@pytest.mark.parametrize("reading", READINGS, ids=str)
def test_reading_options_survive_being_typed(reading: ReadOptions) -> None:
    words = ["cluster", "--data", "x", *reading_arguments(reading)]
    parsed = parse(words)
    assert isinstance(parsed, Cluster)
    assert replace(parsed.reading, size=()) == replace(reading, size=())
    assert parsed.reading.height_and_width == reading.height_and_width


@pytest.mark.parametrize(
    "source", ["digits", "my photos/", "shards/{000..004}.tar", "owner/name", "a 'b'/c.tar.gz"]
)
@pytest.mark.parametrize("reading", READINGS, ids=str)
def test_commands_can_be_copied(source: str, reading: ReadOptions) -> None:
    commands = next_commands(
        source, reading, Proposal("small", ("--attention-resolutions", "16"), ()), stages=True
    )
    cluster, train = (parse(shlex.split(command)[1:]) for command in commands)
    assert isinstance(cluster, Cluster)
    assert isinstance(train, Train)
    assert cluster.data == train.data == source
    assert cluster.reading == train.reading
    assert cluster.out == train.stages
    assert train.preset.network.attention_resolutions == (16,)
    assert re.fullmatch(r"[\w.-]+", name_of(source))


@pytest.mark.parametrize("name", [b"gr\xfcn's", b"a\nb c\x1b[31m\\n", "caf\xe9".encode()])
def test_a_shell_reads_names_that_cannot_be_shown(name: bytes) -> None:
    reading = ReadOptions(label_column="-x")
    (command,) = next_commands(os.fsdecode(name), reading, Proposal("small", (), ()), False)
    assert printable(command) == command
    script = f"multistage() {{ printf '%s\\0' \"$@\"; }}; {command}"
    words = subprocess.run(["/bin/bash", "-c", script], check=True, capture_output=True).stdout
    assert words.split(b"\0")[2:5] == [b"--data", name, b"--label-column=-x"]


def test_boundaries_are_those_of_clustering_or_a_reason(few_digits: Images) -> None:
    found = closed_form(few_digits)
    assert not isinstance(found, str)
    assert len(found.stages.boundaries) == 2
    flat = Images(torch.zeros(4, 1, 8, 8, dtype=torch.uint8))
    assert isinstance(closed_form(flat), str)


def test_remarks_on_small_sets_and_on_sets_for_the_papers_network() -> None:
    few, many, large = (
        propose((3, 32, 32), n, False, side).remarks
        for n, side in ((500, 32), (50_000, 32), (500, 512))
    )
    assert "500 images need a small network" in few[0]
    assert "edm-cifar10" in many[0]
    assert any("ldm-256" in remark for remark in large)
    assert "ldm-256" in PRESETS
