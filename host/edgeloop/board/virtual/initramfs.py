"""Archives for the kernel's initramfs (cpio in the `newc` form, see the kernel's early-userspace/buffer-format).

Several archives may follow each other in one initrd: the image's own, then the one that makes a board its own.
"""

from __future__ import annotations

import stat
from collections.abc import Iterable
from dataclasses import dataclass

_TRAILER = "TRAILER!!!"
ALIGNMENT = 4


@dataclass(frozen=True, slots=True)
class Member:
    """A file or, without `data`, a folder; owned by root. `path` has no leading slash."""

    path: str
    mode: int
    data: bytes | None = None


def archive(members: Iterable[Member]) -> bytes:
    """The archive, a whole number of 4-byte words. Folders must come before what is in them."""
    parts: list[bytes] = []
    for number, member in enumerate(members, start=1):
        kind = stat.S_IFDIR if member.data is None else stat.S_IFREG
        parts.append(_entry(number, member.path, kind | member.mode, member.data or b""))
    parts.append(_entry(0, _TRAILER, 0, b""))
    return b"".join(parts)


def _entry(inode: int, path: str, mode: int, data: bytes) -> bytes:
    name = path.encode() + b"\0"
    links = 2 if stat.S_ISDIR(mode) else 1
    #        ino    mode  uid gid nlink  mtime size       dev      rdev  namesize   check
    fields = (inode, mode, 0, 0, links, 0, len(data), 0, 0, 0, 0, len(name), 0)
    header = b"070701" + b"".join(b"%08X" % field for field in fields)
    return _padded(header + name) + _padded(data)


def _padded(raw: bytes) -> bytes:
    return raw + b"\0" * (-len(raw) % ALIGNMENT)
