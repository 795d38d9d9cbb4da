"""Reading pickled checkpoints without running anything they contain.

A pickle is a program that names functions to call. This reader knows tensors, plain containers and,
as inert records, the modules of EDM's checkpoints, which carry their own source code; that code
stays text. A file that names anything else is refused.
"""

import pickle
import re
import struct
from collections import OrderedDict
from collections.abc import Callable, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from multistage_diffusion.errors import BadInput

__all__ = ["Record", "read_pickle"]

SCALARS = {"f8": "d", "f4": "f", "i8": "q", "i4": "i", "b1": "?"}


class Record:
    """An object of the file: its fields, without its methods."""

    def __init__(self, *_: Any) -> None:
        self.fields: dict[str, Any] = {}

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, Mapping):
            self.fields = dict(state)

    def tensors(self, prefix: str = "") -> dict[str, Tensor]:
        """The parameters and buffers of a module and the modules in it, by name."""
        found = {}
        for kind in ("_parameters", "_buffers"):
            for name, tensor in self.fields.get(kind, {}).items():
                if isinstance(tensor, Tensor):
                    found[prefix + name] = tensor
        for name, module in self.fields.get("_modules", {}).items():
            if isinstance(module, Record):
                found.update(module.tensors(f"{prefix}{name}."))
        return found


class PlainDict(dict[str, Any]):
    """A dictionary that was of another kind."""


def _persistent(meta: Mapping[str, Any]) -> Record:
    """A module with its source code: the code is dropped."""
    record = Record()
    record.__setstate__(meta.get("state"))
    return record


def _storage(content: bytes) -> Any:
    return torch.load(BytesIO(content), map_location="cpu", weights_only=True)


def _parameter(data: Tensor, *_: Any) -> Tensor:
    return data


class NumberType:
    """The type of a numpy scalar."""

    def __init__(self, code: str, *_: Any) -> None:
        self.code = SCALARS.get(code, "")

    def __setstate__(self, _: Any) -> None:
        """Byte order is little on all machines that trained such models."""


def _scalar(kind: NumberType, content: bytes) -> Any:
    return struct.unpack(f"<{kind.code}", content)[0]


def _encoded(text: str, _: str) -> bytes:
    """Bytes as the older protocols write them."""
    return text.encode("latin1")


KNOWN: dict[str, Callable[..., Any]] = {
    "collections.OrderedDict": OrderedDict,
    "builtins.set": set,
    "__builtin__.set": set,
    "_codecs.encode": _encoded,
    "torch.Size": tuple,
    "torch._utils._rebuild_tensor_v2": torch._utils._rebuild_tensor_v2,
    "torch._utils._rebuild_parameter": _parameter,
    "torch.storage._load_from_bytes": _storage,
    "torch_utils.persistence._reconstruct_persistent_obj": _persistent,
    "torch.nn.modules.container.ModuleDict": Record,
    "torch.nn.modules.container.ModuleList": Record,
    "dnnlib.util.EasyDict": PlainDict,
    "numpy.dtype": NumberType,
    "numpy.core.multiarray.scalar": _scalar,
    "numpy._core.multiarray.scalar": _scalar,
}


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if f"{module}.{name}" not in KNOWN:
            raise BadInput(
                f"It asks for {module}.{name}, which is neither a tensor nor a plain container."
            )
        return KNOWN[f"{module}.{name}"]

    def persistent_load(self, _: Any) -> Any:
        raise BadInput("It refers to objects outside of itself.")


def read_pickle(path: Path) -> Any:
    """What a pickle or a file of ``torch.save`` holds.

    Raises:
        BadInput: if the file cannot be read, or names anything but tensors and plain containers;
            says what.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise BadInput(f"Cannot read {path}: {error.strerror}.") from error
    try:
        return _torch_file(content) if _is_torch_file(content) else _Reader(BytesIO(content)).load()
    except BadInput as error:
        raise BadInput(f"{path} is refused. {error}") from error
    except Exception as error:  # a damaged pickle can fail in any way
        raise BadInput(
            f"Cannot read {path}: it is damaged or no checkpoint ({type(error).__name__})."
        ) from error


def _is_torch_file(content: bytes) -> bool:
    """Whether ``torch.save`` wrote it: an archive, or in older versions a pickle of a number that
    stands for that.
    """
    if content.startswith(b"PK"):
        return True
    magic = pickle.dumps(torch.serialization.MAGIC_NUMBER, protocol=2)
    return content.startswith(magic)


def _torch_file(content: bytes) -> Any:
    try:
        return torch.load(BytesIO(content), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        named = re.search(r"GLOBAL (\S+)", str(error))
        wanted = named.group(1) if named else "something"
        raise BadInput(
            f"It asks for {wanted}, which is neither a tensor nor a plain container."
        ) from error
