"""The environment variables that torchrun and other launchers set for each process."""

import os

from multistage_diffusion.errors import BadInput

__all__ = ["check_launcher"]

SIZES = ("WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_PORT")
RANKS = ("RANK", "LOCAL_RANK")
NEEDED = ("RANK", "MASTER_ADDR", "MASTER_PORT")


def check_launcher() -> None:
    """Raises BadInput if the variables contradict each other or are no numbers."""
    for name in (*SIZES, *RANKS):
        text = os.environ.get(name, "1" if name in SIZES else "0")
        if not text.isdecimal() or int(text) < (name in SIZES):
            raise BadInput(
                f"The environment variable {name} is {text!r}, not a number; a launcher such as "
                "torchrun sets it, otherwise unset it."
            )
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    missing = [name for name in NEEDED if name not in os.environ]
    if world_size > 1 and missing:
        raise BadInput(
            f"WORLD_SIZE is {world_size} but {missing[0]} is not set: start several processes by "
            "torchrun, or unset WORLD_SIZE."
        )
    rank = int(os.environ.get("RANK", "0"))
    if "WORLD_SIZE" in os.environ and rank >= world_size:
        raise BadInput(
            f"RANK is {rank}, but WORLD_SIZE is {world_size}, so that ranks are 0 to "
            f"{world_size - 1}: start the processes by torchrun."
        )
