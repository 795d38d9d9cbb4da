"""What needs more memory than there is says so before it starts."""

from dataclasses import replace

import pytest

from multistage_diffusion import memory
from multistage_diffusion.cost import activation_bytes, evaluation_bytes
from multistage_diffusion.errors import BadInput
from multistage_diffusion.memory import check_memory, free_memory
from multistage_diffusion.model import ModelConfig, build_denoiser


def test_both_numbers_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "free_memory", lambda _: 2 * 2**30)
    check_memory(2**30, "This", "do less")
    message = r"This needs about 3\.0 GiB of memory, and 2\.0 GiB are free: do less\."
    with pytest.raises(BadInput, match=message):
        check_memory(3 * 2**30, "This", "do less")


def test_some_memory_is_free() -> None:
    assert 2**20 < free_memory() < 2**60


def test_an_evaluation_holds_more_than_its_image_and_less_than_training(
    model_config: ModelConfig,
) -> None:
    for stage in range(3):
        held = evaluation_bytes(model_config, stage)
        assert 4 * 64 < held < activation_bytes(model_config, stage)


def test_a_network_of_terabytes_is_not_built(model_config: ModelConfig) -> None:
    network = replace(model_config.network, decoder_widths=(65_536, 8, 4), channel_mult=(1, 64))
    with pytest.raises(BadInput, match=r"The network needs about .* GiB of memory, and .* free"):
        build_denoiser(replace(model_config, network=network))


def test_networks_that_take_no_memory_are_counted_where_there_is_little(
    model_config: ModelConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prices are of networks that need not fit on the machine that counts them."""
    usual = activation_bytes(model_config, 0)
    monkeypatch.setattr("multistage_diffusion.model.free_memory", lambda: 1.0)
    assert activation_bytes(model_config, 0) == usual
