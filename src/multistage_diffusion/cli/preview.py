"""When ``multistage train`` writes a preview of what the network sees."""

from multistage_diffusion.cli.terminal import print_line, print_warning
from multistage_diffusion.data import Images, ReadOptions
from multistage_diffusion.distributed import is_main_process
from multistage_diffusion.errors import BadInput
from multistage_diffusion.inspection.preview import write_preview
from multistage_diffusion.run import Run
from multistage_diffusion.training.config import RunConfig
from multistage_diffusion.training.resume import check_run

__all__ = ["show_preview"]


def show_preview(
    run: Run, config: RunConfig, images: Images, reading: ReadOptions, dry_run: bool
) -> None:
    """Writes the preview of a run and prints where it is; that of a run that has begun stays.

    Raises:
        BadInput: if the run may not begin in that folder, or a file of that name is not a preview.
    """
    try:
        check_run(run, config, images)
    except BadInput as error:
        if not dry_run:
            raise
        return print_warning(str(error))
    kept = run.begun and run.preview.exists()
    unneeded = dry_run and not reading.size
    if is_main_process() and not kept and not unneeded:
        write_preview(run, images, config.data.path, reading)
        print_line(f"what the network will see: {run.preview}")
