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
from multistage_diffusion.interop.releases.limits import (
    check_archive,
    check_content,
    check_operations,
    check_storage,
)

__all__ = ["Record", "read_pickle"]

ARCHIVE = b"PK"
"""The beginning of a zip archive, which ``torch.save`` writes."""
SCALARS = {"f8": "d", "f4": "f", "i8": "q", "i4": "i", "b1": "?"}
"""numpy's codes of scalar types, with those of ``struct``."""


class Record:
    """An object of the file: its fields, without its methods."""

    def __init__(self, *_: Any) -> None:
        self.fields: dict[str, Any] = {}

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, Mapping):
            self.fields = {str(name): value for name, value in state.items()}

    def tensors(self, prefix: str = "") -> dict[str, Tensor]:
        """The parameters and buffers of a module and the modules in it, by name."""
        own = {**self._named("_parameters"), **self._named("_buffers")}
        found = {prefix + name: value for name, value in own.items() if isinstance(value, Tensor)}
        for name, module in self._named("_modules").items():
            if isinstance(module, Record):
                found.update(module.tensors(f"{prefix}{name}."))
        return found

    def _named(self, field: str) -> dict[str, Any]:
        """The entries of a field by name; none if it is no dictionary."""
        value = self.fields.get(field)
        return {str(k): v for k, v in value.items()} if isinstance(value, Mapping) else {}


class PlainDict(dict[str, Any]):
    """A dictionary in place of another kind of dictionary."""


class ScalarType:
    """The type of a numpy scalar."""

    def __init__(self, code: str, *_: Any) -> None:
        self.code = SCALARS.get(code, "")

    def __setstate__(self, _: Any) -> None:
        """Ignores the byte order: all machines that trained such models are little-endian."""


def _record(meta: Mapping[str, Any]) -> Record:
    """A module that comes with its source code; the code is dropped."""
    record = Record()
    record.__setstate__(meta.get("state"))
    return record


def _storage(content: bytes) -> Any:
    if content.startswith(ARCHIVE):
        check_archive(content)
    return torch.load(BytesIO(content), map_location="cpu", weights_only=True)


def _tensor(storage: Any, offset: int, size: Any, stride: Any, *_: Any) -> Tensor:
    """A view of a storage that is not larger than the storage."""
    shape = [int(side) for side in size]
    tensor: Tensor = torch._utils._rebuild_tensor(
        storage, int(offset), shape, [int(step) for step in stride]
    )
    check_storage(tensor)
    return tensor


def _parameter(data: Tensor, *_: Any) -> Tensor:
    return data


def _scalar(kind: ScalarType, content: bytes) -> Any:
    return struct.unpack(f"<{kind.code}", content)[0]


def _encoded(text: str, _: str) -> bytes:
    """Bytes as the older protocols write them."""
    return text.encode("latin1")


ALLOWED: dict[str, Callable[..., Any]] = {
    "collections.OrderedDict": OrderedDict,
    "builtins.set": set,
    "__builtin__.set": set,
    "_codecs.encode": _encoded,
    "torch.Size": tuple,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": _parameter,
    "torch.storage._load_from_bytes": _storage,
    "torch_utils.persistence._reconstruct_persistent_obj": _record,
    "torch.nn.modules.container.ModuleDict": Record,
    "torch.nn.modules.container.ModuleList": Record,
    "dnnlib.util.EasyDict": PlainDict,
    "numpy.dtype": ScalarType,
    "numpy.core.multiarray.scalar": _scalar,
    "numpy._core.multiarray.scalar": _scalar,
}
"""What a pickle may name, and what is called in its place."""


class _Unpickler(pickle.Unpickler):
    """An unpickler that calls nothing but what is allowed."""

    def find_class(self, module: str, name: str) -> Any:
        if f"{module}.{name}" not in ALLOWED:
            raise _refusal(f"{module}.{name}")
        return ALLOWED[f"{module}.{name}"]

    def persistent_load(self, _: Any) -> Any:
        raise BadInput("It refers to objects outside of itself.")


def _refusal(name: str) -> BadInput:
    return BadInput(f"It asks for {name}, which is neither a tensor nor a plain container.")


def read_pickle(path: Path) -> Any:
    """The content of a pickle or of a file from ``torch.save``.

    Raises:
        BadInput: if the file cannot be read, or if it names anything except tensors and plain
            containers; the message says what.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise BadInput(f"Cannot read {path}: {error.strerror}.") from error
    try:
        found = _load(content)
        check_content(found)
        return found
    except BadInput as error:
        raise BadInput(f"{path} is refused. {error}") from error
    except Exception as error:  # a damaged pickle can fail in any way
        kind = type(error).__name__
        raise BadInput(f"Cannot read {path}: it is damaged or no checkpoint ({kind}).") from error


def _load(content: bytes) -> Any:
    if content.startswith(ARCHIVE):
        check_archive(content)
    if _is_torch_file(content):
        return _load_torch_file(content)
    check_operations(content)
    return _Unpickler(BytesIO(content)).load()


def _is_torch_file(content: bytes) -> bool:
    """Whether ``torch.save`` wrote it.

    It writes a zip archive; older versions wrote a pickle that begins with a magic number.
    """
    if content.startswith(ARCHIVE):
        return True
    magic = pickle.dumps(torch.serialization.MAGIC_NUMBER, protocol=2)
    return content.startswith(magic)


def _load_torch_file(content: bytes) -> Any:
    try:
        return torch.load(BytesIO(content), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        named = re.search(r"GLOBAL (\S+)", str(error))
        raise _refusal(named.group(1) if named else "something") from error
