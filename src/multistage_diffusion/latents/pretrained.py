"""Autoencoders that are networks: diffusers' classes, and TAESD's published files.

diffusers is imported when one of its classes is needed. A hub's files are kept in its own cache.
"""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor, nn

from multistage_diffusion.errors import BadInput
from multistage_diffusion.files import read_object
from multistage_diffusion.latents.autoencoder import Autoencoder, Posterior
from multistage_diffusion.latents.tiny import TinyDecoder, TinyEncoder, find_tiny, read_state
from multistage_diffusion.space import AutoencoderInfo

__all__ = [
    "NetworkAutoencoder",
    "diffusers_library",
    "identified",
    "load_pretrained",
    "wrap_diffusers",
]

CLASSES = ("AutoencoderKL", "VQModel", "AutoencoderTiny", "AutoencoderDC")
TILED = ("AutoencoderKL", "AutoencoderTiny", "AutoencoderDC")
LARGE = 1024  # pixels a side from which images are coded in tiles


@final
class NetworkAutoencoder(Autoencoder):
    """Two functions that share a module's weights.

    Args:
        info: what identifies it.
        module: the weights.
        image_channels: channels of its images.
        encoder: images to mean and deviation of latents.
        decoder: latents to images.
        set_tiles: turns tiles on or off, where the module has them.
    """

    def __init__(
        self,
        info: AutoencoderInfo,
        module: nn.Module,
        image_channels: int,
        encoder: Callable[[Tensor], Posterior],
        decoder: Callable[[Tensor], Tensor],
        set_tiles: Callable[[bool], None] = lambda _: None,
    ) -> None:
        self.info = info
        self.module = module.eval().requires_grad_(False)
        self.image_channels = image_channels
        self._encoder = encoder
        self._decoder = decoder
        self._set_tiles = set_tiles

    def encode(self, images: Tensor) -> Posterior:
        self._set_tiles(max(images.shape[2:]) > LARGE)
        return self._encoder(images)

    def decode(self, latents: Tensor) -> Tensor:
        self._set_tiles(max(latents.shape[2:]) * self.info.factor > LARGE)
        dtype = next(self.module.parameters()).dtype
        return self._decoder(latents.to(dtype)).float()

    def to(self, device: torch.device | str) -> "NetworkAutoencoder":
        self.module.to(device)
        return self


def load_pretrained(name: str, revision: str = "") -> NetworkAutoencoder:
    """An autoencoder from a folder or from the hub.

    Args:
        name: a folder with ``config.json`` and weights as diffusers writes them, or with TAESD's
            encoder and decoder; or an id on the hub, ``owner/name`` or ``owner/name/subfolder``.
        revision: of the hub's; the newest if not given.

    Raises:
        BadInput: if there is none, it is of another kind, or diffusers is not installed.
    """
    folder = Path(name)
    if folder.is_dir():
        files = find_tiny(folder)
        return _load_tiny(name, *files) if files else _load_folder(name)
    if folder.exists() or name.count("/") not in (1, 2) or name.startswith((".", "/", "~")):
        raise BadInput(
            f"There is no autoencoder {name}: give a folder, an id on the hub, or one without "
            "training such as pca-f2c6."
        )
    return _load_hub(name, revision)


def _load_tiny(name: str, encoder_file: Path, decoder_file: Path) -> NetworkAutoencoder:
    encoder = TinyEncoder(read_state(encoder_file))
    decoder = TinyDecoder(read_state(decoder_file))
    module = nn.ModuleDict({"encoder": encoder, "decoder": decoder})
    strides = [layer.stride[0] for layer in encoder if isinstance(layer, nn.Conv2d)]
    info = AutoencoderInfo(
        name=name,
        fingerprint=_fingerprint(module, "taesd"),
        factor=2 ** sum(stride == 2 for stride in strides),
        channels=_last_width(encoder),
    )
    return NetworkAutoencoder(
        info, module, 3, lambda images: Posterior(encoder(images), None), decoder
    )


def _last_width(encoder: nn.Sequential) -> int:
    last = encoder[-1]
    assert isinstance(last, nn.Conv2d)
    return last.out_channels


def _load_folder(name: str) -> NetworkAutoencoder:
    path = Path(name) / "config.json"
    if not path.exists():
        raise BadInput(
            f"{name} holds no autoencoder: neither config.json with diffusers' weights nor "
            "encoder.safetensors and decoder.safetensors (or .pth)."
        )
    config = read_object(path)
    kind = _kind(config, name)
    return wrap_diffusers(_from_pretrained(kind, name), name)


def _load_hub(name: str, revision: str) -> NetworkAutoencoder:
    owner, repository, *inside = name.split("/")
    settings: dict[str, Any] = {"revision": revision or None}
    if inside:
        settings["subfolder"] = inside[0]
    identity = f"{owner}/{repository}"
    try:
        config, commit = diffusers_library().AutoencoderKL.load_config(
            identity, return_commit_hash=True, **settings
        )
    except OSError as error:
        raise BadInput(
            f"There is no folder {name}, and the hub has no autoencoder of that name or cannot be "
            f"reached: {str(error).splitlines()[0]}"
        ) from error
    settings["revision"] = commit or revision or None
    module = _from_pretrained(_kind(config, name), identity, **settings)
    return wrap_diffusers(module, name, commit or revision)


def _kind(config: Any, name: str) -> str:
    """The class of a configuration, if it is one of those that are used here."""
    kind = config.get("_class_name") if isinstance(config, dict) else None
    if kind not in CLASSES:
        raise BadInput(f"{name} holds {kind}; autoencoders are {', '.join(CLASSES)}.")
    return str(kind)


def _from_pretrained(kind: str, name: str, **settings: Any) -> Any:
    try:
        return getattr(diffusers_library(), kind).from_pretrained(
            name, torch_dtype=torch.float32, low_cpu_mem_usage=False, **settings
        )
    except (OSError, ValueError, RuntimeError) as error:
        first = str(error).splitlines()[0]
        raise BadInput(f"Cannot read the autoencoder {name}: {first}") from error


def diffusers_library() -> Any:
    """The library.

    Raises:
        BadInput: if it is not installed.
    """
    try:
        import diffusers
    except ImportError as error:
        raise BadInput(
            "This autoencoder needs diffusers: pip install 'multistage-diffusion[latent]'."
        ) from error
    return diffusers


def wrap_diffusers(module: Any, name: str, revision: str = "") -> NetworkAutoencoder:
    """One of diffusers' autoencoders as one of this program's."""
    kind = type(module).__name__
    config = module.config
    channels = config.latent_channels
    if kind == "AutoencoderDC":
        factor = module.spatial_compression_ratio
    else:
        levels = config.encoder_block_out_channels if kind == "AutoencoderTiny" else None
        factor = 2 ** (len(levels or config.block_out_channels) - 1)
    info = AutoencoderInfo(
        name=name,
        fingerprint=_fingerprint(module, kind, dict(config)),
        factor=int(factor),
        channels=int(channels),
        revision=revision,
    )
    return identified(module, info)


def identified(module: Any, info: AutoencoderInfo) -> NetworkAutoencoder:
    """One of diffusers' autoencoders, of which it is known what identifies it."""
    kind = type(module).__name__
    encoder, decoder = _functions(kind, module)

    def set_tiles(on: bool) -> None:
        if kind in TILED:
            module.enable_tiling() if on else module.disable_tiling()

    return NetworkAutoencoder(info, module, module.config.in_channels, encoder, decoder, set_tiles)


def _functions(
    kind: str, module: Any
) -> tuple[Callable[[Tensor], Posterior], Callable[[Tensor], Tensor]]:
    """Encoder and decoder of one of diffusers' classes."""

    def normal(images: Tensor) -> Posterior:
        posterior = module.encode(images).latent_dist
        return Posterior(posterior.mean, posterior.std)

    def plain(images: Tensor) -> Posterior:
        result = module.encode(images)
        return Posterior(result.latents if kind == "VQModel" else result.latent, None)

    def tiny(images: Tensor) -> Posterior:
        return Posterior(module.encode(images).latents, None)

    def decoder(latents: Tensor) -> Tensor:
        return module.decode(latents).sample

    encoders = {"AutoencoderKL": normal, "AutoencoderTiny": tiny}
    return encoders.get(kind, plain), decoder


def _fingerprint(module: nn.Module, kind: str, config: dict[str, Any] | None = None) -> str:
    """A hash of class, settings and weights, the same wherever they are stored."""
    settings = {key: value for key, value in (config or {}).items() if not key.startswith("_")}
    text = json.dumps([kind, settings], sort_keys=True, default=str)
    digest = hashlib.sha256(text.encode())
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name}{tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().float().cpu().contiguous().numpy().data)
    return digest.hexdigest()[:16]
