"""Energy counters of a machine made of files."""

from pathlib import Path

import pytest

from multistage_diffusion.training.monitoring.energy import (
    Counter,
    EnergyMeter,
    processor_counters,
)


def zone(folder: Path, name: str, label: str, microjoules: int) -> Path:
    """A RAPL zone whose counter begins again after 100 J."""
    path = folder / name
    path.mkdir(parents=True)
    (path / "name").write_text(f"{label}\n")
    (path / "max_energy_range_uj").write_text("100000000\n")
    (path / "energy_uj").write_text(f"{microjoules}\n")
    return path


def test_packages_are_added_and_zones_within_them_are_not(tmp_path: Path) -> None:
    first = zone(tmp_path, "intel-rapl:0", "package-0", 10_000_000)
    second = zone(tmp_path, "intel-rapl:1", "package-1", 0)
    core = zone(tmp_path, "intel-rapl:0:0", "core", 0)
    system = zone(tmp_path, "intel-rapl:2", "psys", 0)
    meter = EnergyMeter(processor_counters(tmp_path))
    for path, microjoules in ((first, 12_500_000), (second, 3_000_000), (core, 9), (system, 9)):
        (path / "energy_uj").write_text(str(microjoules))
    assert meter.passed() == pytest.approx(5.5)
    assert meter.passed() == 0


def test_a_counter_may_begin_again() -> None:
    values = iter([90.0, 5.0])
    counter = Counter(lambda: next(values), range=100.0)
    assert [counter.passed(), counter.passed()] == [0, 15]


@pytest.mark.parametrize("broken", ["energy_uj", "name", "max_energy_range_uj"])
def test_a_machine_that_does_not_tell_counts_nothing(tmp_path: Path, broken: str) -> None:
    (zone(tmp_path, "intel-rapl:0", "package-0", 10) / broken).unlink()
    assert processor_counters(tmp_path) == processor_counters(tmp_path / "none") == []
