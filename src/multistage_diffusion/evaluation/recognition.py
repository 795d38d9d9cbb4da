"""How a classifier of the real images classifies generated ones, and whether these are copies."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from multistage_diffusion.data import Images

__all__ = ["Recognition", "recognise"]

Floats = NDArray[np.float64]
COPY_QUANTILE = 0.01


@dataclass(frozen=True)
class Recognition:
    """How well a classifier of the real images recognises generated ones."""

    real: float
    """Mean probability of its most probable class on real images it was not trained on."""
    generated: float
    """The same on generated images."""
    shares: Sequence[float]
    """Share of each class in the generated images."""
    copies: float
    """Share of generated images that are nearer to a real one than the closest 1 % of real ones are
    to another."""


def recognise(real: Images, generated: Images, folds: int = 5) -> Recognition:
    """Classifies generated images by a logistic regression on the real ones.

    Real images are classified by cross-validation.

    Args:
        real: images with labels.
        generated: images of the same shape.
        folds: of the cross-validation.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import cross_val_predict

    assert real.labels is not None
    x = _rows(real)
    made = _rows(generated)
    labels = real.labels.numpy()
    classifier = LogisticRegression(max_iter=2000)
    held_out = cross_val_predict(classifier, x, labels, cv=folds, method="predict_proba")
    probabilities = classifier.fit(x, labels).predict_proba(made)
    counts = np.bincount(probabilities.argmax(1), minlength=len(real.classes))
    return Recognition(
        real=float(held_out.max(1).mean()),
        generated=float(probabilities.max(1).mean()),
        shares=(counts / len(made)).tolist(),
        copies=_share_of_copies(made, x),
    )


def _rows(images: Images) -> Floats:
    """The pixels as rows, ``[N, C*H*W]``, in the range 0 to 16 of the digits."""
    return images.pixels[:].flatten(1).double().numpy() / 16


def _share_of_copies(made: Floats, x: Floats) -> float:
    from scipy.spatial import KDTree

    tree = KDTree(x)
    to_another = tree.query(x, k=2)[0][:, 1]
    threshold = np.quantile(to_another, COPY_QUANTILE)
    return float((tree.query(made)[0] < threshold).mean())
