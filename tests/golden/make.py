"""Writes ``trajectories.safetensors`` from the golden files: ``python -m tests.golden.make``.

A trajectory is that of our solver with the authors' network. The start and the final images are the
authors'; make refuses to write if ours do not equal theirs. Of the first image of each trajectory
an 8x8 crop is kept: its start and end, and the noise level, the state and the output of each call
of the denoiser.
"""

import torch
from safetensors.torch import save_file
from torch import Tensor

from multistage_diffusion.schedule import SCHEDULES
from tests.golden.files import FILES, FOLDER, Golden, assert_close, group, read_golden
from tests.golden.trajectories import FILE, Recorder, solve

CROP = slice(4, 12)


@torch.no_grad()
def main() -> None:
    kept: dict[str, Tensor] = {}
    schedules: dict[str, str] = {}
    for path in FILES:
        golden = read_golden(path)
        for name in trajectory_names(golden[2]):
            recorded = record(golden, name)
            kept |= {f"{name}.{key}": tensor for key, tensor in recorded.items()}
            schedules[name] = golden[1].schedule
    if not kept:
        raise SystemExit(f"No golden files in {FOLDER}; set GOLDEN_DIR.")
    assert set(schedules.values()) <= SCHEDULES.keys()
    save_file(kept, FILE, schedules)
    print(f"wrote {FILE}: {', '.join(schedules)}, {FILE.stat().st_size:,} bytes")  # noqa: T201


def trajectory_names(tensors: dict[str, Tensor]) -> list[str]:
    """The names of the trajectories in a golden file."""
    return sorted(name.rsplit(".", 1)[0] for name in tensors if name.endswith(".latents"))


def record(golden: Golden, name: str) -> dict[str, Tensor]:
    """The crop of a trajectory and of each call of the denoiser."""
    denoiser, config, tensors = golden
    case = group(tensors, name)
    recorder = Recorder(denoiser)
    assert_close(solve(name, config.density, recorder, case["latents"]), case["images"])
    return {
        "latents": crop(case["latents"]),
        "images": crop(case["images"]),
        "sigma": torch.tensor(recorder.sigma, dtype=torch.float64),
        "x": torch.stack([crop(x) for x in recorder.x]),
        "denoised": torch.stack([crop(denoised) for denoised in recorder.denoised]),
    }


def crop(images: Tensor) -> Tensor:
    """8x8 pixels of the first image, float32 ``[1, C, 8, 8]``."""
    return images[:1, :, CROP, CROP].to(torch.float32).contiguous()


if __name__ == "__main__":
    main()
