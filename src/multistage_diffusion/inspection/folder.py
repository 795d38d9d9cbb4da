"""The folder of an inspection: a contact sheet, the findings as JSON, and lists of images."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from multistage_diffusion.data.options import ReadOptions
from multistage_diffusion.data.png import save_png
from multistage_diffusion.files import read_json, write_atomically, write_json
from multistage_diffusion.inspection.contact_sheet import contact_sheet
from multistage_diffusion.inspection.findings import Findings
from multistage_diffusion.inspection.next_commands import reading_arguments
from multistage_diffusion.run import claim
from multistage_diffusion.text import printable

__all__ = ["InspectionFolder"]


@dataclass(frozen=True)
class InspectionFolder:
    """The files of an inspection."""

    path: Path

    @property
    def result(self) -> Path:
        """The findings as JSON."""
        return self.path / "inspection.json"

    def check(self, name: str) -> None:
        """Checks that the folder is free or holds an earlier inspection of the same data.

        Raises:
            BadInput: if it holds anything else.
        """
        problem = f"holds no inspection of {name}"
        claim(self.path, problem, lambda _: self._inspects(name), folder=True)

    def _inspects(self, name: str) -> bool:
        earlier = read_json(self.result) if self.result.is_file() else None
        return isinstance(earlier, dict) and earlier.get("data") == name

    def write(self, found: Findings) -> None:
        """Writes the findings; lists that would be empty are removed."""
        self._write_list("broken.txt", found.broken_lines())
        self._write_list("duplicates.txt", found.duplicate_lines())
        sheet = contact_sheet(found.survey.shown, _title(found))
        save_png(self.path / "contact-sheet.png", sheet)
        write_json(self.result, {"data": found.survey.name, **found.to_json()})

    def _write_list(self, name: str, lines: Sequence[str]) -> None:
        path = self.path / name
        if lines:
            write_atomically(path, "".join(f"{printable(line)}\n" for line in lines).encode())
        else:
            path.unlink(missing_ok=True)


def _title(found: Findings) -> str:
    """The title of the contact sheet."""
    survey = found.survey
    if not survey.options.size:
        return f"{len(survey.shown)} of the {len(survey.names):,} images of {survey.name}"
    size = " ".join(reading_arguments(ReadOptions(size=survey.options.size)))
    return (
        f"some images of {survey.name}: in a frame what {survey.options.fit} keeps, beside it what "
        f"{size} and each --fit make of them"
    )
