"""``multistage demo``: the main job from beginning to end on the embedded digits."""

import webbrowser
from dataclasses import dataclass
from pathlib import Path

from multistage_diffusion.cli.commands.cluster import Cluster
from multistage_diffusion.cli.commands.evaluate import Evaluate
from multistage_diffusion.cli.commands.report import Report
from multistage_diffusion.cli.commands.sample import Sample
from multistage_diffusion.cli.commands.train import Train
from multistage_diffusion.cli.terminal import print_line, print_settings
from multistage_diffusion.config import Settings, replace_settings, setting, to_json
from multistage_diffusion.data import load
from multistage_diffusion.evaluation import Recognition, recognise
from multistage_diffusion.evaluation.suite import SuiteOptions
from multistage_diffusion.presets import PRESETS
from multistage_diffusion.run import Run

__all__ = ["COMMAND", "Demo"]

DATA = "digits"
METRICS = ("fd-pixels", "memorisation-pixels")
PRESET = PRESETS["digits"]
QUICK_IMAGES, QUICK_SAMPLES, QUICK_RECORDS = 6_000, 80, 1_000
SHORT = "so short a run draws noise; multistage demo without --quick draws digits"


@dataclass(frozen=True, kw_only=True)
class Demo(Settings):
    """Cluster, train, sample, evaluate and report on 1,797 handwritten digits. The same command
    again continues.
    """

    out: Path | None = None
    """Folder of the run. Default: runs/demo, or runs/demo-quick."""
    images: int = setting(PRESET.training.images, at_least=1)
    """Length of training."""
    samples: int = setting(500, at_least=1, at_most=10_000_000)
    """Images to draw."""
    quick: bool = False
    """At most 6,000 training images and 80 samples: less than a minute, to see that everything
    works. The samples are no digits yet."""
    open: bool = False
    """Open the report in a browser at the end."""
    dry_run: bool = False
    """Print the resolved settings and stop."""

    def run(self) -> int:
        if self.dry_run:
            print_settings(to_json(self))
            return 0
        run = Run(self.out or Path("runs/demo-quick" if self.quick else "runs/demo"))
        code = self._train(run) or self._measure(run)
        if self.open and not code:
            webbrowser.open(run.report.resolve().as_uri())
        return code

    def _train(self, run: Run) -> int:
        preset = replace_settings(PRESET, images=self.images)
        if self.quick:
            images = min(self.images, QUICK_IMAGES)
            preset = replace_settings(preset, images=images, record_images=QUICK_RECORDS)
        print_line("1/5 cluster")
        Cluster(data=DATA, out=run.stages).run()
        print_line("2/5 train")
        return Train(data=DATA, out=run.path, stages=run.stages, preset=preset).run()

    def _measure(self, run: Run) -> int:
        samples = min(self.samples, QUICK_SAMPLES) if self.quick else self.samples
        print_line("3/5 sample")
        Sample(run_folder=run.path, images=samples, batch_size=250).run()
        print_line("4/5 evaluate")
        Evaluate(target=run.samples, data=DATA, suite=SuiteOptions(metric=METRICS)).run()
        _print_recognition(recognise(load(DATA), load(run.samples)))
        if self.quick:
            print_line(SHORT)
        print_line("5/5 report")
        Report(runs=(run.path,)).run()
        return 0


COMMAND = Demo


def _print_recognition(found: Recognition) -> None:
    shares = " ".join(f"{share:.0%}" for share in found.shares)
    print_line(
        "a classifier of the real digits gives held-out digits a mean top probability of "
        f"{found.real:.3f},"
    )
    print_line(f"the samples {found.generated:.3f}; classes in the samples: {shares};")
    print_line(f"copies of real digits: {found.copies:.1%}")
