"""The script for a GPU, with tiny settings on the CPU."""

import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.mark.slow
def test_every_part_of_the_gpu_report_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    import gpu

    monkeypatch.setattr(gpu, "convolution_rate", lambda _: 1e9)
    gpu.main(gpu.Settings(out=tmp_path / "gpu.md", tiny=True))
    report = (tmp_path / "gpu.md").read_text()
    for title in gpu.PARTS:
        assert f"## {title}" in report
    assert "Traceback" not in report
    assert "EXCEEDED" not in report
    assert "| digits | 8 | bf16, contiguous |" in report
    for name in ("gpu", "train", "machine"):
        sys.modules.pop(name, None)
