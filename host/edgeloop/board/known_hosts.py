"""Host keys as OpenSSH keeps them: looked up and written in its own files, so that `ssh` and edgeloop agree."""

from __future__ import annotations

import base64
import binascii
import fnmatch
import hashlib
import hmac
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from edgeloop.errors import LabError
from edgeloop.processes.files import write_whole


class HostKey(NamedTuple):
    """A host's public key: its type such as `ssh-ed25519`, `SHA256:...` as ssh-keygen prints it, and the key."""

    type: str
    fingerprint: str
    base64: str


@dataclass(frozen=True, slots=True)
class KnownKeys:
    """The keys that the files have of one host."""

    keys: tuple[HostKey, ...]
    revoked_keys: frozenset[str]
    """Keys, in base64, that no host may show."""


def host_key(key_type: str, key_base64: str) -> HostKey:
    """Raises ValueError where the text is not base64."""
    try:
        blob = base64.b64decode(key_base64, validate=True)
    except binascii.Error as error:
        raise ValueError(f"not a host key: {error}") from error
    digest = base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")
    return HostKey(key_type, f"SHA256:{digest}", key_base64)


def label_of(hostname: str, port: int) -> str:
    """The name that a host has in known_hosts."""
    return hostname.lower() if port == 22 else f"[{hostname.lower()}]:{port}"


def known_keys(files: Iterable[Path], label: str) -> KnownKeys:
    """Look a host up in these files; absent files hold nothing. Raises LabError for one that can't be read."""
    keys: list[HostKey] = []
    revoked_keys: set[str] = set()
    for file in files:
        for line in _lines(file):
            marker, names, key = _parse(line)
            if key is None:
                continue
            if marker == "@revoked":
                revoked_keys.add(key.base64)
            elif not marker and _names_match(names, label):
                keys.append(key)
    return KnownKeys(tuple(keys), frozenset(revoked_keys))


def write_known_host(file: Path, label: str, key: HostKey) -> None:
    """Make `key` the only key that the file has for this host; other lines stay as they are."""
    others = [line for line in _lines(file) if not _is_only_about(line, label)]
    text = "".join(f"{line}\n" for line in (*others, f"{label} {key.type} {key.base64}"))
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_whole(file, text, mode=0o600)
    except OSError as error:
        raise LabError(f"{file}: can't be written: {error.strerror}") from error


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise LabError(f"{file}: can't be read: {error.strerror}") from error


def _parse(line: str) -> tuple[str, str, HostKey | None]:
    """(marker, host names, key) of a line; the key is None for comments and what is no entry."""
    fields = line.split()
    marker = fields.pop(0) if fields and fields[0].startswith("@") else ""
    if len(fields) < 3 or fields[0].startswith("#"):
        return marker, "", None
    try:
        return marker, fields[0], host_key(fields[1], fields[2])
    except ValueError:
        return marker, "", None


def _names_match(names: str, label: str) -> bool:
    is_match = False
    for pattern in names.split(","):
        if pattern.startswith("|1|"):
            is_match = is_match or _hash_matches(pattern, label)
        elif pattern.startswith("!"):
            if fnmatch.fnmatchcase(label, _glob(pattern[1:])):
                return False
        elif fnmatch.fnmatchcase(label, _glob(pattern)):
            is_match = True
    return is_match


def _glob(pattern: str) -> str:
    """known_hosts has `*` and `?` alone; brackets stand for themselves there."""
    return pattern.lower().replace("[", "[[]")


def _hash_matches(pattern: str, label: str) -> bool:
    parts = pattern.split("|")
    try:
        salt, digest = (base64.b64decode(part, validate=True) for part in parts[2:4])
    except (ValueError, binascii.Error):
        return False
    return hmac.compare_digest(hmac.new(salt, label.encode(), hashlib.sha1).digest(), digest)


def _is_only_about(line: str, label: str) -> bool:
    marker, names, key = _parse(line)
    return key is not None and not marker and "," not in names and "*" not in names and _names_match(names, label)


def key_types_first(keys: Iterable[HostKey], algorithms: Iterable[str]) -> Iterator[str]:
    """Key types in the order to ask a server for: those that we know of it first."""
    first = {name for key in keys for name in _algorithms(key.type)}
    names = list(algorithms)
    yield from (name for name in names if name in first)
    yield from (name for name in names if name not in first)


def _algorithms(key_type: str) -> tuple[str, ...]:
    """An RSA key answers to several signature algorithms."""
    return ("rsa-sha2-512", "rsa-sha2-256", "ssh-rsa") if key_type == "ssh-rsa" else (key_type,)
