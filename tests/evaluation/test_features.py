"""Extractors: names, files, caching, precision."""

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from multistage_diffusion.errors import BadInput
from multistage_diffusion.evaluation import Extractor, find_extractor, reference_features
from multistage_diffusion.evaluation.features.inception import load_inception

pytestmark = pytest.mark.filterwarnings("ignore:.torch.(jit|onnx):DeprecationWarning")

IMAGES = torch.randint(0, 256, (5, 3, 8, 8), dtype=torch.uint8)


class Means(nn.Module):
    """Channel means; takes uint8."""

    def forward(self, images: Tensor) -> Tensor:
        return images.float().mean((2, 3))


class Inception(nn.Module):
    """The calls of NVIDIA's TorchScript file."""

    def forward(
        self, images: Tensor, return_features: bool = False, no_output_bias: bool = False
    ) -> Tensor:
        means = images.float().mean((2, 3)) / 50
        return means if return_features or not no_output_bias else means.softmax(1)


@pytest.fixture
def scripted(tmp_path: Path) -> Path:
    path = tmp_path / "means.pt"
    torch.jit.script(Means()).save(str(path))
    return path


def test_a_torchscript_file_is_an_extractor(scripted: Path) -> None:
    extractor = find_extractor(str(scripted))
    assert extractor.name == "means"
    torch.testing.assert_close(extractor.extract(IMAGES), Means()(IMAGES))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_an_onnx_file_is_an_extractor(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    path = tmp_path / "means.onnx"
    torch.onnx.export(
        Means(), (IMAGES,), str(path), input_names=["images"], dynamic_axes={"images": {0: "n"}},
        dynamo=False,
    )  # fmt: skip
    found = find_extractor(str(path)).extract(IMAGES)
    torch.testing.assert_close(found, Means()(IMAGES))


@pytest.mark.parametrize("name", ["nothing", "missing.pt", "missing.onnx"])
def test_an_unknown_extractor_is_one_line(name: str) -> None:
    with pytest.raises(BadInput, match=r"There is no (extractor|file)"):
        find_extractor(name)


def test_a_file_that_is_no_network_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "broken.pt"
    path.write_bytes(b"nothing")
    with pytest.raises(BadInput, match="no TorchScript file"):
        find_extractor(str(path))


def test_inception_gives_features_and_classes(tmp_path: Path) -> None:
    path = tmp_path / "inception.pt"
    torch.jit.script(Inception()).save(str(path))
    inception = load_inception(path)
    assert inception.features.extract(IMAGES).shape == (5, 3)
    torch.testing.assert_close(inception.probabilities.extract(IMAGES).sum(1), torch.ones(5))
    with pytest.raises(BadInput, match="no file"):
        load_inception(tmp_path / "missing.pt")


def test_features_do_not_depend_on_the_batch() -> None:
    extractor = find_extractor("efficientnet-lite0-112")
    together = extractor.extract(IMAGES)
    alone = torch.cat([extractor.extract(image[None]) for image in IMAGES])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4)


def test_bf16_features_are_close_to_float32_ones() -> None:
    extractor = find_extractor("efficientnet-lite0-112")
    exact, rounded = extractor.extract(IMAGES), extractor.extract(IMAGES, precision="bf16")
    assert rounded.dtype == torch.float32
    assert float((rounded - exact).norm() / exact.norm()) < 0.1


def test_reference_features_are_kept_for_the_same_data_and_extractor(tmp_path: Path) -> None:
    calls = []

    def features(images: Tensor) -> Tensor:
        calls.append(len(images))
        return images.flatten(1).float()

    extractor = Extractor("counting", features, 8, identity="a")
    first = reference_features(extractor, IMAGES, "data", folder=tmp_path)
    again = reference_features(extractor, IMAGES, "data", folder=tmp_path)
    assert torch.equal(first, again)
    assert calls == [5]
    reference_features(extractor, IMAGES, "other", folder=tmp_path)
    reference_features(extractor, IMAGES[:3], "data", folder=tmp_path)
    changed = Extractor("counting", features, 8, identity="b")
    reference_features(changed, IMAGES, "data", folder=tmp_path)
    reference_features(extractor, IMAGES, "data", precision="bf16", folder=tmp_path)
    assert calls == [5, 5, 3, 5, 5]


def test_two_at_once_compute_reference_features_once(tmp_path: Path) -> None:
    calls = []

    def features(images: Tensor) -> Tensor:
        calls.append(len(images))
        time.sleep(0.2)  # long enough for the other one to arrive
        return images.flatten(1).float()

    extractor = Extractor("counting", features, 8, identity="a")

    def reference(_: int) -> Tensor:
        return reference_features(extractor, IMAGES, "data", folder=tmp_path)

    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(reference, range(2))
    assert torch.equal(first, second)
    assert calls == [5]


def test_damaged_reference_features_are_made_again(tmp_path: Path) -> None:
    extractor = find_extractor("efficientnet-lite0-112")
    kept = reference_features(extractor, IMAGES, "data", folder=tmp_path)
    (path,) = tmp_path.glob("*.safetensors")
    path.write_bytes(path.read_bytes()[:100])
    assert torch.equal(reference_features(extractor, IMAGES, "data", folder=tmp_path), kept)
