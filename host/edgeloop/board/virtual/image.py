"""Images of virtual boards: built from Debian packages once for each (system, packages), kept in the user's cache.

An image holds no key and belongs to no board; each board starts from a copy of its disk.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from edgeloop.board.virtual import needs, rootfs
from edgeloop.board.virtual.mirror import checked_mirror, mirror_of_host, proxies_of_host
from edgeloop.core.frozen import Frozen, key_of
from edgeloop.errors import HarnessError, LabError
from edgeloop.processes.files import sha256_of
from edgeloop.sentences import Argument, Sentence

Arch = Literal["arm64", "armhf"]
SUITE = "bookworm"
"""Debian 12: its Python 3.11 is one that every runtime has wheels for, and its 32-bit system is Raspberry Pi OS's."""
DISK_MIB = 3072
"""Of a board; the file is sparse and takes what is in it."""
BUILD_DEADLINE_S = 900.0
BUILD_MIB = 1200
"""Of packages, unpacked files and the image together, while it is built."""
COPY_MIB = 600
"""Of a new board, with room for a runtime."""
_PACKAGES = (
    "base-files",
    "base-passwd",
    "bash",
    "busybox-static",
    "coreutils",
    "dash",
    "grep",
    "iproute2",
    "libc-bin",
    "libstdc++6",
    "mawk",
    "openssh-server",
    "procps",
    "python3",
    "python3-numpy",
    "sed",
    "util-linux",
)
_MULTIARCH: dict[Arch, str] = {"arm64": "aarch64-linux-gnu", "armhf": "arm-linux-gnueabihf"}


class Spec(Frozen):
    """The content of an image. A 32-bit system runs under a 64-bit kernel, as Raspberry Pi OS's does."""

    arch: Arch
    kernel_arch: Literal["arm64"] = "arm64"
    suite: str = SUITE
    packages: tuple[str, ...] = _PACKAGES
    kernel: str = "linux-image-cloud-arm64"
    disk_mib: int = DISK_MIB

    @property
    def key(self) -> str:
        """Changes with everything that the image's content depends on, but for the packages' versions."""
        here = Path(__file__).parent
        sources = [sha256_of(here / name) for name in ("rootfs.py", "initramfs.py")]
        return key_of("virtual-image", self, sources)[:16]

    @property
    def name(self) -> str:
        return f"{self.suite}-{self.arch}-{self.key}"


@dataclass(frozen=True, slots=True)
class Image:
    """A folder with `vmlinuz`, `initrd` and `root.img`."""

    folder: Path

    @property
    def kernel(self) -> Path:
        return self.folder / "vmlinuz"

    @property
    def initrd(self) -> Path:
        return self.folder / "initrd"

    @property
    def disk(self) -> Path:
        return self.folder / "root.img"


def image_for(spec: Spec, cache: Path, *, mirror: str | None, say: Callable[[str], None]) -> Image:
    """The image, built where the cache has none; whoever comes second waits for the first.

    Raises UserError for missing programs or a bad mirror, LabError where the packages can't be had or there is no room.
    A build that fails leaves nothing.
    """
    source = checked_mirror(mirror) if mirror is not None else mirror_of_host()
    image = Image(cache / spec.name)
    with _alone(cache / f"{spec.suite}-{spec.arch}.lock"):
        if not image.folder.is_dir():
            needs.require(needs.TO_BUILD, keyring=True)
            check_room(cache, BUILD_MIB)
            say(f"building a Debian {spec.suite} {spec.arch} image from {source}")
            _build(spec, image.folder, source)
            for older in cache.glob(f"{spec.suite}-{spec.arch}-*"):
                if older != image.folder:
                    shutil.rmtree(older, ignore_errors=True)
    return image


def copy_sparse(source: Path, target: Path) -> None:
    """Copy a file that has holes, holes kept; shared blocks where the file system can."""
    process = subprocess.run(
        ["cp", "--sparse=always", "--reflink=auto", str(source), str(target)],
        capture_output=True,
        text=True,
        check=False,
    )
    if process.returncode != 0:
        raise LabError(f"{target}: can't be written: {process.stderr.strip()[-200:]}", next_step="make room there")


def check_room(folder: Path, mib: int) -> None:
    """Raise LabError where the disk that a folder is on has less room than that."""
    nearest = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.is_dir())
    free_mib = shutil.disk_usage(nearest).free >> 20
    if free_mib < mib:
        raise LabError(f"{nearest}: {free_mib} MiB free, a virtual board needs {mib} MiB", next_step="make room there")


def _build(spec: Spec, folder: Path, mirror: str) -> None:
    with tempfile.TemporaryDirectory(prefix=".building-", dir=folder.parent) as name:
        work = Path(name)
        spec_file = work / "spec.json"
        plain = spec.model_dump(mode="json") | {
            "multiarch": _MULTIARCH[spec.arch],
            "mirror": mirror,
            "apt_options": proxies_of_host(),
            "mke2fs": needs.find("mke2fs"),
        }
        spec_file.write_text(json.dumps(plain), encoding="utf-8")
        new_folder = work / "made"
        new_folder.mkdir()
        argv = ["fakeroot", "--", sys.executable, "-m", rootfs.__name__, str(spec_file), str(new_folder)]
        with (work / "log").open("w+", encoding="utf-8", errors="replace") as log:
            status = _run(argv, log.fileno())
            log.seek(0)
            lines = [line for line in log.read().splitlines() if line.strip()]
        if status is None:
            raise LabError(
                f"the image was not built within {BUILD_DEADLINE_S:g} s",
                next_step=_other_mirror(mirror),
            )
        if status != 0:
            raise _failure(lines, mirror)
        new_folder.rename(folder)


def _run(argv: list[str], log: int) -> int | None:
    """Run to its end or the deadline, with everything it started; None for the deadline."""
    environment = {**os.environ, "LC_ALL": "C", "TMPDIR": tempfile.gettempdir()}
    with subprocess.Popen(
        argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, start_new_session=True
    ) as process:
        try:
            return process.wait(BUILD_DEADLINE_S)
        except subprocess.TimeoutExpired:
            return None
        finally:
            if process.poll() is None:
                os.killpg(process.pid, 9)


def _other_mirror(mirror: str) -> str:
    return Sentence("see whether {} answers, or name another one with {}", mirror, Argument("mirror"))


def _failure(lines: list[str], mirror: str) -> HarnessError | LabError:
    errors = [line for line in lines if line.startswith(("E:", "E ", "Err:"))] or lines or ["no message"]
    text = f"the image could not be built: {' '.join(errors[-1].split())[:300]}"
    fetching = ("fetch", "resolve", "connect", "404", "signature", "NO_PUBKEY", "update")
    if any(word.lower() in line.lower() for line in errors for word in fetching):
        return LabError(text, next_step=_other_mirror(mirror))
    return HarnessError(text, next_step="see whether mmdebstrap, fakeroot and e2fsprogs are whole and up to date")


@contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """One process at a time; what a killed builder left beside the lock is removed."""
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        handle = lock.open("a")
    except OSError as error:
        raise LabError(
            f"{lock}: can't be written: {error.strerror}", next_step="make room, or change its owner"
        ) from error
    with handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
