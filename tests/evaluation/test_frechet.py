from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm

from multistage_diffusion.cost import stage_costs, total_parameters
from multistage_diffusion.errors import BadInput
from multistage_diffusion.evaluation.features import find_extractor
from multistage_diffusion.evaluation.frechet import Moments, frechet_distance
from multistage_diffusion.model import ModelConfig, build_denoiser
from multistage_diffusion.networks.config import NetworkConfig
from tests.conftest import MODEL, TINY


def moments(features: np.ndarray) -> Moments:
    result = Moments.empty(features.shape[1])
    result.add(features)
    return result


def exact(mean: np.ndarray, covariance: np.ndarray, count: int = 1000) -> Moments:
    return Moments(count, mean, covariance * (count - 1))


def test_streaming_equals_batch_far_from_the_origin() -> None:
    """Sums of squares would lose everything here: the mean is 1e6 times the deviation."""
    x = np.random.default_rng(0).standard_normal((500, 6)) + 1e6
    streamed = Moments.empty(6)
    for part in np.split(x, [1, 10, 200, 499]):
        streamed.add(part)
    np.testing.assert_allclose(streamed.mean, x.mean(0), rtol=1e-12)
    np.testing.assert_allclose(streamed.covariance, np.cov(x.T), rtol=1e-6, atol=1e-6)


def test_distance_of_gaussians_with_diagonal_covariances() -> None:
    """sum (m1 - m2)^2 + (s1 - s2)^2."""
    m1, m2, s1, s2 = np.random.default_rng(0).random((4, 5))
    found = frechet_distance(exact(m1, np.diag(s1**2)), exact(m2, np.diag(s2**2)))
    assert found == pytest.approx(((m1 - m2) ** 2 + (s1 - s2) ** 2).sum(), rel=1e-9)


def test_distance_equals_the_formula_with_the_matrix_root() -> None:
    rng = np.random.default_rng(1)
    a, b = (
        rng.standard_normal((300, 5)),
        rng.standard_normal((200, 5)) @ rng.standard_normal((5, 5)) + 1,
    )
    ca, cb = np.cov(a.T), np.cov(b.T)
    expected = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(ca + cb - 2 * sqrtm(ca @ cb).real)
    assert frechet_distance(moments(a), moments(b)) == pytest.approx(expected, rel=1e-9)


def test_distance_is_zero_to_itself_symmetric_and_indifferent_to_rotation() -> None:
    rng = np.random.default_rng(2)
    a, b = rng.standard_normal((50, 4)), rng.standard_normal((60, 4)) * 2
    q, _ = np.linalg.qr(rng.standard_normal((4, 4)))
    forth = frechet_distance(moments(a), moments(b))
    assert frechet_distance(moments(a), moments(a)) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(moments(b), moments(a)) == pytest.approx(forth)
    assert frechet_distance(moments(a @ q), moments(b @ q)) == pytest.approx(forth)


def test_fewer_images_than_features_are_no_crash() -> None:
    rng = np.random.default_rng(3)
    a, b = rng.standard_normal((5, 64)), rng.standard_normal((7, 64))
    assert np.isfinite(frechet_distance(moments(a), moments(b)))


def test_one_image_has_no_covariance() -> None:
    with pytest.raises(BadInput, match="at least 2 images"):
        _ = moments(np.zeros((1, 3))).covariance


def test_pixel_features_are_the_pixels() -> None:
    images = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    torch.testing.assert_close(
        find_extractor("pixels").features(images), torch.linspace(0, 1, 256)[None]
    )


def test_pixel_features_of_large_images_are_refused() -> None:
    with pytest.raises(BadInput, match="efficientnet-lite0"):
        find_extractor("pixels").features(torch.zeros(1, 3, 64, 64, dtype=torch.uint8))


def test_efficientnet_features() -> None:
    """Grey counts as its colour copy; features tell images apart and do not depend on the batch."""
    extractor = find_extractor("efficientnet-lite0")
    assert extractor.name == "efficientnet-lite0"
    grey = torch.randint(0, 256, (2, 1, 16, 16), dtype=torch.uint8)
    features = extractor.extract(grey)
    assert features.shape == (2, 1280)
    torch.testing.assert_close(extractor.extract(grey.expand(-1, 3, -1, -1)), features)
    torch.testing.assert_close(extractor.extract(grey[:1]), features[:1], rtol=1e-3, atol=1e-3)
    assert float((features[0] - features[1]).abs().max()) > 0.1


@pytest.mark.slow
def test_cost_of_the_papers_edm_network() -> None:
    """Counted on the release: 35.75, 21.19 and 7.73 GMAC, 128,793,385 parameters, of which 9 x 128
    embed augmentation labels."""
    network = NetworkConfig(
        encoder_widths=(128,),
        decoder_widths=(192, 128, 16),
        channel_mult=(2, 2, 2),
        blocks=4,
        attention_resolutions=(16,),
    )
    config = replace(MODEL, shape=(3, 32, 32), network=network)
    assert [round(cost.macs / 1e9, 2) for cost in stage_costs(config)] == [35.75, 21.19, 7.73]
    assert total_parameters(config) + 9 * 128 == 128_793_385


def test_macs_of_a_convolution_by_hand() -> None:
    """Without blocks that can be counted by hand, the difference of two widths can: the last layer
    is 3x3, width to 1."""
    one, two = (stage_costs(_only_out(width))[0].macs for width in (4, 8))
    assert two > one
    layer = build_denoiser(_only_out(4)).network.decoders[0].out
    assert isinstance(layer, torch.nn.Conv2d)
    assert layer.weight.numel() * 64 == 9 * 4 * 64


def _only_out(width: int) -> ModelConfig:
    return replace(MODEL, boundaries=(), network=replace(TINY, decoder_widths=(width,)))


@pytest.mark.slow
def test_parameters_add_up() -> None:
    separate = replace(MODEL, network=replace(TINY, encoder_widths=(8, 6, 4)), classes=10)
    assert sum(cost.parameters for cost in stage_costs(separate)) == total_parameters(separate)
    shared = stage_costs(MODEL)
    encoder = sum(p.numel() for p in build_denoiser(MODEL).network.encoders.parameters())
    assert sum(cost.parameters for cost in shared) - 2 * encoder == total_parameters(MODEL)
