"""Pushed files by hash: receiving them, and knowing which are there.

A file is under its name only when its bytes were hashed on this board. `NAME.ok` beside it holds the size and
modification time of the verified bytes, and its own modification time says when the file was last used.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import stat
from pathlib import Path
from typing import Any, BinaryIO, Iterator

from edgeloop_agent import folder, wire
from edgeloop_agent.errors import AgentError, raise_for_os

NAME = re.compile(r"\A([0-9a-f]{64})((?:\.[A-Za-z0-9]{1,16}){0,2})\Z")
CHUNK = 1 << 20
_MARGIN_BYTES = 8 << 20  # left free beside what is written: the board's own logs must go on
MARKER = ".ok"


def checked_name(name: str) -> str:
    """Return the hash in a cached file's name. Raises AgentError for another name."""
    match = NAME.match(name)
    if match is None or match.group(2) == MARKER:
        raise AgentError("%r is not a hash and a suffix such as .tflite" % name[:100], "harness")
    return match.group(1)


def receive(state: Path, name: str, sha256: str, size: int, source: BinaryIO) -> dict[str, Any]:
    """Store `size` bytes of source as cache/NAME, if their hash is sha256.

    Raises AgentError, and leaves nothing, where the space, the bytes or the hash do not fit.
    """
    if checked_name(name) != sha256:
        raise AgentError("the name %s does not begin with the hash %s" % (name, sha256[:64]), "harness")
    if size < 0:
        raise AgentError("%d bytes can't be received" % size, "harness")
    cache = state / wire.CACHE_DIR
    if is_present(cache, name) and (cache / name).stat().st_size == size:
        _drain(source, size)
        return {"stored": name, "bytes": size, "already": True}
    with temporary_name(cache, name) as temporary:
        need_space(cache, size)
        try:
            _copy_hashed(source, temporary, sha256, size)
            os.replace(temporary, cache / name)
            _mark(cache, name)
            _sync_folder(cache)
        except OSError as error:
            raise_for_os(error, "receiving %s (%d bytes)" % (name, size))
    return {"stored": name, "bytes": size, "already": False}


def _copy_hashed(source: BinaryIO, temporary: Path, sha256: str, size: int) -> None:
    import hashlib

    digest = hashlib.sha256()
    rest = size
    buffer = bytearray(CHUNK)
    view = memoryview(buffer)
    with open(temporary, "wb", buffering=0) as handle:
        while rest:
            got = source.readinto(view[: min(rest, CHUNK)])  # type: ignore[attr-defined]
            if not got:
                raise AgentError("the transfer ended after %d of %d bytes" % (size - rest, size), "lab")
            digest.update(view[:got])
            at = 0
            while at < got:
                at += handle.write(view[at:got])
            rest -= got
        if source.read(1):
            raise AgentError("more than the announced %d bytes came" % size, "harness")
        if digest.hexdigest() != sha256:
            message = "the bytes received have the hash %s, not %s" % (digest.hexdigest(), sha256)
            raise AgentError(message, "lab")
        os.fchmod(handle.fileno(), 0o644)
        os.fsync(handle.fileno())


def _drain(source: BinaryIO, size: int) -> None:
    while size > 0:
        got = len(source.read(min(size, CHUNK)))
        if not got:
            return
        size -= got


@contextlib.contextmanager
def temporary_name(parent: Path, name: str) -> Iterator[Path]:
    """A hidden name that is gone afterwards, whatever happens; those that killed processes left are swept away."""
    for stale in parent.glob(".*.part*"):
        pid = stale.name.rpartition(".part")[2]
        if not pid.isdigit() or not _lives(int(pid)):
            remove(stale)
    path = parent / (".%s.part%d" % (name, os.getpid()))
    try:
        yield path
    finally:
        remove(path)


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


def remove(path: Path) -> bool:
    """Remove a file or a folder; False where the system refuses."""
    try:
        if path.is_dir() and not path.is_symlink():
            import shutil

            shutil.rmtree(path)
        else:
            path.unlink()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def need_space(parent: Path, size: int) -> None:
    """Raise AgentError where the disk has no room for so many bytes."""
    try:
        free = folder.free_bytes(parent)
    except OSError as error:
        raise_for_os(error, str(parent))
    if free < size + _MARGIN_BYTES:
        raise AgentError(
            "%s has %d MiB free, %d MiB are needed" % (parent, free >> 20, (size + _MARGIN_BYTES >> 20) + 1),
            "board",
            wire.ErrorCode.DISK_FULL,
        )


def _sync_folder(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _mark(cache: Path, name: str) -> None:
    status = os.stat(cache / name)
    fd = folder.open_shared(cache / (name + MARKER))
    try:
        folder.rewrite(fd, json.dumps({"bytes": status.st_size, "mtime_ns": status.st_mtime_ns}).encode())
    finally:
        os.close(fd)


def is_present(cache: Path, name: str) -> bool:
    """True where cache/NAME holds the bytes its name says. Hashes only where the marker does not fit; touches it."""
    digest = checked_name(name)
    path = cache / name
    try:
        status = os.lstat(path)
        if not stat.S_ISREG(status.st_mode):
            return False
        if _marker_fits(cache, name, status):
            touch(cache / (name + MARKER))
            return True
        if hash_of(path) != digest:
            remove(path)
            return False
        with contextlib.suppress(OSError):
            _mark(cache, name)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise_for_os(error, str(path))
    return True


def _marker_fits(cache: Path, name: str, status: os.stat_result) -> bool:
    try:
        value = wire.load_json(folder.read_bounded(cache / (name + MARKER), 4096) or b"")
        return bool(value["bytes"] == status.st_size and value["mtime_ns"] == status.st_mtime_ns)
    except (wire.WireError, KeyError, TypeError):
        return False


def touch(path: Path) -> None:
    """Stamp a file as used now, where that may be done."""
    with contextlib.suppress(OSError):
        os.utime(path)


def hash_of(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal digits."""
    import hashlib

    digest = hashlib.sha256()
    with open(path, "rb") as handle:
        for chunk in iter(lambda: handle.read(CHUNK), b""):
            digest.update(chunk)
    return digest.hexdigest()
