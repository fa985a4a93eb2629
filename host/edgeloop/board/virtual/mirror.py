"""The source of Debian packages: the mirror that this host's own apt uses, else Debian's default one."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

from edgeloop.errors import UserError
from edgeloop.sentences import Argument, Sentence

DEFAULT_MIRROR = "http://deb.debian.org/debian"
"""Debian's own, as its installation manual names it."""
_URI = re.compile(r"\A(?:https?|file|copy|mirror\+https?)://?\S+\Z")
_ONE_LINE = re.compile(r"\Adeb\s+(?:\[[^\]]*\]\s+)?(?P<uri>\S+)\s+(?P<suite>\S+)\s+(?P<components>.+)\Z")


def mirror_of_host(root: Path = Path("/")) -> str:
    """The mirror of a Debian host's sources for its own release; DEFAULT_MIRROR on any other host."""
    release = dict(_assignments(_text(root / "etc/os-release")))
    if release.get("ID") != "debian":
        return DEFAULT_MIRROR
    own = release.get("VERSION_CODENAME", "")
    for uri, suite, components in _sources(root / "etc/apt"):
        if suite in {own, "stable"} and "main" in components and _URI.match(uri):
            return uri.rstrip("/")
    return DEFAULT_MIRROR


def checked_mirror(text: str) -> str:
    """A mirror that the user named. Raises UserError."""
    if not _URI.match(text):
        what = Sentence("{} {} is not a mirror of Debian", Argument("mirror"), repr(text))
        raise UserError(what, next_step=f"write for instance {DEFAULT_MIRROR}")
    return text.rstrip("/")


def proxies_of_host() -> tuple[str, ...]:
    """The host's own `Acquire::...::Proxy` settings, as options of apt; none where apt is not there."""
    try:
        process = subprocess.run(["apt-config", "dump"], capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return ()
    return tuple(line for line in process.stdout.splitlines() if re.match(r"Acquire::\w+::(?:\S+::)?Proxy ", line))


def _sources(apt: Path) -> Iterator[tuple[str, str, tuple[str, ...]]]:
    """(URI, suite, components) of every binary source, the main file first."""
    parts = sorted((apt / "sources.list.d").glob("*")) if (apt / "sources.list.d").is_dir() else []
    for path in (apt / "sources.list", *parts):
        if path.suffix == ".list":
            for line in _text(path).splitlines():
                if match := _ONE_LINE.match(line.strip()):
                    yield match["uri"], match["suite"], tuple(match["components"].split())
        elif path.suffix == ".sources":
            for stanza in re.split(r"\n\s*\n", _text(path)):
                keys = dict(_fields(stanza))
                if "deb" not in keys.get("types", "").split() or keys.get("enabled", "yes") == "no":
                    continue
                for uri in keys.get("uris", "").split():
                    for suite in keys.get("suites", "").split():
                        yield uri, suite, tuple(keys.get("components", "").split())


def _fields(stanza: str) -> Iterator[tuple[str, str]]:
    """Keys of a deb822 stanza in small letters; lines that begin with a space continue the one before."""
    lines = [line for line in stanza.splitlines() if line.strip() and not line.startswith("#")]
    for line in re.sub(r"\n[ \t]+", " ", "\n".join(lines)).splitlines():
        key, colon, value = line.partition(":")
        if colon:
            yield key.strip().lower(), value.strip()


def _assignments(text: str) -> Iterator[tuple[str, str]]:
    for line in text.splitlines():
        key, equals, value = line.partition("=")
        if equals:
            yield key.strip(), value.strip().strip("\"'")


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
