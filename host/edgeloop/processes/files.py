"""Files that appear whole or not at all, and the digests they are known by."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal. Raises OSError."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a file under another name and rename it: a reader sees the old content or the new one. Raises OSError."""
    partial = _partial(path)
    partial.write_bytes(content.encode() if isinstance(content, str) else content)
    partial.replace(path)


def copy_whole(source: Path, path: Path) -> None:
    """Copy a file as `write_whole` writes one. Raises OSError."""
    partial = _partial(path)
    shutil.copyfile(source, partial)
    partial.replace(path)


def _partial(path: Path) -> Path:
    """Beside the file, and this process's own."""
    return path.with_name(f".{path.name}.{os.getpid()}.partial")
