"""A look at latents."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from multistage_diffusion.data import Images, ReadOptions, load
from multistage_diffusion.data.decoding import load_image
from multistage_diffusion.errors import BadInput
from multistage_diffusion.inspection.latents import (
    are_latents,
    inspect_latents,
    write_latent_inspection,
)
from multistage_diffusion.latents.prepared import cached_latents


@pytest.fixture
def folder(colours: Images) -> Path:
    return Path(cached_latents(colours, "pca-f2c12", "colours", ReadOptions()).source)


def test_histograms_and_correlation(folder: Path) -> None:
    found = inspect_latents(folder)
    values = torch.as_tensor(load(folder).pixels[:])
    assert found.histograms.sum(1) == pytest.approx([values[:, 0].numel()] * 12, rel=0.01)
    middle = np.linspace(-5, 5, 65)[:-1] + 5 / 64
    deviations = (found.histograms * middle**2).sum(1) / found.histograms.sum(1)
    np.testing.assert_allclose(deviations, 1, rtol=0.05)
    assert found.correlation < 1e-3  # principal components are uncorrelated


def test_pictures_show_decoded_images(folder: Path, colours: Images, tmp_path: Path) -> None:
    assert are_latents(str(folder))
    assert not are_latents("digits")
    out = tmp_path / "out"
    for _ in range(2):  # an earlier inspection is replaced
        write_latent_inspection(folder, inspect_latents(folder), out)
    sheet = load_image(out / "contact-sheet.png")
    assert isinstance(colours.pixels, torch.Tensor)
    first = colours.pixels[0].repeat_interleave(6, 1).repeat_interleave(6, 2)
    assert torch.equal(sheet[:, :48, :48], first)
    assert (out / "histograms.png").exists()
    result = json.loads((out / "inspection.json").read_text())
    assert result["psnr"] is None
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "note.txt").write_text("mine")
    with pytest.raises(BadInput, match="holds no inspection"):
        write_latent_inspection(folder, inspect_latents(folder), tmp_path / "mine")
