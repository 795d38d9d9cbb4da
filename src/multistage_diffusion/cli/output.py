"""What the commands print and the rule by which they write."""

import json
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from multistage_diffusion.cli.terminal import say
from multistage_diffusion.distributed import is_main_process
from multistage_diffusion.errors import BadInput

__all__ = ["claim", "show_plan", "table"]


def claim(path: Path, content: bytes) -> None:
    """Says whether ``content`` may be written to ``path``: the file is new, or has this content already.

    Raises:
        BadInput: if the path holds something else.
    """
    if path.is_dir() or (path.exists() and path.read_bytes() != content):
        raise BadInput(
            f"{path} exists and holds something else; choose another --out or remove it."
        )


def show_plan(settings: object) -> None:
    """The resolved settings of a dry run."""
    say(json.dumps(settings, indent=1))


def table(
    headings: Sequence[str], rows: Sequence[Sequence[str]], texts: Sequence[str] = ()
) -> None:
    """A table on standard output, from the first of several processes.

    Args:
        headings: of the columns; the first one holds names.
        rows: the cells.
        texts: headings of other columns that hold no numbers.
    """
    if not is_main_process():
        return
    shown = Table(box=None, header_style="bold", pad_edge=False)
    for index, heading in enumerate(headings):
        shown.add_column(
            heading, justify="left" if index == 0 or heading in texts else "right", no_wrap=True
        )
    for row in rows:
        shown.add_row(*row)
    console = Console()
    console.width = console.width if console.is_terminal else 200
    console.print(shown)
