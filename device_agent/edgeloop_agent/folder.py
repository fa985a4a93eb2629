"""The state folder on the board: who may use it, locks in it, and the clocks that its files are stamped with.

One folder serves all users of a board, so it is world-writable and sticky, and files that several users write are
opened in place: a rename over somebody else's file is refused by the sticky bit.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import stat
import sys
import time
from pathlib import Path
from typing import Iterator, Optional

from edgeloop_agent import ARCHIVE, wire
from edgeloop_agent.errors import AgentError, raise_for_os

SUPERVISOR_LOCK = "supervisor.lock"
BEGUN_FILE = "begun.json"
_OPEN_MODE = 0o1777
_NETWORK = ("nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "ceph", "glusterfs", "fuse.sshfs", "afs")


def boottime_ns() -> int:
    """CLOCK_BOOTTIME, which no one can set and which goes on in suspend; CLOCK_MONOTONIC where there is none."""
    return time.clock_gettime_ns(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


def boot_id(root: Path = Path("/")) -> str:
    """Return the id of this boot, `unknown` where the system has none."""
    with contextlib.suppress(OSError):
        return (root / "proc/sys/kernel/random/boot_id").read_text().strip()
    if sys.platform == "darwin":
        import subprocess

        with contextlib.suppress(OSError, subprocess.SubprocessError):
            command = ["sysctl", "-n", "kern.bootsessionuuid"]
            return subprocess.run(command, capture_output=True, text=True, timeout=5, check=True).stdout.strip()
    return "unknown"


def open_state_dir(path: str) -> Path:
    """Return the state folder, made where it is absent. Raises AgentError where it can't be trusted or used."""
    folder = Path(os.path.abspath(path))
    try:
        if not os.path.lexists(folder):
            folder.parent.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(FileExistsError):
                folder.mkdir()
        problem = folder_problem(folder)
        if problem is not None:
            raise AgentError(problem, "lab")
        _share(folder)
        for name in (wire.CACHE_DIR, wire.RUNTIMES_DIR, wire.JOBS_DIR):
            with contextlib.suppress(FileExistsError):
                (folder / name).mkdir()
            if (folder / name).is_symlink():
                raise AgentError("%s is a symbolic link; remove it" % (folder / name), "lab")
            _share(folder / name)
    except OSError as error:
        raise_for_os(error, str(folder))
    return folder


def folder_problem(folder: Path) -> Optional[str]:
    """Return one line where a state folder must not be used, None where it is sound."""
    try:
        status = os.lstat(folder)
    except OSError as error:
        return "%s: %s" % (folder, error.strerror)
    if stat.S_ISLNK(status.st_mode):
        return "%s is a symbolic link; name the folder itself" % folder
    if not stat.S_ISDIR(status.st_mode):
        return "%s is not a folder; name another state_dir" % folder
    if status.st_uid not in (0, os.getuid()) and status.st_mode & 0o7777 != _OPEN_MODE:
        return "%s belongs to user %d and is not shared (mode %o, wanted 1777); ask its owner to chmod 1777 it" % (
            folder,
            status.st_uid,
            status.st_mode & 0o7777,
        )
    if status.st_uid == 0 and os.getuid() != 0 and not os.access(folder, os.W_OK | os.X_OK):
        return "%s belongs to root and is not writable; ask for chmod 1777" % folder
    kind = file_system(folder)
    if kind in _NETWORK:
        return "%s lies on %s, which other machines share; name a folder on a local disk" % (folder, kind)
    return None


def _share(folder: Path) -> None:
    status = os.stat(folder)
    if status.st_uid == os.getuid() and status.st_mode & 0o7777 != _OPEN_MODE:
        os.chmod(folder, _OPEN_MODE)


def file_system(folder: Path, mounts: Path = Path("/proc/self/mounts")) -> Optional[str]:
    """Return the type of the file system that holds a folder, None where it can't be told."""
    try:
        lines = mounts.read_text(errors="replace").splitlines()
    except OSError:
        return None
    target = os.path.realpath(folder)
    best, kind = "", None
    for line in lines:
        parts = line.split()
        if len(parts) < 3:
            continue
        point = re.sub(r"\\([0-7]{3})", lambda m: chr(int(m.group(1), 8)), parts[1])
        if len(point) >= len(best) and (target == point or target.startswith(point.rstrip("/") + "/")):
            best, kind = point, parts[2]
    return kind


def is_network(kind: Optional[str]) -> bool:
    """True for a file system that other machines may share: locks there mean nothing."""
    return kind in _NETWORK


def free_bytes(folder: Path) -> int:
    """Bytes that an ordinary user may still write at a folder, or at its nearest existing parent."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    disk = os.statvfs(folder)
    return disk.f_bavail * disk.f_frsize


def open_shared(path: Path) -> int:
    """Open a file that every user of the board may lock and write, made where it is absent; return the descriptor.

    Without O_CREAT first: the kernel refuses O_CREAT on somebody else's file in a sticky folder.
    """
    flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        return os.open(path, flags)
    except FileNotFoundError:
        pass
    try:
        fd = os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o666)
    except FileExistsError:
        return os.open(path, flags)
    os.fchmod(fd, 0o666)
    return fd


def try_lock(fd: int) -> bool:
    """Take an exclusive lock without waiting. It lasts until every copy of the descriptor is closed."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            return False
        raise
    return True


@contextlib.contextmanager
def hold_lock(path: Path, wait_s: float = 10.0) -> Iterator[int]:
    """Hold a short lock on a shared file. Raises AgentError where it is not free in time."""
    fd = open_shared(path)
    try:
        end = time.monotonic() + wait_s
        while not try_lock(fd):
            if time.monotonic() > end:
                raise AgentError("%s is locked by another process for more than %g s" % (path, wait_s), "lab")
            time.sleep(0.02)
        yield fd
    finally:
        os.close(fd)


def read_all(fd: int, limit: int = wire.MESSAGE_BYTES_MAX) -> bytes:
    """Return the content of an open file from its start, at most limit bytes."""
    return os.pread(fd, limit, 0)


def rewrite(fd: int, raw: bytes) -> None:
    """Replace a small file's content by one write in place, so that a killed writer leaves old or new."""
    size = os.fstat(fd).st_size
    os.pwrite(fd, raw + b" " * max(0, size - len(raw)), 0)
    os.ftruncate(fd, len(raw))


def read_bounded(path: Path, limit: int = wire.MESSAGE_BYTES_MAX) -> Optional[bytes]:
    """Return a file's bytes, None where it is absent; at most one byte more than limit is read."""
    try:
        with open(path, "rb") as handle:
            return handle.read(limit + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise_for_os(error, str(path))


def job_dir(state: Path, job_id: str) -> Path:
    """Return a job's folder. Raises AgentError for an id that is none; the folder need not exist."""
    if not wire.JOB_ID.match(job_id):
        raise AgentError("%r is not a job's id: 16 to 64 hexadecimal digits" % job_id[:80], "harness")
    return state / wire.JOBS_DIR / job_id


def alive(path: Path) -> bool:
    """True while somebody holds the lock on a file."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(fd)
    return False


def own_command() -> list[str]:
    """Return the command that starts this agent again: its own zip, or its source folder."""
    if ARCHIVE is not None:
        return [sys.executable, "-E", os.path.abspath(ARCHIVE)]
    code = "import sys; sys.path.insert(0, sys.argv.pop(1)); from edgeloop_agent.__main__ import main; sys.exit(main())"
    return [sys.executable, "-E", "-c", code, str(Path(__file__).resolve().parent.parent)]
