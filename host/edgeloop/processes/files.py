"""Files that appear whole or not at all, and the digests they are known by."""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal. Raises OSError."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Give a name beside `path` to write to, which becomes `path` when the block ends and vanishes if it fails.

    A reader sees the old content or the new one. Raises OSError.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.partial")
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def write_whole(path: Path, content: str | bytes, *, durable: bool = False, mode: int = 0o666) -> None:
    """Write a file as `whole_file` does.

    `durable`: the content is on the disk before it has its name. `mode`: of the file, less the umask. Raises
    OSError.
    """
    with whole_file(path) as partial:
        partial.touch(mode=mode)
        with partial.open("wb") as handle:
            handle.write(content.encode() if isinstance(content, str) else content)
            if durable:
                handle.flush()
                os.fsync(handle.fileno())


def copy_whole(source: Path, path: Path) -> None:
    """Copy a file as `whole_file` does. Raises OSError."""
    with whole_file(path) as partial:
        shutil.copyfile(source, partial)


def move_file(path: Path, new: Path) -> None:
    """Give a file of this file system another name, in place of what has it. Raises OSError."""
    path.replace(new)
