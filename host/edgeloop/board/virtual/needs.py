"""The programs of this host that virtual boards are made and run with, each with the package that brings it."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from edgeloop.errors import ConfigError, Fault

_ALSO = "/usr/sbin:/usr/local/sbin:/sbin"
"""Where mke2fs lies; not on an ordinary user's PATH."""
KEYRINGS = (Path("/usr/share/keyrings/debian-archive-keyring.gpg"), Path("/etc/apt/trusted.gpg.d"))


@dataclass(frozen=True, slots=True)
class Need:
    """A program, the Debian package it comes in, and what it is for."""

    program: str
    package: str
    use: str


QEMU = Need("qemu-system-aarch64", "qemu-system-arm", "running virtual boards")
TO_BUILD = (
    Need("mmdebstrap", "mmdebstrap", "building images of virtual boards"),
    Need("fakeroot", "fakeroot", "building images of virtual boards without root"),
    Need("mke2fs", "e2fsprogs", "building images of virtual boards"),
)
TO_RUN = (QEMU,)
ALL = (*TO_RUN, *TO_BUILD)


def find(program: str) -> str | None:
    """The program's path, in the folders for administration too."""
    return shutil.which(program) or shutil.which(program, path=_ALSO)


def require(needs: Iterable[Need], *, keyring: bool = False) -> None:
    """Raise ConfigError that names everything missing, each with the command that installs it."""
    faults = list(_missing(needs))
    if keyring and not any(path.exists() for path in KEYRINGS):
        faults.append(
            Fault(
                "virtual boards",
                "Debian's archive keys are not on this machine, and packages are checked with them",
                "sudo apt-get install debian-archive-keyring",
            )
        )
    if faults:
        raise ConfigError(faults)


def _missing(needs: Iterable[Need]) -> Iterator[Fault]:
    for need in needs:
        if find(need.program) is None:
            yield Fault("virtual boards", f"{need.program} is not installed; it is for {need.use}", _install(need))


def _install(need: Need) -> str:
    if sys.platform == "darwin":
        return "virtual boards are built on Debian, Ubuntu and their relatives: use such a host"
    return f"sudo apt-get install {need.package}"
