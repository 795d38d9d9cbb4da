"""A run folder."""

from pathlib import Path

from multistage_diffusion.errors import BadInput

__all__ = ["find_model"]


def find_model(run: Path) -> Path:
    """The model file of a run: the final one, else that of the latest checkpoint; or the file itself.

    Raises:
        BadInput: if there is none.
    """
    if run.is_file():
        return run
    final = run / "model.safetensors"
    files = [final] if final.exists() else sorted(run.glob("checkpoints/*/model.safetensors"))
    if not files:
        raise BadInput(
            f"{run} holds no model: neither model.safetensors nor a checkpoint (multistage train makes them)."
        )
    return files[-1]
