"""``python -m multistage_diffusion``."""

from multistage_diffusion.cli import entry

entry()
