"""Pushed files by hash: receiving, knowing what is there, unpacking runtimes, and making room again.

A file is under its name only when its bytes were hashed on this board. `NAME.ok` beside it holds the size and
modification time of the verified bytes, and its own modification time says when the file was last used.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import stat
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Iterator, Optional

from edgeloop_agent import ARCHIVE, folder, unpacked_beside, wire

if TYPE_CHECKING:
    import zipfile

NAME = re.compile(r"\A([0-9a-f]{64})((?:\.[A-Za-z0-9]{1,16}){0,2})\Z")
_CHUNK = 1 << 20
_MARGIN_BYTES = 8 << 20  # left free beside what is written: the board's own logs must go on
_MARKER = ".ok"
_USED = ".used"


def checked_name(name: str) -> str:
    """Return the hash in a cached file's name. Raises AgentError for what is not such a name."""
    found = NAME.match(name)
    if found is None or found.group(2) == _MARKER:
        raise folder.AgentError("%r is not a hash and a suffix such as .tflite" % name[:100], "harness")
    return found.group(1)


def receive(state: Path, name: str, sha256: str, size: int, source: BinaryIO) -> dict[str, Any]:
    """Store `size` bytes of source as cache/NAME, if their hash is sha256.

    Raises AgentError, and leaves nothing, where the space, the bytes or the hash do not fit.
    """
    if checked_name(name) != sha256:
        raise folder.AgentError("the name %s does not begin with the hash %s" % (name, sha256[:64]), "harness")
    if size < 0:
        raise folder.AgentError("%d bytes can't be received" % size, "harness")
    cache = state / wire.CACHE_DIR
    if is_present(cache, name) and (cache / name).stat().st_size == size:
        _drain(source, size)
        return {"stored": name, "bytes": size, "already": True}
    with _temporary(cache, name) as temporary:
        _need_space(cache, size)
        try:
            _copy_hashed(source, temporary, sha256, size)
            os.replace(temporary, cache / name)
            _mark(cache, name)
            _sync_folder(cache)
        except OSError as error:
            folder.raise_for_os(error, "receiving %s (%d bytes)" % (name, size))
    return {"stored": name, "bytes": size, "already": False}


def _copy_hashed(source: BinaryIO, temporary: Path, sha256: str, size: int) -> None:
    import hashlib

    digest = hashlib.sha256()
    left = size
    buffer = bytearray(_CHUNK)
    view = memoryview(buffer)
    with open(temporary, "wb", buffering=0) as handle:
        while left:
            got = source.readinto(view[: min(left, _CHUNK)])  # type: ignore[attr-defined]
            if not got:
                raise folder.AgentError("the transfer ended after %d of %d bytes" % (size - left, size), "lab")
            digest.update(view[:got])
            sent = 0
            while sent < got:
                sent += handle.write(view[sent:got])
            left -= got
        if source.read(1):
            raise folder.AgentError("more than the announced %d bytes came" % size, "harness")
        if digest.hexdigest() != sha256:
            message = "the bytes received have the hash %s, not %s" % (digest.hexdigest(), sha256)
            raise folder.AgentError(message, "lab")
        os.fchmod(handle.fileno(), 0o644)
        os.fsync(handle.fileno())


def _drain(source: BinaryIO, size: int) -> None:
    while size > 0:
        got = len(source.read(min(size, _CHUNK)))
        if not got:
            return
        size -= got


@contextlib.contextmanager
def _temporary(parent: Path, name: str) -> Iterator[Path]:
    """A hidden name that is gone afterwards, whatever happens; what killed processes left is swept away."""
    for stale in parent.glob(".*.part*"):
        pid = stale.name.rpartition(".part")[2]
        if not pid.isdigit() or not _lives(int(pid)):
            _remove(stale)
    path = parent / (".%s.part%d" % (name, os.getpid()))
    try:
        yield path
    finally:
        _remove(path)


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


def _remove(path: Path) -> bool:
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


def _need_space(parent: Path, size: int) -> None:
    try:
        free = folder.free_bytes(parent)
    except OSError as error:
        folder.raise_for_os(error, str(parent))
    if free < size + _MARGIN_BYTES:
        raise folder.AgentError(
            "%s has %d MiB free, %d MiB are needed; run `edgeloop targets clean`"
            % (parent, free >> 20, (size + _MARGIN_BYTES >> 20) + 1),
            "board",
        )


def _sync_folder(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _mark(cache: Path, name: str) -> None:
    found = os.stat(cache / name)
    fd = folder.open_shared(cache / (name + _MARKER))
    try:
        folder.rewrite(fd, json.dumps({"bytes": found.st_size, "mtime_ns": found.st_mtime_ns}).encode())
    finally:
        os.close(fd)


def is_present(cache: Path, name: str) -> bool:
    """True where cache/NAME holds the bytes its name says. Hashes only where the marker does not fit; touches it."""
    digest = checked_name(name)
    path = cache / name
    try:
        found = os.lstat(path)
        if not stat.S_ISREG(found.st_mode):
            return False
        if _marker_fits(cache, name, found):
            _touch(cache / (name + _MARKER))
            return True
        if hash_of(path) != digest:
            _remove(path)
            return False
        with contextlib.suppress(OSError):
            _mark(cache, name)
    except FileNotFoundError:
        return False
    except OSError as error:
        folder.raise_for_os(error, str(path))
    return True


def _marker_fits(cache: Path, name: str, found: os.stat_result) -> bool:
    try:
        value = wire.load_json(folder.read_bounded(cache / (name + _MARKER), 4096) or b"")
        return bool(value["bytes"] == found.st_size and value["mtime_ns"] == found.st_mtime_ns)
    except (wire.WireError, KeyError, TypeError):
        return False


def _touch(path: Path) -> None:
    with contextlib.suppress(OSError):
        os.utime(path)


def hash_of(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal digits."""
    import hashlib

    digest = hashlib.sha256()
    with open(path, "rb") as handle:
        for chunk in iter(lambda: handle.read(_CHUNK), b""):
            digest.update(chunk)
    return digest.hexdigest()


def has(state: Path, names: list[str], runtimes: list[str]) -> dict[str, Any]:
    """Say which of these files and runtimes are there."""
    cache = state / wire.CACHE_DIR
    present = [name for name in names if is_present(cache, name)]
    unpacked = [name for name in runtimes if runtime_path(state, name) is not None]
    return {
        "present": present,
        "missing": [name for name in names if name not in present],
        "bytes": {name: (cache / name).stat().st_size for name in present},
        "runtimes_present": unpacked,
        "runtimes_missing": [name for name in runtimes if name not in unpacked],
    }


def runtime_path(state: Path, name: str) -> Optional[Path]:
    """Return the folder of an unpacked runtime, None where it is absent. Raises AgentError for a strange name."""
    if not wire.SHA256.match(name):
        raise folder.AgentError("%r is not a runtime's hash" % name[:100], "harness")
    path = state / wire.RUNTIMES_DIR / name
    if path.is_symlink() or not path.is_dir():
        return None
    _touch(path.with_name(name + _USED))
    return path


def unpack(state: Path, wheels: list[str], name: str) -> dict[str, Any]:
    """Unzip cached wheels into runtimes/NAME. Raises AgentError for a wheel that is absent or reaches outside."""
    found = runtime_path(state, name)
    if found is not None:
        return {"runtime": name, "path": str(found), "already": True}
    cache, runtimes = state / wire.CACHE_DIR, state / wire.RUNTIMES_DIR
    for wheel in wheels:
        if not is_present(cache, wheel):
            raise folder.AgentError("the wheel %s is not in the cache; push it first" % wheel, "harness")
    _unzip_all([cache / wheel for wheel in wheels], runtimes, name)
    return {"runtime": name, "path": str(runtimes / name), "already": False}


def unpack_agent(state: Path) -> None:
    """Unpack the zip this agent runs from, once; it imports its modules from there. Best effort: the zip does too."""
    target = unpacked_beside(ARCHIVE) if ARCHIVE is not None else None
    if ARCHIVE is None or target is None or os.path.isdir(target):
        return
    if Path(target).parent != state / wire.RUNTIMES_DIR:
        return
    with contextlib.suppress(folder.AgentError):
        _unzip_all([Path(ARCHIVE)], state / wire.RUNTIMES_DIR, os.path.basename(target))


def _unzip_all(archives: list[Path], runtimes: Path, name: str) -> None:
    """Unzip into runtimes/NAME by way of a temporary name. Raises AgentError."""
    import zipfile

    with _temporary(runtimes, name) as temporary:
        try:
            temporary.mkdir()
            for archive in archives:
                _unzip(archive, temporary)
            os.sync()  # thousands of files: one sync before the rename, so that a power cut leaves all or nothing
            try:
                os.rename(temporary, runtimes / name)
            except OSError:
                if not (runtimes / name).is_dir():
                    raise
            os.close(folder.open_shared(runtimes / (name + _USED)))
        except zipfile.BadZipFile as error:
            raise folder.AgentError("a wheel is not a zip file: %s" % error, "harness") from error
        except OSError as error:
            folder.raise_for_os(error, "unpacking %s" % name[:12])


def _unzip(wheel: Path, target: Path) -> None:
    import shutil
    import zipfile

    with zipfile.ZipFile(wheel) as archive:
        members = [(member, _place(member)) for member in archive.infolist()]
        _need_space(target, sum(member.file_size for member, place in members if place is not None))
        for member, place in members:
            if place is None:
                continue
            path = target / place
            path.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(member) as source, open(path, "wb") as sink:
                shutil.copyfileobj(source, sink, _CHUNK)
            if member.external_attr >> 16 & stat.S_IXUSR:
                path.chmod(0o755)  # the user's own program


def _place(member: zipfile.ZipInfo) -> Optional[str]:
    """Where a wheel's member goes; None for folders and for what only an installer needs."""
    name = member.filename
    parts = name.split("/")
    kind = member.external_attr >> 16
    if name.startswith("/") or "\\" in name or ".." in parts or (kind and stat.S_ISLNK(kind)):
        raise folder.AgentError("a wheel holds a name that reaches outside of it: %r" % name[:100], "harness")
    if name.endswith("/"):
        return None
    if parts[0].endswith(".data"):
        return "/".join(parts[2:]) if parts[1] in ("purelib", "platlib") and len(parts) > 2 else None
    return name


def clean(state: Path, max_mib: Optional[int], everything: bool) -> dict[str, Any]:
    """Remove the least recently used files, runtimes and finished jobs until under the quota, or all of them.

    With neither a quota nor `everything` nothing is removed and the answer says what is used. What a running or
    just created job needs is kept, and so is this agent's own file.
    """
    in_use = _in_use(state)
    entries = sorted((_last_use(path), _size(path), path) for path in _candidates(state))
    left = sum(size for _, size, _ in entries)
    limit = 0 if max_mib is None else max_mib << 20
    answer: dict[str, Any] = {"freed_bytes": 0, "removed": [], "kept": [], "not_removed": []}
    for _, size, path in entries:
        label = path.relative_to(state).as_posix()
        if path.name in in_use:
            answer["kept"].append(label)
        elif everything or (max_mib is not None and left > limit):
            if not _remove(path):
                answer["not_removed"].append(label)
                continue
            for suffix in (_MARKER, _USED):
                _remove(path.with_name(path.name + suffix))
            answer["removed"].append(label)
            answer["freed_bytes"] += size
            left -= size
    return {**answer, "used_bytes": left}


def _candidates(state: Path) -> Iterator[Path]:
    for name in (wire.CACHE_DIR, wire.RUNTIMES_DIR, wire.JOBS_DIR):
        for path in sorted((state / name).iterdir()):
            if not path.name.startswith(".") and path.suffix not in (_MARKER, _USED):
                yield path


def _last_use(path: Path) -> float:
    for other in (path.with_name(path.name + _MARKER), path.with_name(path.name + _USED), path / wire.DONE_FILE, path):
        with contextlib.suppress(OSError):
            return other.stat().st_mtime
    return 0.0


def _size(path: Path) -> int:
    total = 0
    stack = [path]
    while stack:
        here = stack.pop()
        with contextlib.suppress(OSError):
            total += os.lstat(here).st_blocks * 512
            if here.is_dir() and not here.is_symlink():
                stack.extend(here.iterdir())
    return total


_FRESH_JOB_S = 900  # a job's folder is made before it is started: longer than any push


def _in_use(state: Path) -> set[str]:
    """Names of files, runtimes and jobs that must stay."""
    names = set()
    if ARCHIVE is not None:
        names = {os.path.basename(ARCHIVE), os.path.basename(ARCHIVE).partition(".")[0]}
    for job in (state / wire.JOBS_DIR).iterdir():
        fresh = not (job / wire.DONE_FILE).exists() and time.time() - _last_use(job) < _FRESH_JOB_S
        if not fresh and not folder.alive(job / folder.SUPERVISOR_LOCK):
            continue
        names.add(job.name)
        try:
            found = wire.decode(wire.Job, folder.read_bounded(job / wire.JOB_FILE) or b"")
        except wire.WireError:
            continue
        names.update(found.cached_files())
        names.update(found.unpacked())
        names.update((found.agent_sha256, found.agent_sha256 + ".pyz"))
    return names
