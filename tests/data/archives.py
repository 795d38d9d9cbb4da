"""Archives for several tests."""

import io
import tarfile
from collections.abc import Mapping
from pathlib import Path

__all__ = ["write_tar"]


def write_tar(path: Path, files: Mapping[str, bytes]) -> Path:
    """A tar archive of these files, in their order."""
    with tarfile.open(path, "w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path
