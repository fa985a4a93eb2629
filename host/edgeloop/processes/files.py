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


def write_whole(path: Path, content: str | bytes, *, durable: bool = False, mode: int = 0o666) -> None:
    """Write a file under another name and rename it: a reader sees the old content or the new one.

    `durable`: the content is on the disk before it has its name. `mode`: of the file, less the umask. Raises
    OSError, and leaves nothing half written.
    """
    partial = _partial(path)
    try:
        partial.touch(mode=mode)
        with partial.open("wb") as handle:
            handle.write(content.encode() if isinstance(content, str) else content)
            if durable:
                handle.flush()
                os.fsync(handle.fileno())
        partial.replace(path)
    except OSError:
        partial.unlink(missing_ok=True)
        raise


def copy_whole(source: Path, path: Path) -> None:
    """Copy a file as `write_whole` writes one. Raises OSError."""
    partial = _partial(path)
    shutil.copyfile(source, partial)
    partial.replace(path)


def _partial(path: Path) -> Path:
    """Beside the file, and this process's own."""
    return path.with_name(f".{path.name}.{os.getpid()}.partial")
