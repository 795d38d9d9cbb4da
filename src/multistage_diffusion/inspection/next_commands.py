"""The commands that come next, to be copied into a terminal."""

import os
import re
import shlex
from dataclasses import fields
from pathlib import PurePath
from typing import Any

from multistage_diffusion.data.options import ReadOptions
from multistage_diffusion.inspection.proposal import Proposal
from multistage_diffusion.text import printable

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
    return [" ".join(map(_quoted, ["multistage", *command])) for command in commands]


def _quoted(word: str) -> str:
    """A word for a shell; what cannot be shown is written as bash and zsh read it."""
    if printable(word) == word:
        return shlex.quote(word)
    return "$'" + "".join(map(_escaped, os.fsencode(word))) + "'"


def _escaped(byte: int) -> str:
    plain = chr(byte).isascii() and chr(byte).isprintable() and chr(byte) not in "'\\"
    return chr(byte) if plain else f"\\x{byte:02x}"


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
        if value != getattr(plain, field.name):
            words += _typed(f"--{field.name.replace('_', '-')}", value)
    return words


def _typed(option: str, value: Any) -> list[str]:
    """An option with its value, as words."""
    if value is True:
        return [option]
    if isinstance(value, tuple):
        is_square = option == "--size" and len(set(value)) == 1
        return [option, *map(str, value[:1] if is_square else value)]
    # a text that begins like an option must be joined to its own
    return [f"{option}={value}"] if str(value).startswith("-") else [option, str(value)]
