"""Features of real images, kept between commands."""

from pathlib import Path

import filelock
from torch import Tensor

from multistage_diffusion.errors import BadInput
from multistage_diffusion.evaluation.features.extractor import (
    Extractor,
    FeaturePrecision,
    Progress,
    no_progress,
)
from multistage_diffusion.files import cache_folder, json_fingerprint
from multistage_diffusion.tensorfile import read_tensors, save_tensors

__all__ = ["reference_features"]

NOT_CACHED = "pixels"
"""An extractor that is as fast as reading its features would be."""


def reference_features(
    extractor: Extractor,
    images: Tensor,
    fingerprint: str,
    label: str = "real",
    progress: Progress = no_progress,
    precision: FeaturePrecision = "float32",
    folder: Path | None = None,
) -> Tensor:
    """Features of real images, float32 ``[N, F]``: those kept from an earlier call, if they fit.

    Args:
        extractor: from images to features.
        images: uint8 ``[N, C, H, W]``, a selection that data and ``N`` determine.
        fingerprint: of the data they are from, as it was read: size, fit and labels are part of it.
        label, progress, precision: as for ``Extractor.extract``.
        folder: where features are kept. Default: the user's cache.
    """
    if extractor.name == NOT_CACHED:
        return extractor.extract(images, label, progress, precision)
    key = [fingerprint, len(images), extractor.name, extractor.identity, precision]
    name = json_fingerprint(key)
    path = (folder or cache_folder() / "features") / f"{extractor.name}-{name}.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    # another process that wants the same features waits for them
    with filelock.FileLock(path.with_suffix(".lock")):
        kept = _read(path, len(images))
        if kept is not None:
            return kept
        features = extractor.extract(images, label, progress, precision)
        save_tensors(path, {"features": features}, {"key": key})
        return features


def _read(path: Path, count: int) -> Tensor | None:
    """The features in a file; None if there is none or it is damaged."""
    try:
        features = read_tensors(path)[0].get("features")
    except BadInput:
        return None
    return features if features is not None and len(features) == count else None
