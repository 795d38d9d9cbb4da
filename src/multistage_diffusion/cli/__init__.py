"""The command line. Each command is a file; this one names them and turns errors into exit codes.

Exit codes: 0 done; 2 something the user can mend, said in one line; 130 interrupted (training leaves a checkpoint).
"""

import contextlib
import errno
import io
import re
import sys
from collections.abc import Mapping, Sequence
from inspect import cleandoc
from typing import Annotated, Any, Union

import tyro

from multistage_diffusion.cli.commands.cluster import Cluster
from multistage_diffusion.cli.commands.convert import Convert
from multistage_diffusion.cli.commands.demo import Demo
from multistage_diffusion.cli.commands.ema import Ema
from multistage_diffusion.cli.commands.evaluate import Evaluate
from multistage_diffusion.cli.commands.inspect import Inspect
from multistage_diffusion.cli.commands.plan import Plan
from multistage_diffusion.cli.commands.report import Report
from multistage_diffusion.cli.commands.sample import Sample
from multistage_diffusion.cli.commands.train import Train
from multistage_diffusion.errors import BadInput
from multistage_diffusion.presets import ABOUT_PRESETS, PRESETS
from multistage_diffusion.training import Diverged

__all__ = ["entry", "main", "parse"]

INTERRUPTED = 130
DISK_ERRORS = {
    errno.EACCES,
    errno.ENOENT,
    errno.EPERM,
    errno.EROFS,
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EFBIG,
    errno.EIO,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.EEXIST,
}

OTHERS = (Cluster, Sample, Evaluate, Report, Ema, Convert, Demo)
Command = Cluster | Inspect | Plan | Train | Sample | Evaluate | Report | Ema | Convert | Demo
ABOUT = "Diffusion models with one shared encoder and one decoder for each stage of noise."


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code."""
    try:
        return parse(arguments).run() or 0
    except KeyboardInterrupt:
        print("multistage: interrupted", file=sys.stderr)
        return INTERRUPTED
    except (BadInput, Diverged) as error:
        problem = str(error)
    except OSError as error:
        if error.errno not in DISK_ERRORS:
            raise
        problem = f"Cannot write or read {error.filename}: {error.strerror}."
    print(f"multistage: {' '.join(problem.split())}", file=sys.stderr)
    return 2


def entry() -> None:
    """The console command."""
    sys.exit(main())


def parse(arguments: Sequence[str] | None) -> Command:
    """A command with its settings.

    Raises:
        BadInput: if the arguments cannot be read or a setting is out of its range.
        SystemExit: with code 0 after ``--help``.
    """
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            return tyro.cli(_commands(), prog="multistage", description=ABOUT, args=arguments)
    except SystemExit as error:
        if not error.code:
            raise
        raise BadInput(_one_line(said.getvalue())) from None


def _one_line(box: str) -> str:
    """The text of tyro's error box without its frame."""
    lines = [line.strip(" |│╭╮╰╯─-+") for line in box.splitlines()]
    return re.sub(
        r"(Value error )?Error parsing \S*__\S*: ", "", " ".join(line for line in lines if line)
    )


def _commands() -> type[Command]:
    """The commands as a union, which is what tyro reads; ``data``, ``plan`` and ``train`` have subcommands in turn."""
    plans = {name: Plan(preset=preset) for name, preset in PRESETS.items()}
    trainings = {
        name: Train(data=tyro.MISSING, out=tyro.MISSING, preset=preset)
        for name, preset in PRESETS.items()
    }
    plan = _nested("plan", Plan.__doc__ or "", plans, ABOUT_PRESETS)
    train = _nested("train", Train.__doc__ or "", trainings, ABOUT_PRESETS)
    inspect = {"inspect": Inspect(data=tyro.MISSING)}
    data = _nested(
        "data", "Look at a data set.", inspect, {"inspect": cleandoc(Inspect.__doc__ or "")}
    )
    others = [
        Annotated[kind, tyro.conf.subcommand(kind.__name__.lower(), prefix_name=False)]
        for kind in OTHERS
    ]
    union: type[Command] = Union[data, others[0], plan, train, *others[1:]]  # type: ignore[assignment]
    return union


def _nested(
    name: str, about: str, defaults: Mapping[str, Command], descriptions: Mapping[str, str]
) -> Any:
    """A command with subcommands, such as one for each preset."""
    inner = tyro.extras.subcommand_type_from_defaults(defaults, descriptions, prefix_names=False)
    return Annotated[inner, tyro.conf.subcommand(name, description=about, prefix_name=False)]
