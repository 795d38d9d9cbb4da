"""Loads an exported model with diffusers alone and draws a grid of images.

multistage export runs/demo pipelines/demo --to diffusers
python examples/diffusers_grid.py pipelines/demo grid.png
"""

import sys

import torch
from diffusers import DiffusionPipeline
from diffusers.utils import make_image_grid

COUNT, COLUMNS = 64, 8


def main(folder: str, out: str) -> None:
    """Draws 64 images with the seeds 0 to 63.

    Args:
        folder: an exported pipeline, or its name on the hub.
        out: the picture to write.
    """
    pipe = DiffusionPipeline.from_pretrained(folder, custom_pipeline=folder, trust_remote_code=True)
    sources = [torch.Generator().manual_seed(seed) for seed in range(COUNT)]
    images = pipe(generator=sources, num_inference_steps=18).images
    make_image_grid(images, COUNT // COLUMNS, COLUMNS).save(out)


if __name__ == "__main__":
    main(*sys.argv[1:])
