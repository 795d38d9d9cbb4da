"""The commands that come next, to be copied into a terminal."""

import re
import shlex
from dataclasses import fields
from pathlib import PurePath

from multistage_diffusion.data.options import ReadOptions
from multistage_diffusion.inspection.proposal import Proposal

__all__ = ["name_of", "next_commands", "reading_arguments"]


def next_commands(source: str, options: ReadOptions, proposal: Proposal, stages: bool) -> list[str]:
    """Commands for the stages and the training.

    Args:
        source: the data set.
        options: how it is read.
        proposal: the preset.
        stages: whether the data set has stages of its own; without them those of the preset are
            taken.
    """
    run = f"runs/{name_of(source)}"
    file = f"{run}/stages.json"
    data = ["--data", source, *reading_arguments(options)]
    train = [
        "train",
        proposal.name,
        *data,
        *(("--stages", file) if stages else ()),
        *proposal.options,
        "--out",
        run,
    ]
    commands = [["cluster", *data, "--out", file], train] if stages else [train]
    return [shlex.join(["multistage", *command]) for command in commands]


def name_of(source: str) -> str:
    """A name for files made from a data set.

    It is the last part of its path, without its suffix and what a shell would interpret.
    """
    path = PurePath(source)
    name = path.name if path.suffix.lower() in ("", ".d") else path.name.split(".")[0]
    return re.sub(r"[^\w.-]+", "-", name).strip("-.") or "data"


def reading_arguments(options: ReadOptions) -> list[str]:
    """Reading options as they are typed, those that are not the defaults."""
    plain, words = ReadOptions(), list[str]()
    for field in fields(options):
        value = getattr(options, field.name)
        if value == getattr(plain, field.name):
            continue
        words.append(f"--{field.name.replace('_', '-')}")
        if field.name == "size" and len(set(value)) == 1:
            value = value[:1]
        words += (
            [str(part) for part in value]
            if isinstance(value, tuple)
            else []
            if value is True
            else [str(value)]
        )
    return words
