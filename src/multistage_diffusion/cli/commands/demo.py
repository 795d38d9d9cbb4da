"""``multistage demo``: the main job from beginning to end on the embedded digits."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from multistage_diffusion.cli.commands.cluster import Cluster
from multistage_diffusion.cli.commands.evaluate import Evaluate
from multistage_diffusion.cli.commands.report import Report
from multistage_diffusion.cli.commands.sample import Sample
from multistage_diffusion.cli.commands.train import Train
from multistage_diffusion.cli.terminal import print_line, print_settings
from multistage_diffusion.config import replace_settings, to_json
from multistage_diffusion.data import Images, load
from multistage_diffusion.presets import PRESETS

__all__ = ["Demo", "Recognition", "recognise"]

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Demo:
    """Cluster, train, sample, evaluate and report on 1,797 handwritten digits. The same command again continues."""

    out: Path = Path("runs/demo")
    """Folder of the run."""
    images: int = PRESETS["digits"].training.images
    """Length of training."""
    samples: int = 500
    """Images to draw."""
    dry_run: bool = False
    """Print the resolved settings and stop."""

    def run(self) -> int:
        if self.dry_run:
            print_settings(to_json(self))
            return 0
        digits, stages = "digits", self.out / "stages.json"
        preset = PRESETS["digits"]
        preset = replace_settings(preset, images=self.images)
        print_line("1/5 cluster")
        Cluster(data=digits, out=stages).run()
        print_line("2/5 train")
        if code := Train(data=digits, out=self.out, stages=stages, preset=preset).run():
            return code
        print_line("3/5 sample")
        Sample(run_folder=self.out, images=self.samples, batch_size=250).run()
        print_line("4/5 evaluate")
        Evaluate(target=self.out / "samples", data=digits, metric="fd-pixels").run()
        _show(recognise(load(digits), load(self.out / "samples")))
        print_line("5/5 report")
        Report(runs=(self.out,)).run()
        return 0


@dataclass(frozen=True)
class Recognition:
    """What a classifier of the real images says of generated ones, and whether these are copies."""

    real: float
    """Mean probability of its most probable class on real images it was not trained on."""
    generated: float
    """The same on generated images."""
    shares: Sequence[float]
    """Share of each class in the generated images."""
    copies: float
    """Share of generated images that are nearer to a real one than the closest 1 % of real ones are to another."""


def recognise(real: Images, generated: Images, folds: int = 5) -> Recognition:
    """Judges generated images by a logistic regression on the real ones; real images are judged by cross-validation."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import cross_val_predict

    assert real.labels is not None
    x, made, labels = _rows(real), _rows(generated), real.labels.numpy()
    classifier = LogisticRegression(max_iter=2000)
    held_out = (
        cross_val_predict(classifier, x, labels, cv=folds, method="predict_proba").max(1).mean()
    )
    probabilities = classifier.fit(x, labels).predict_proba(made)
    shares = np.bincount(probabilities.argmax(1), minlength=len(real.classes)) / len(made)
    threshold = np.quantile(_nearest(x, x, itself=True), 0.01)
    copies = (_nearest(made, x) < threshold).mean()
    return Recognition(
        float(held_out), float(probabilities.max(1).mean()), shares.tolist(), float(copies)
    )


def _rows(images: Images) -> Floats:
    return images.pixels[:].flatten(1).double().numpy() / 16


def _nearest(a: Floats, b: Floats, itself: bool = False) -> Floats:
    """Distance of each row of ``a`` to the nearest row of ``b``, but for itself where both are one set."""
    from scipy.spatial import KDTree

    distances: Floats = KDTree(b).query(a, k=2 if itself else 1)[0]
    return distances[:, 1] if itself else distances


def _show(found: Recognition) -> None:
    print_line(
        f"a classifier of the real digits gives held-out digits a mean top probability of {found.real:.3f},"
    )
    print_line(
        f"the samples {found.generated:.3f}; classes in the samples: {' '.join(f'{share:.0%}' for share in found.shares)};"
    )
    print_line(f"copies of real digits: {found.copies:.1%}")


COMMAND = Demo
