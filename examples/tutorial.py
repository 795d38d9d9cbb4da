"""The five steps of docs/tutorial.md: python examples/tutorial.py DATA RUN [OPTIONS]

    python examples/tutorial.py emoji runs/emoji --size 32 --images 100000 --no-flip

DATA is what every command takes as ``--data``, RUN the folder of the run. Options that ``--help``
does not list are given to ``plan`` and ``train``. Each command is shown before it is run, and the
first that fails ends the script with its exit code. The same command again continues.
"""

import argparse
import shlex
import sys
from collections.abc import Sequence

from multistage_diffusion.cli import main


def steps(words: Sequence[str]) -> list[list[str]]:
    """The commands of the tutorial as their words, in order."""
    parser = argparse.ArgumentParser()
    parser.add_argument("data", help="images: a folder, an archive, a table")
    parser.add_argument("run", help="folder of the run")
    parser.add_argument("--size", default="32", help="height and width of the images")
    parser.add_argument("--images", default="100000", help="length of training")
    parser.add_argument("--samples", default="500", help="images to draw")
    parser.add_argument("--extractor", default="efficientnet-lite0-112", help="of evaluate")
    chosen, network = parser.parse_known_args(words)
    data = ["--data", chosen.data, "--size", chosen.size]
    stages, drawn = f"{chosen.run}/stages.json", f"{chosen.run}/samples"
    length = ["--images", chosen.images]
    return [
        ["data", "inspect", chosen.data, "--size", chosen.size],
        ["cluster", *data, "--out", stages],
        ["plan", "small", "--stages", stages, *length, *network],
        ["train", "small", *data, "--stages", stages, "--out", chosen.run, *length, *network],
        ["sample", chosen.run, "--images", chosen.samples, "--solver", "dpmpp-2m", "--steps", "20"],
        [
            "evaluate",
            drawn,
            *data,
            "--extractor",
            chosen.extractor,
            "--metric",
            "fd",
            "memorisation",
        ],
        ["report", chosen.run],
    ]


def run(words: Sequence[str]) -> int:
    """Runs the commands and returns the exit code of the last one."""
    for step in steps(words):
        print("$ multistage", shlex.join(step), flush=True)
        if code := main(step):
            return code
    return 0


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
