import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

from multistage_diffusion.data import Images
from multistage_diffusion.errors import BadInput
from multistage_diffusion.latents import decode, encode, find_autoencoder, load_autoencoder
from multistage_diffusion.latents.linear import LinearPatches


@pytest.mark.parametrize("name", ["pca-f1c3", "pca-f2c12", "pca-f4c48", "identity"])
def test_nothing_is_lost_where_nothing_is_cut_off(colours: Images, name: str) -> None:
    autoencoder = find_autoencoder(name, colours)
    assert autoencoder.lossless
    assert torch.equal(
        decode(autoencoder, encode(autoencoder, colours.pixels[:]).mean), colours.pixels[:]
    )


def test_axes_are_the_principal_components(colours: Images) -> None:
    fitted = LinearPatches.fit("pca-f2c5", colours)
    values = colours.pixels[:].double() / 127.5 - 1
    patches = torch.nn.functional.pixel_unshuffle(values, 2).movedim(1, -1).flatten(0, 2).numpy()
    oracle = PCA(5).fit(patches)
    cosines = np.abs((fitted.basis.double().numpy() * oracle.components_).sum(1))
    np.testing.assert_allclose(cosines, 1, atol=1e-6)
    encoded = fitted.encode(values.float()).mean.movedim(1, -1).flatten(0, 2)
    variances = encoded.double().var(0, correction=1).numpy()
    np.testing.assert_allclose(variances, oracle.explained_variance_, rtol=1e-4)


def test_more_channels_lose_less(colours: Images) -> None:
    errors = []
    for channels in (1, 3, 6, 12):
        autoencoder = find_autoencoder(f"pca-f2c{channels}", colours)
        back = decode(autoencoder, encode(autoencoder, colours.pixels[:]).mean)
        errors.append(float((back.float() - colours.pixels[:].float()).square().mean()))
    assert errors == sorted(errors, reverse=True)
    assert errors[0] > errors[1] > 0


def test_it_is_found_again_from_what_identifies_it(colours: Images) -> None:
    fitted = LinearPatches.fit("pca-f2c5", colours)
    again = load_autoencoder(fitted.info)
    images = colours.pixels[:].float() / 127.5 - 1
    assert torch.equal(again.encode(images).mean, fitted.encode(images).mean)
    assert again.info == fitted.info


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("pca-f2c13", "12 values"),
        ("pca-f2c0", "1 to 12"),
        ("pca-f3c4", "no multiples of 3"),
        ("pca-f0c4", "at least 1"),
    ],
)
def test_sizes_that_do_not_fit(colours: Images, name: str, words: str) -> None:
    with pytest.raises(BadInput, match=words):
        find_autoencoder(name, colours)
