"""``multistage data inspect``: what is in a data set, and how to begin."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from inspect import cleandoc
from pathlib import Path
from typing import Annotated, Any

import tyro

from multistage_diffusion.cli.discovery import subcommands
from multistage_diffusion.cli.inspection import print_findings, print_proposal
from multistage_diffusion.cli.latents import print_latents
from multistage_diffusion.cli.progress import show_progress
from multistage_diffusion.cli.terminal import print_line, print_settings
from multistage_diffusion.config import to_json
from multistage_diffusion.data import ReadOptions
from multistage_diffusion.errors import BadInput
from multistage_diffusion.inspection import Findings, InspectionFolder, conclude, survey
from multistage_diffusion.inspection.latents import (
    are_latents,
    inspect_latents,
    write_latent_inspection,
)
from multistage_diffusion.inspection.next_commands import name_of

__all__ = ["Inspect"]


@dataclass(frozen=True, kw_only=True)
class Inspect:
    """Look at every image of a data set: sizes, channels, labels, broken files, duplicates,
    statistics; and propose how to begin.

    Broken images are listed and skipped. The exit code is then 2, because cluster and train refuse
    them, unless --skip-broken is given.
    """

    data: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="PATH")]
    """Images: a folder, an archive, shards, a table, a hub id or 'digits'; see docs/data.md. Or a
    folder of latents from multistage encode."""
    out: Path | None = None
    """Folder for contact-sheet.png, inspection.json and lists. Default: inspection-NAME, named
    after the data. An earlier inspection of the same data there is replaced."""
    reading: Annotated[ReadOptions, tyro.conf.OmitArgPrefixes] = field(default_factory=ReadOptions)
    dry_run: bool = False
    """Print the resolved settings and stop."""

    def run(self) -> None:
        folder = InspectionFolder(self.out or Path(f"inspection-{name_of(self.data)}"))
        if self.dry_run:
            return print_settings({**to_json(self), "out": str(folder.path)})
        if are_latents(self.data):
            return self._latents(folder.path)
        folder.check(self.data)
        found = conclude(survey(self.data, self.reading, _progress))
        print_findings(found)
        _write(folder, found)
        print_proposal(found, with_size=not self.reading.size)
        if found.problems:
            raise BadInput("; ".join(found.problems) + ".")

    def _latents(self, out: Path) -> None:
        """Looks at a folder of latents instead."""
        found = inspect_latents(Path(self.data))
        print_latents(found.encoding, found.index)
        print_line(f"largest correlation of two channels: {found.correlation:.3f}")
        print_line(f"values beyond 5 standard deviations: at most {max(found.outside):.2%}")
        write_latent_inspection(Path(self.data), found, out)
        print_line(f"wrote {out}: contact-sheet.png (decoded), histograms.png, inspection.json")


def _progress(items: Iterable[Any], label: str, count: int) -> Iterable[Any]:
    return show_progress(items, label, count, lambda _: 1) if count else items


def _write(folder: InspectionFolder, found: Findings) -> None:
    replaced = folder.result.exists()
    folder.write(found)
    names = ", ".join(sorted(path.name for path in folder.path.iterdir()))
    verb = "replaced the earlier inspection in" if replaced else "wrote"
    print_line("")
    print_line(f"{verb} {folder.path}: {names}")


COMMAND = subcommands(
    {"inspect": Inspect(data=tyro.MISSING)},
    {"inspect": cleandoc(Inspect.__doc__ or "")},
    "Look at a data set.",
)
