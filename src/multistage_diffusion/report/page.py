"""Runs, or a study, as one HTML page without external files."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2

from multistage_diffusion.errors import BadInput
from multistage_diffusion.report import colours
from multistage_diffusion.report.comparison import compare
from multistage_diffusion.report.section import section_of
from multistage_diffusion.report.study import study_section
from multistage_diffusion.run import Run
from multistage_diffusion.study.stored import is_study

__all__ = ["is_report", "render"]

MARK = "multistage diffusion</title>"


def render(folders: Sequence[Path]) -> str:
    """The page about the runs in these folders, or about the study in one.

    Raises:
        BadInput: if a folder holds neither, a file of it is damaged, or a study is not alone.
    """
    if not any(map(is_study, folders)):
        return _runs_page(folders)
    if len(folders) > 1:
        raise BadInput(f"{folders[0]}: a study has a page of its own; name it alone.")
    return _page("study.html", study=study_section(folders[0]))


def _runs_page(folders: Sequence[Path]) -> str:
    sections = [section_of(Run(folder), f"run-{k}") for k, folder in enumerate(folders, 1)]
    together = compare(sections) if len(sections) > 1 else None
    return _page("runs.html", sections=sections, together=together)


def _page(template: str, **content: Any) -> str:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("multistage_diffusion.report"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template(template).render(colours=colours, **content)


def is_report(path: Path) -> bool:
    """Whether a file is a report that ``render`` made."""
    return path.is_file() and MARK in path.read_text(errors="replace")
