"""The command line. A command is a file in ``commands``; this package finds and runs it."""

from multistage_diffusion.cli.main import entry, main, parse

__all__ = ["entry", "main", "parse"]
