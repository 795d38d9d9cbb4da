"""``python -m multistage_diffusion``."""

from multistage_diffusion.cli import entry

if __name__ == "__main__":  # not in workers that import it
    entry()
