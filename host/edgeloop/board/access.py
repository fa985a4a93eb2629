"""The way to a board: the board's file joined with ~/.ssh/config, hop by hop. Connecting is left to `ssh`."""

from __future__ import annotations

import getpass
import io
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import paramiko
from paramiko.ssh_exception import ConfigParseError

from edgeloop.board.known_hosts import label_of
from edgeloop.core.board import Ssh
from edgeloop.errors import LabError

_HOPS_MAX = 8
_INCLUDES_MAX = 8
_DEFAULT_IDENTITIES = ("~/.ssh/id_ed25519", "~/.ssh/id_ecdsa", "~/.ssh/id_rsa")
_GLOBAL_CONFIG = Path("/etc/ssh/ssh_config")
_GLOBAL_KNOWN_HOSTS = (Path("/etc/ssh/ssh_known_hosts"), Path("/etc/ssh/ssh_known_hosts2"))
_PLACE = re.compile(r"\A(?:ssh://)?(?:(?P<user>[^@/]+)@)?(?P<host>\[[^\]]+\]|[^\[\]/:@]+)(?::(?P<port>\d{1,5}))?/?\Z")


@dataclass(frozen=True, slots=True)
class Hop:
    """One SSH server on the way. The last hop of a route is the board."""

    hostname: str
    port: int
    user: str
    identity_files: tuple[Path, ...]
    named_identities: bool
    """True where somebody named the identity files: one that is absent is then worth a word."""
    identities_only: bool
    proxy_command: str | None
    known_hosts: tuple[Path, ...]
    label: str
    """Its name in known_hosts."""
    pinned_key: str | None = None
    """`SHA256:...` that its key must have; None: known_hosts decides."""

    def __str__(self) -> str:
        return f"{self.user}@{self.hostname}:{self.port}"


def parse_place(text: str) -> tuple[str | None, str, int | None]:
    """Split `user@host:port` into user, host and port. Raises ValueError."""
    match = _PLACE.match(text.strip())
    if match is None or (match["port"] and not 1 <= int(match["port"]) <= 65535):
        raise ValueError(f"{text!r} is not user@host[:port]")
    return match["user"], match["host"].strip("[]"), int(match["port"]) if match["port"] else None


def route_to(ssh: Ssh) -> tuple[Hop, ...]:
    """Return the hops from here to the board. Raises LabError for a config that can't be read or goes in circles."""
    return tuple(_hops(ssh, 0))


def _hops(ssh: Ssh, depth: int) -> Iterator[Hop]:
    if depth > _HOPS_MAX:
        raise LabError(f"{ssh.host}: more than {_HOPS_MAX} jump hosts", next_step="look for a circle in ~/.ssh/config")
    options = _options(ssh)
    jump = options.get("proxyjump") or ""
    if jump.lower() != "none":
        for number, text in enumerate(filter(None, jump.split(","))):
            try:
                user, host, port = parse_place(text)
            except ValueError as error:
                raise LabError(f"{ssh.host}: ProxyJump: {error}") from error
            own_jump = None if number == 0 else "none"  # the later ones are reached through the one before
            yield from _hops(Ssh(host=host, user=user, port=port, jump=own_jump), depth + 1)
    try:
        yield _hop(ssh, options)
    except ValueError as error:
        raise LabError(f"{ssh.host}: what its configuration says can't be used: {error}") from error


def _hop(ssh: Ssh, options: paramiko.SSHConfigDict) -> Hop:
    hostname = str(options["hostname"])
    port = int(options.get("port", 22))
    user_files = shlex.split(options.get("userknownhostsfile", "~/.ssh/known_hosts ~/.ssh/known_hosts2"))
    alias = options.get("hostkeyalias")
    identities = options.get("identityfile")
    return Hop(
        hostname=hostname,
        port=port,
        user=str(options.get("user", "")) or getpass.getuser(),
        identity_files=tuple(Path(name).expanduser() for name in identities or _DEFAULT_IDENTITIES),
        named_identities=bool(identities),
        identities_only=str(options.get("identitiesonly", "no")).lower() == "yes",
        proxy_command=options.get("proxycommand"),
        known_hosts=(*(Path(name).expanduser() for name in user_files), *_GLOBAL_KNOWN_HOSTS),
        label=str(alias).lower() if alias else label_of(hostname, port),
        pinned_key=ssh.host_key,
    )


def _options(ssh: Ssh) -> paramiko.SSHConfigDict:
    """The options of the board's file, then of ~/.ssh/config, then of the global file: the first value wins."""
    own = [f"Host {shlex.quote(ssh.host)}"]
    for key, value in (("User", ssh.user), ("Port", ssh.port), ("IdentityFile", ssh.identity_file)):
        if value is not None:
            own.append(f"{key} {value}")
    if ssh.jump is not None:
        own.append(f"ProxyJump {ssh.jump}")
    config = paramiko.SSHConfig()
    where = f"board {ssh.host}"
    try:
        config.parse(io.StringIO("\n".join(own)))
        for path in (Path("~/.ssh/config").expanduser(), _GLOBAL_CONFIG):
            where = str(path)
            config.parse(io.StringIO("\n".join(_with_includes(path, 0))))
        options = config.lookup(ssh.host)
    except (ConfigParseError, ImportError, KeyError, ValueError) as error:
        raise LabError(f"{where}: {error}") from error
    return options


def _with_includes(path: Path, depth: int) -> Iterator[str]:
    """The lines of a config with `Include`d files in place. Absent files hold nothing."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise LabError(f"{path}: can't be read: {error.strerror}") from error
    for line in text.splitlines():
        words = line.strip().split(None, 1)
        if len(words) == 2 and words[0].lower() == "include":
            if depth >= _INCLUDES_MAX:
                raise LabError(f"{path}: Include goes deeper than {_INCLUDES_MAX} files")
            for pattern in shlex.split(words[1]):
                root = Path(pattern).expanduser()
                base = root if root.is_absolute() else path.parent / root
                for file in sorted(base.parent.glob(base.name)):
                    yield from _with_includes(file, depth + 1)
        else:
            yield line
