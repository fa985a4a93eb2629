"""Unpacked folders under runtimes/, by hash: wheel sets, programs of users, and the agent's own modules."""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional

from edgeloop_agent import ARCHIVE, folder, unpacked_beside, wire
from edgeloop_agent.cache import CHUNK, is_present, need_space, temporary_name, touch
from edgeloop_agent.errors import AgentError, raise_for_os

if TYPE_CHECKING:
    import zipfile

USED = ".used"
"""The suffix of the file beside a runtime whose modification time says when it was last used."""


def runtime_path(state: Path, name: str) -> Optional[Path]:
    """Return the folder of an unpacked runtime, None where it is absent. Raises AgentError for a strange name."""
    if not wire.SHA256.match(name):
        raise AgentError("%r is not a runtime's hash" % name[:100], "harness")
    path = state / wire.RUNTIMES_DIR / name
    if path.is_symlink() or not path.is_dir():
        return None
    touch(path.with_name(name + USED))
    return path


def has(state: Path, names: list[str], runtimes: list[str]) -> dict[str, Any]:
    """Say which of these files and runtimes are there."""
    cache = state / wire.CACHE_DIR
    present = [name for name in names if is_present(cache, name)]
    folders = [name for name in runtimes if runtime_path(state, name) is not None]
    return {
        "present": present,
        "missing": [name for name in names if name not in present],
        "bytes": {name: (cache / name).stat().st_size for name in present},
        "runtimes_present": folders,
        "runtimes_missing": [name for name in runtimes if name not in folders],
    }


def unpack(state: Path, wheels: list[str], name: str) -> dict[str, Any]:
    """Unzip cached wheels into runtimes/NAME. Raises AgentError for a wheel that is absent or reaches outside."""
    path = runtime_path(state, name)
    if path is not None:
        return {"runtime": name, "path": str(path), "already": True}
    cache, runtimes = state / wire.CACHE_DIR, state / wire.RUNTIMES_DIR
    for wheel in wheels:
        if not is_present(cache, wheel):
            raise AgentError("the wheel %s is not in the cache; push it first" % wheel, "harness")
    _unzip_all([cache / wheel for wheel in wheels], runtimes, name)
    return {"runtime": name, "path": str(runtimes / name), "already": False}


def unpack_agent(state: Path) -> None:
    """Unpack the zip this agent runs from, once; it imports its modules from there. Best effort: the zip does too."""
    target = unpacked_beside(ARCHIVE) if ARCHIVE is not None else None
    if ARCHIVE is None or target is None or os.path.isdir(target):
        return
    if Path(target).parent != state / wire.RUNTIMES_DIR:
        return
    with contextlib.suppress(AgentError):
        _unzip_all([Path(ARCHIVE)], state / wire.RUNTIMES_DIR, os.path.basename(target))


def _unzip_all(archives: list[Path], runtimes: Path, name: str) -> None:
    """Unzip into runtimes/NAME by way of a temporary name. Raises AgentError."""
    import zipfile

    with temporary_name(runtimes, name) as temporary:
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
            os.close(folder.open_shared(runtimes / (name + USED)))
        except zipfile.BadZipFile as error:
            raise AgentError("a wheel is not a zip file: %s" % error, "harness") from error
        except OSError as error:
            raise_for_os(error, "unpacking %s" % name[:12])


def _unzip(wheel: Path, target: Path) -> None:
    import shutil
    import zipfile

    with zipfile.ZipFile(wheel) as archive:
        members = [(member, _place(member)) for member in archive.infolist()]
        need_space(target, sum(member.file_size for member, place in members if place is not None))
        for member, place in members:
            if place is None:
                continue
            path = target / place
            path.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(member) as source, open(path, "wb") as sink:
                shutil.copyfileobj(source, sink, CHUNK)
            if member.external_attr >> 16 & stat.S_IXUSR:
                path.chmod(0o755)  # the user's own program


def _place(member: zipfile.ZipInfo) -> Optional[str]:
    """The place of a wheel's member; None for folders and for files that only an installer needs."""
    name = member.filename
    parts = name.split("/")
    kind = member.external_attr >> 16
    if name.startswith("/") or "\\" in name or ".." in parts or (kind and stat.S_ISLNK(kind)):
        raise AgentError("a wheel holds a name that reaches outside of it: %r" % name[:100], "harness")
    if name.endswith("/"):
        return None
    if parts[0].endswith(".data"):
        return "/".join(parts[2:]) if parts[1] in ("purelib", "platlib") and len(parts) > 2 else None
    return name
