"""``multistage report``: one or several runs, or a study, as a page."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from multistage_diffusion.cli.terminal import print_line, print_settings
from multistage_diffusion.config import to_json
from multistage_diffusion.errors import BadInput
from multistage_diffusion.files import write_atomically
from multistage_diffusion.report import render
from multistage_diffusion.report.page import is_report
from multistage_diffusion.run import Run, claim

__all__ = ["COMMAND", "Report"]


@dataclass(frozen=True, kw_only=True)
class Report:
    """Write one HTML page about one or several runs, also while they train, or about a study."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN...|STUDY")]
    """Folders of runs, or that of a study."""
    out: Path | None = None
    """The page. Default: report.html in the first folder. An earlier report there is replaced."""
    dry_run: bool = False
    """Print the resolved settings and stop."""

    def run(self) -> None:
        if not self.runs:
            raise BadInput("Name at least one run, or a study, to report on.")
        out = self.out or Run(self.runs[0]).report
        if self.dry_run:
            return print_settings({**to_json(self), "out": str(out)})
        page = render(self.runs)
        claim(out, "is not a report", is_report)
        write_atomically(out, page.encode(errors="replace"))
        print_line(f"wrote {out}")


COMMAND = Report
