"""The training loop of an autoencoder: a generator of records.

The folder of a run is one that diffusers' ``from_pretrained`` reads: averaged weights. Beside them,
in its folder ``training``, are the configuration, the records and the state to continue from. The
loop itself, the order of the images, randomness, held-out images, optimizer, averages and reduction
over processes are those of the training of denoisers.
"""

import copy
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from multistage_diffusion import distributed
from multistage_diffusion.config import fixed_settings, read_config, to_json
from multistage_diffusion.data.augment import mirror
from multistage_diffusion.data.images import Images
from multistage_diffusion.data.png import grid_image, save_png
from multistage_diffusion.errors import BadInput
from multistage_diffusion.files import write_json
from multistage_diffusion.run import claim
from multistage_diffusion.space import PIXELS
from multistage_diffusion.training.autoencoder.config import (
    AutoencoderRun,
    averaging,
    optimization,
)
from multistage_diffusion.training.autoencoder.discriminator import Critic
from multistage_diffusion.training.autoencoder.network import (
    Reconstruction,
    build_network,
    reconstruct,
)
from multistage_diffusion.training.autoencoder.record import (
    AutoencoderRecord,
    Quality,
    measure_quality,
)
from multistage_diffusion.training.autoencoder.state import Part, load_state, save_state
from multistage_diffusion.training.batches.held_out import split
from multistage_diffusion.training.batches.order import image_indices
from multistage_diffusion.training.batches.sharing import share_out
from multistage_diffusion.training.distributed.gradients import GradientReducer
from multistage_diffusion.training.ema.averages import ema_decay
from multistage_diffusion.training.monitoring.lines import append_line, drop_lines_after
from multistage_diffusion.training.optimization import make_optimizer
from multistage_diffusion.training.precision import dtype_of, rounding_of
from multistage_diffusion.training.randomness import Stream, generator, seed_globally
from multistage_diffusion.training.session import Session

__all__ = ["Perceptual", "check_folder", "train_autoencoder", "training_file"]

HELD_OUT_IMAGES = 256
SHOWN = 8
STATE = "state.safetensors"

Perceptual = Callable[[Tensor, Tensor], Tensor]
"""A distance of two batches of images, -1 to 1, as a scalar."""


def training_file(out: Path, name: str) -> Path:
    """A file beside the autoencoder that belongs to its training."""
    return out / "training" / name


def check_folder(out: Path, config: AutoencoderRun) -> None:
    """Checks that a folder is free or holds this run, up to settings that may change.

    Raises:
        BadInput: if it holds anything else.
    """
    path = training_file(out, "config.json")
    claim(out, "holds other files", lambda _: path.exists(), folder=True)
    if not path.exists():
        return
    old = read_config(AutoencoderRun, path)
    before, now = fixed_settings(old), fixed_settings(config)
    if before["data"] != now["data"]:
        raise BadInput(f"{out} holds a run on other images; choose another --out.")
    if before != now:
        raise BadInput(f"{out} holds a run with another configuration; choose another --out.")


def train_autoencoder(
    config: AutoencoderRun,
    images: Images,
    out: Path,
    should_stop: Callable[[], bool] = lambda: False,
    perceptual: Perceptual | None = None,
    device: torch.device | str = "cpu",
) -> Generator[AutoencoderRecord, None, None]:
    """Trains until ``images`` images have been seen; continues from the state in ``out``.

    Args:
        config: the run.
        images: pixels.
        out: the folder of the autoencoder.
        should_stop: called after every step; if true, the state is written and the generator ends.
        perceptual: a distance that is added to the loss, where its weight is not 0.
        device: where to train.

    Raises:
        BadInput: if the folder holds something else, or diffusers is not installed.
    """
    check_folder(out, config)
    distributed.barrier()  # all ranks have looked at the folder before rank 0 writes to it
    with rounding_of(config.preset.training.precision):
        session = _Session(config, images, out, perceptual, torch.device(device))
        yield from session.records(should_stop)


@dataclass(frozen=True, kw_only=True)
class _Seen:
    """What is read of a record."""

    images: int


class _Session(Session[AutoencoderRecord]):
    """The training of an autoencoder."""

    def __init__(
        self,
        config: AutoencoderRun,
        images: Images,
        out: Path,
        perceptual: Perceptual | None,
        device: torch.device,
    ) -> None:
        training = config.preset.training
        super().__init__(
            training.images,
            training.batch_size,
            training.record_images,
            training.checkpoint_images,
        )
        self.config, self.out, self.device = config, out, device
        self.settings, self.loss = training, config.preset.loss
        self.perceptual = perceptual
        self.kept, held_out = split(images, self.settings.held_out, self.settings.seed)
        assert held_out is not None
        self.held_out = held_out.pixels[: min(HELD_OUT_IMAGES, len(held_out))]
        seed_globally(self.settings.seed, Stream.WEIGHTS)
        self.network: Any = build_network(config.preset.network, config.shape).to(device)
        self.average: Any = copy.deepcopy(self.network).eval().requires_grad_(False)
        self.critic = Critic(config, device) if self.loss.discriminator else None
        self.optimizer = make_optimizer(optimization(self.settings), [self.network], None)
        self.reducer = GradientReducer(self.network.parameters())
        self._seen = load_state(training_file(out, STATE), self._parts())
        self._restart()
        if distributed.is_main_process():
            stats = training_file(out, "stats.jsonl")
            if stats.exists():
                drop_lines_after(_Seen, stats, self.seen)
            write_json(training_file(out, "config.json"), to_json(config))

    def _restart(self) -> None:
        """Begins the sums of the next record."""
        self.sums = torch.zeros(3, device=self.device)
        self.begun, self.first = time.monotonic(), self.seen
        codes = self.config.preset.network.codes
        self.used = torch.zeros(codes, dtype=torch.bool, device=self.device)

    @property
    def seen(self) -> int:
        return self._seen

    def step(self) -> None:
        images, share = self._batch()
        seed_globally(self.settings.seed, Stream.NOISE, self.seen, distributed.rank())
        self.optimizer.zero_grad(set_to_none=True)
        found = self._reconstruction(images)
        error = (found.images - images).abs().mean()
        critic = self.critic if self.seen >= self.loss.discriminator_start else None
        (self._objective(found, images, error, critic) * share).backward()
        self.reducer.reduce("all")
        finite = self._update()
        if critic is not None:
            critic.learn(images, found.images.detach(), share)
        if found.codes is not None:
            self.used[found.codes.flatten()] = True
        self.sums += torch.stack([error.detach(), found.penalty.detach(), 1 - finite])
        self._count()

    def _reconstruction(self, images: Tensor) -> Reconstruction:
        """The outputs of the network, in the precision of the run."""
        dtype = dtype_of(self.settings.precision)
        with torch.autocast(self.device.type, dtype, enabled=dtype != torch.float32):
            return reconstruct(self.network, images, self.config.preset.network.kind, self.loss)

    def _objective(
        self, found: Reconstruction, images: Tensor, error: Tensor, critic: Critic | None
    ) -> Tensor:
        """The loss: the absolute error, and the weighted terms that are switched on."""
        objective = error + found.penalty
        if self.perceptual is not None and self.loss.perceptual:
            objective = objective + self.loss.perceptual * self.perceptual(found.images, images)
        if critic is not None:
            objective = objective + self.loss.discriminator * critic.realism(found.images)
        return objective

    def _batch(self) -> tuple[Tensor, float]:
        """The images of the next batch that are this rank's, -1 to 1, and their share of it."""
        settings = self.settings
        size = settings.batch_size
        chosen = image_indices(settings.seed, len(self.kept), self.seen, size)
        source = generator(settings.seed, Stream.STEP, self.seen)
        mirrored = torch.rand(size, generator=source) < (0.5 if settings.flip else 0.0)
        rows = share_out(torch.ones(size), distributed.world_size(), 1)[distributed.rank()][0]
        images = PIXELS.encode(self.kept.pixels[chosen[rows]].to(self.device))
        return mirror(images, mirrored[rows]), len(rows) / size

    def _update(self) -> Tensor:
        """A step of the optimizer, unless the gradient is not finite; returns 1, or 0 then."""
        rate = self.settings.learning_rate
        ramp = (self.seen + self.settings.batch_size) / max(1, self.settings.warmup_images)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * min(1.0, ramp)
        limit = self.settings.clip_norm or torch.inf
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), limit)
        if not norm.isfinite():
            return torch.zeros((), device=self.device)
        self.optimizer.step()
        return torch.ones((), device=self.device)

    @torch.no_grad()
    def _count(self) -> None:
        self._seen += self.settings.batch_size
        decay = ema_decay(averaging(self.settings), self.seen, self.settings.batch_size)
        ours, theirs = list(self.average.parameters()), list(self.network.parameters())
        torch._foreach_lerp_(ours, theirs, 1 - decay)

    def record(self) -> AutoencoderRecord:
        steps = (self.seen - self.first) / self.settings.batch_size
        error, penalty, skipped = (self.sums / steps).tolist()
        quality = measure_quality(self.average, self.held_out, self.device)
        has_codes = self.config.preset.network.kind == "vq"
        record = AutoencoderRecord(
            images=self.seen,
            error=error,
            penalty=penalty,
            psnr=quality.psnr,
            ssim=quality.ssim,
            codes=float(self.used.float().mean()) if has_codes else None,
            images_per_second=(self.seen - self.first) / (time.monotonic() - self.begun),
            skipped=round(skipped * steps),
        )
        if distributed.is_main_process():
            append_line(training_file(self.out, "stats.jsonl"), record)
            self._draw(quality)
        self._restart()
        return record

    def _draw(self, quality: Quality) -> None:
        """A picture of originals above their reconstructions."""
        shown = torch.cat([self.held_out[:SHOWN], quality.reconstructed[:SHOWN]])
        path = training_file(self.out, "reconstructions.png")
        save_png(path, grid_image(shown, columns=min(SHOWN, len(self.held_out))))

    def save_checkpoint(self, final: bool) -> None:  # noqa: ARG002
        if distributed.is_main_process():
            self.average.save_pretrained(self.out)  # for diffusers
            save_state(training_file(self.out, STATE), self._parts(), self.seen)
        distributed.barrier()

    def _parts(self) -> dict[str, Part]:
        """What the state consists of."""
        parts: dict[str, Part] = {
            "network": (self.network, self.optimizer),
            "average": (self.average, None),
        }
        if self.critic is not None:
            parts["critic"] = (self.critic.network, self.critic.optimizer)
        return parts
