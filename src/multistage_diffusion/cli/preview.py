"""The picture that ``multistage train`` leaves of what the network will see."""

from io import BytesIO
from pathlib import Path

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from multistage_diffusion.cli.terminal import print_line, print_warning
from multistage_diffusion.data import Images, ReadOptions
from multistage_diffusion.distributed import is_main_process
from multistage_diffusion.errors import BadInput
from multistage_diffusion.files import write_atomically
from multistage_diffusion.inspection import preview
from multistage_diffusion.run import Run
from multistage_diffusion.training.config import RunConfig
from multistage_diffusion.training.resume import check_run

__all__ = ["show_preview"]

TITLE = "What a network of multistage-diffusion sees"


def show_preview(
    out: Path, config: RunConfig, images: Images, reading: ReadOptions, dry_run: bool
) -> None:
    """Writes ``preview.png`` into the folder of a run and says so; that of a run that has begun stays.

    Raises:
        BadInput: if the run may not begin in that folder, or a picture of that name there is something else.
    """
    path = out / "preview.png"
    try:
        check_run(Run(out), config, images)
    except BadInput as error:
        if not dry_run:
            raise
        return print_warning(str(error))
    if (
        not is_main_process()
        or (path.exists() and (out / "config.json").exists())
        or (dry_run and not reading.size)
    ):
        return
    if path.exists() and not _is_preview(path):
        raise BadInput(f"{path} exists and is no preview of a run; choose another --out.")
    _write(path, preview(config.data.path, reading, images))
    print_line(f"what the network will see: {path}")


def _is_preview(path: Path) -> bool:
    try:
        with Image.open(path) as image:
            return image.info.get("Title") == TITLE
    except (OSError, SyntaxError, ValueError):
        return False


def _write(path: Path, image: Image.Image) -> None:
    content, info = BytesIO(), PngInfo()
    info.add_text("Title", TITLE)
    image.save(content, "PNG", pnginfo=info)
    write_atomically(path, content.getvalue())
