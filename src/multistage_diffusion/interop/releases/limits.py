"""Limits of what a pickled checkpoint may hold, checked before and after it is read.

A few bytes can describe very much: tensors of no size that count as large, containers that hold
themselves or each other again and again, and records shorter than what is read from them.
"""

import pickle
import pickletools
from collections.abc import Iterator, Mapping
from io import BytesIO
from typing import Any
from zipfile import ZIP_STORED, ZipFile

import torch
from torch import Tensor

from multistage_diffusion.errors import BadInput

__all__ = ["check_archive", "check_content", "check_operations", "check_storage"]

MOST_OPERATIONS = 5_000_000
MOST_OBJECTS = 500_000
DEEPEST = 200
MEMORY = ("PUT", "BINPUT", "LONG_BINPUT")
"""Operations that number an object; the reader makes room for all lower numbers."""
ITEM_BYTES = {
    "DoubleStorage": 8,
    "LongStorage": 8,
    "ComplexFloatStorage": 8,
    "ComplexDoubleStorage": 16,
    "FloatStorage": 4,
    "IntStorage": 4,
    "HalfStorage": 2,
    "BFloat16Storage": 2,
    "ShortStorage": 2,
}
"""Of torch's types of storages; one byte for others."""


def check_operations(content: bytes) -> None:
    """Raises BadInput if a pickle numbers objects that it cannot have, or has too many steps.

    A ``ValueError`` of a damaged pickle is passed on.
    """
    for count, (operation, argument, _) in enumerate(pickletools.genops(content)):
        numbers_too_high = operation.name in MEMORY and int(argument or 0) > len(content)
        if count > MOST_OPERATIONS or numbers_too_high:
            raise BadInput("It describes more objects than a checkpoint has.")


def check_storage(tensor: Tensor) -> None:
    """Raises BadInput if a tensor has more elements than there are bytes behind it."""
    if tensor.is_quantized or tensor.layout != torch.strided:
        raise BadInput("It holds a tensor that is not a plain one.")
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        raise BadInput(f"It holds a tensor of {tensor.numel():,} elements on fewer bytes.")


def check_content(content: Any) -> None:
    """Raises BadInput if containers are nested too deeply or without end, or hold too much.

    Containers that are held in several places count in each of them, since readers meet them there.
    """
    walk = [iter([content])]
    count = 0
    while walk:
        try:
            value = next(walk[-1])
        except StopIteration:
            walk.pop()
            continue
        count += 1
        if isinstance(value, Tensor):
            check_storage(value)
        walk.append(_inside(value))
        if count > MOST_OBJECTS or len(walk) > DEEPEST:
            raise BadInput("It holds containers that are nested too deeply or too often.")


def _inside(value: Any) -> Iterator[Any]:
    """What a container holds."""
    fields = getattr(value, "fields", None)
    if isinstance(fields, Mapping):
        value = fields
    if isinstance(value, Mapping):
        return iter([*value.keys(), *value.values()])
    return iter(value) if isinstance(value, list | tuple | set) else iter(())


class _Anything(dict[Any, Any]):
    """Stands for whatever a pickle names, and takes whatever is done to it."""

    def __init__(self, *_: Any, **__: Any) -> None:
        super().__init__()

    def __setstate__(self, _: Any) -> None:
        """Takes a state."""

    def append(self, _: Any) -> None:
        """Takes an entry of a list."""

    def extend(self, _: Any) -> None:
        """Takes entries of a list."""

    def __hash__(self) -> int:  # type: ignore[override]
        return id(self)


class _StorageReader(pickle.Unpickler):
    """Goes through the pickle of an archive and compares its storages with the records."""

    def __init__(self, content: bytes, sizes: Mapping[str, int]) -> None:
        super().__init__(BytesIO(content))
        self.sizes = sizes

    def find_class(self, _: str, name: str) -> Any:
        return type(name, (_Anything,), {})

    def persistent_load(self, reference: Any) -> Any:
        _, kind, key, _, count = reference
        needed = int(count) * ITEM_BYTES.get(kind.__name__, 1)
        if not 0 <= needed <= self.sizes.get(str(key), -1):
            raise BadInput(f"Its record {key} has fewer bytes than the {needed:,} to be read.")
        return _Anything()


def check_archive(content: bytes) -> None:
    """Raises BadInput if a record of an archive of ``torch.save`` is shorter than its storage.

    Damaged archives raise the errors of ``zipfile`` and ``pickle``.
    """
    with ZipFile(BytesIO(content)) as archive:
        entries = archive.infolist()
        if any(entry.compress_type != ZIP_STORED for entry in entries):
            raise BadInput("Its records are compressed, which torch.save never does.")
        if sum(entry.file_size for entry in entries) > len(content):
            raise BadInput("Its records overlap.")
        (listing,) = (e for e in entries if e.filename.rsplit("/", 1)[-1] == "data.pkl")
        described = archive.read(listing)
    sizes = {entry.filename.rsplit("/", 1)[-1]: entry.file_size for entry in entries}
    check_operations(described)
    _StorageReader(described, sizes).load()
