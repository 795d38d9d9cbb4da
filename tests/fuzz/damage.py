"""Ways to damage a file."""

import json
import random
from typing import Any

__all__ = ["damaged"]

HOSTILE: tuple[Any, ...] = (
    *(None, True, "", "x", "\x1b[31m\n", "\ud800", [], {}, [[[]]], {"a": {"a": None}}),
    *(-1, 0, 1, 10**18, 10**400, -(10**18), 0.5, 1e300, -1e300, 1e-300),
    *(float("nan"), float("inf"), float("-inf")),
)


def damaged(name: str, content: bytes, source: random.Random) -> bytes:
    """The content of a file, damaged in a way that depends on its kind."""
    if source.random() < 0.3 or not content:
        return _as_bytes(content, source)
    if name.endswith(".json"):
        return _as_json(content, source)
    if name.endswith(".jsonl"):
        lines = content.splitlines(keepends=True)
        chosen = source.randrange(len(lines))
        lines[chosen] = _as_json(lines[chosen], source) + b"\n"
        return b"".join(lines)
    if name.endswith(".safetensors"):
        return _as_tensors(content, source)
    return _as_bytes(content, source)


def _as_bytes(content: bytes, source: random.Random) -> bytes:
    """Cut short, with other bits, or something else."""
    kind = source.randrange(6)
    if kind == 0:
        return content[: source.randrange(len(content) + 1)]
    if kind == 1:
        changed = bytearray(content)
        for _ in range(min(len(changed), source.choice((1, 8, 64)))):
            changed[source.randrange(len(changed))] ^= 1 << source.randrange(8)
        return bytes(changed)
    if kind == 2:
        return content.decode("latin1").encode("utf-16")
    if kind == 3:
        return source.choice((b"[", b'{"a":')) * 100_000
    if kind == 4:
        return source.randbytes(source.choice((0, 1, 100)))
    return content + content[: source.randrange(len(content) + 1)]


def _as_json(content: bytes, source: random.Random) -> bytes:
    """Another value, a missing key or too deep a value, somewhere."""
    value = json.loads(content)
    places = list(_places(value))
    if not places:
        return json.dumps(source.choice(HOSTILE)).encode()
    container, key = source.choice(places)
    if source.random() < 0.25:
        del container[key]
    elif source.random() < 0.1:
        container[key] = _nested(source.choice((50, 900)))
    else:
        container[key] = source.choice(HOSTILE)
    return json.dumps(value).encode()


def _places(value: Any) -> Any:
    """Each container in a value with each of its keys; of long lists some."""
    if isinstance(value, dict):
        keys: list[Any] = list(value)
    elif isinstance(value, list):
        keys = list(range(min(len(value), 3)))
    else:
        return
    for key in keys:
        yield value, key
        yield from _places(value[key])


def _nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


def _as_tensors(content: bytes, source: random.Random) -> bytes:
    """Another header: of its tensors, or of the JSON in its metadata."""
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    metadata = header.get("__metadata__", {})
    if metadata and source.random() < 0.7:
        key = source.choice(list(metadata))
        try:
            metadata[key] = _as_json(metadata[key].encode(), source).decode("utf-8", "replace")
        except ValueError:
            metadata[key] = "x"
    else:
        name = source.choice([name for name in header if name != "__metadata__"])
        field = source.choice(("dtype", "shape", "data_offsets"))
        others = {
            "dtype": ("C64", "I64", "F8_E4M3", "BOOL", "F64", "F4", "X"),
            "shape": ([], [0], [1 << 50], [2, 1 << 40], [-1], "x"),
            "data_offsets": ([0, 1 << 50], [8, 4], [-1, 4], []),
        }
        header[name][field] = source.choice(others[field])
    text = json.dumps(header).encode()
    length = len(text) if source.random() < 0.9 else 1 << source.randrange(64)
    return length.to_bytes(8, "little") + text + content[8 + size :]
