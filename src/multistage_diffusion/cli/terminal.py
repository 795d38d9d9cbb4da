"""What commands print. Of several processes only rank 0 prints."""

import json
import sys
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from multistage_diffusion.distributed import is_main_process
from multistage_diffusion.text import one_line, printable

__all__ = ["print_line", "print_note", "print_settings", "print_table", "print_warning"]

WIDTH_WITHOUT_TERMINAL = 200


def print_line(text: str) -> None:
    """Prints a line of results, at once even into a pipe. Control characters are written out."""
    if is_main_process():
        print(printable(text), flush=True)


def print_note(text: str) -> None:
    """Prints a line that is no result, on standard error."""
    if is_main_process():
        print(one_line(text), file=sys.stderr, flush=True)


def print_warning(text: str) -> None:
    """Prints a line about something valid but probably unintended, on standard error."""
    print_note(f"multistage: warning: {text}")


def print_settings(settings: object) -> None:
    """Prints the resolved settings of a dry run."""
    if is_main_process():
        print(json.dumps(settings, indent=1), flush=True)


def print_table(
    headings: Sequence[str], rows: Sequence[Sequence[str]], texts: Sequence[str] = ()
) -> None:
    """Prints a table.

    Args:
        headings: of the columns; the first one holds names.
        rows: the cells.
        texts: headings of other columns that hold no numbers.
    """
    if not is_main_process():
        return
    table = Table(box=None, header_style="bold", pad_edge=False)
    for index, heading in enumerate(headings):
        justify = "left" if index == 0 or heading in texts else "right"
        shown = Text(printable(heading))
        table.add_column(shown, justify=justify, no_wrap=True)  # type: ignore[arg-type]
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in row))
    console = Console()
    console.width = console.width if console.is_terminal else WIDTH_WITHOUT_TERMINAL
    with console.capture() as captured:
        console.print(table)
    for line in captured.get().splitlines():
        print(line.rstrip())
    sys.stdout.flush()
