"""``multistage export``: a trained model for other programs."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from multistage_diffusion.cli.terminal import print_line
from multistage_diffusion.interop.exported import export_onnx, export_program
from multistage_diffusion.report.model_card import export_pipeline

__all__ = ["COMMAND", "EXPORTERS", "Export"]

EXPORTERS: dict[str, Callable[[Path, Path], None]] = {
    "diffusers": export_pipeline,
    "onnx": export_onnx,
    "torch-export": export_program,
}
"""Functions of a run or model file and of the folder to write, by the name of the format."""

if TYPE_CHECKING:
    FormatName = str
else:  # read at run time, where the command line is parsed
    FormatName = Literal[tuple(EXPORTERS)]


@dataclass(frozen=True, kw_only=True)
class Export:
    """Write a model for other programs.

    diffusers writes the folder of a pipeline, with a model card. onnx and torch-export write one
    file for each stage: the encoder and that stage's decoder, with the preconditioning; a
    model.json beside them says which file serves which noise levels. Latent models also get a file
    that decodes their samples.
    """

    run_folder: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Folder of a run, or a model file."""
    out: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="DIR")]
    """The folder to write."""
    to: FormatName
    """The format."""

    def run(self) -> None:
        EXPORTERS[self.to](self.run_folder, self.out)
        names = sorted(str(path.relative_to(self.out)) for path in self.out.iterdir())
        print_line(f"wrote {self.out}: {', '.join(names)}")


COMMAND = Export
