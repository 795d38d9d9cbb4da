"""Images that are held out of training."""

import torch

from multistage_diffusion.data.images import Images
from multistage_diffusion.errors import BadInput
from multistage_diffusion.training.randomness import Stream, generator

__all__ = ["split"]


def split(images: Images, share: float, seed: int) -> tuple[Images, Images | None]:
    """The images to train on and those held out, drawn at random by the seed.

    Raises:
        BadInput: if no image would be left in a part.
    """
    if not share:
        return images, None
    count = round(share * len(images))
    if not 0 < count < len(images):
        raise BadInput(
            f"Holding out {share:g} of {len(images)} images leaves none in one part; choose "
            "another --held-out."
        )
    order = torch.randperm(len(images), generator=generator(seed, Stream.SPLIT))
    return images.at(order[count:]), images.at(order[:count])
