from pathlib import Path

import numpy as np
import pytest
import torch

from multistage_diffusion.data import load


@pytest.mark.parametrize("shape", [(5, 4, 6), (5, 4, 6, 3)])
def test_a_mapped_file_is_read_like_a_tensor(tmp_path: Path, shape: tuple[int, ...]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    np.save(tmp_path / "set.npy", pixels)
    np.savez(tmp_path / "set.npz", images=pixels)
    mapped = load(tmp_path / "set.npy")
    whole = load(tmp_path / "set.npz")
    assert mapped.shape == whole.shape
    assert mapped.fingerprint == whole.fingerprint
    assert mapped.standard_deviation == pytest.approx(whole.standard_deviation)
    slices = (slice(None), slice(1, 4), slice(0, 5, 2), slice(3, 3))
    for index in (*slices, torch.tensor([4, 0, 0]), 2, -1):
        torch.testing.assert_close(mapped.pixels[index], whole.pixels[index])
