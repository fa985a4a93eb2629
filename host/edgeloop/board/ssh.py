"""Commands on a board over SSH (paramiko): pinned host keys, keys and agents, jump hosts, a deadline on every wait.

Foreign errors are translated here, once. A connection is made at the first command and again at the first command
after it was lost; retrying is left to the caller.
"""

from __future__ import annotations

import contextlib
import io
import logging
import shlex
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO

import paramiko
from paramiko.pkey import UnknownKeyType

from edgeloop.board.access import Hop, route_to
from edgeloop.board.known_hosts import HostKey, host_key, key_types_first, known_keys, write_known_host
from edgeloop.board.link import CommandLink, Sink, last_line
from edgeloop.core.board import Ssh
from edgeloop.errors import EdgeloopError, HostKeyError, LabError, UnreachableError
from edgeloop.sentences import command_line

_CHUNK = 1 << 16
_BLOCK = 1 << 20
_PACKET = (1 << 15) - 64  # what paramiko sends of OpenSSH's 32 KiB packets; a byte more would make two
_WINDOW = 8 * 1024 * 1024
_KEEPALIVE_S = 15
# The hardware of nearly every host and 64-bit board does AES-GCM; it is the fastest that paramiko has.
_FAST_CIPHERS = ("aes128-gcm@openssh.com", "aes256-gcm@openssh.com")
_KEY_FAMILIES = ("ed25519", "ecdsa", "rsa")
_SSH_ERRORS = (paramiko.SSHException, OSError, EOFError)
logging.getLogger("paramiko").addHandler(logging.NullHandler())  # its threads would print tracebacks on stderr


class SshLink(CommandLink):
    """A Link to one board. `name` is what the board is called in next steps such as `edgeloop targets trust NAME`."""

    def __init__(self, ssh: Ssh, name: str | None = None) -> None:
        hops = route_to(ssh)
        super().__init__(str(hops[-1]))
        self._hops = hops
        self._name = name or ssh.host
        self._connect_timeout_s = ssh.connect_timeout_s
        self._lock = threading.Lock()
        self._connection: _Connection | None = None

    def close(self) -> None:
        with self._lock:
            connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def exchange(
        self, argv: Sequence[str], stdin: bytes | Path | None, stdout: Sink, stderr: Sink, deadline_s: float
    ) -> int:
        ends_s = time.monotonic() + deadline_s
        connection = self._ensure_connection(min(deadline_s, self._connect_timeout_s))
        is_late = threading.Event()

        def expire() -> None:
            is_late.set()
            connection.close()

        # paramiko waits without end in several places, on a frozen server too. Closing the connection ends them all.
        watchdog = threading.Timer(max(0.0, ends_s - time.monotonic()), expire)
        watchdog.daemon = True
        watchdog.start()
        try:
            status = _converse(connection.transport, shlex.join(argv), stdin, stdout, stderr, deadline_s)
            if status == -1 and not connection.alive:
                raise EOFError("the connection was closed")
            return status
        except EdgeloopError:
            connection.close()
            raise
        except _SSH_ERRORS as error:
            connection.close()
            if (
                is_late.is_set() or time.monotonic() >= ends_s
            ):  # opening a channel has the same deadline, and may end first
                raise self.late(argv, deadline_s) from error
            raise UnreachableError(
                f"{self.where}: the connection was lost: {_reason(error)}",
                next_step="see whether the board is up and its network answers",
            ) from error
        finally:
            watchdog.cancel()

    def _ensure_connection(self, timeout_s: float) -> _Connection:
        with self._lock:
            if self._connection is None or not self._connection.alive:
                self._connection = _connect(self._hops, self._name, timeout_s, log_in=True)
            return self._connection


def scan_host_key(ssh: Ssh) -> HostKey:
    """Ask a host for its key, as `ssh-keyscan`; nothing is trusted by that. Raises UnreachableError, LabError."""
    hops = route_to(ssh)
    connection = _connect(hops, ssh.host, ssh.connect_timeout_s, log_in=False)
    try:
        return _shown_key(connection.transport)
    finally:
        connection.close()


def trust_host_key(ssh: Ssh, key: HostKey) -> Path:
    """Make `key` the one that this host must show from now on; return the known_hosts file it was written to."""
    last = route_to(ssh)[-1]
    write_known_host(last.known_hosts[0], last.label, key)
    return last.known_hosts[0]


class _Connection:
    """Transports from here to the board, each inside the one before; closed together."""

    def __init__(self) -> None:
        self._transports: list[paramiko.Transport] = []
        self._proxy: _Proxy | None = None

    @property
    def transport(self) -> paramiko.Transport:
        return self._transports[-1]

    @property
    def alive(self) -> bool:
        return all(transport.is_active() for transport in self._transports)

    def close(self) -> None:
        # The outermost socket first: closing an inner one would have to send through it, and it may be frozen.
        for transport in self._transports:
            transport.close()
        if self._proxy is not None:
            self._proxy.close()

    def add(self, hop: Hop, timeout_s: float) -> paramiko.Transport:
        sock: socket.socket | paramiko.Channel
        if self._transports:
            sock = self.transport.open_channel(
                "direct-tcpip", (hop.hostname, hop.port), ("127.0.0.1", 0), timeout=timeout_s
            )
        elif hop.proxy_command:
            self._proxy = _Proxy(hop.proxy_command)
            sock = self._proxy.sock
        else:
            sock = socket.create_connection((hop.hostname, hop.port), timeout=timeout_s)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        transport = paramiko.Transport(sock, default_window_size=_WINDOW)
        self._transports.append(transport)
        return transport

    def proxy_words(self) -> str:
        return self._proxy.last_words() if self._proxy else ""


class _Proxy:
    """A ProxyCommand behind a socket, so that its end is seen as the end of a connection."""

    def __init__(self, command: str) -> None:
        self.sock, theirs = socket.socketpair()
        self._stderr: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 -- it lives as long as the process
        self._process = subprocess.Popen(
            ["/bin/sh", "-c", f"exec {command}"],
            stdin=theirs.fileno(),
            stdout=theirs.fileno(),
            stderr=self._stderr.fileno(),
        )
        theirs.close()

    def last_words(self) -> str:
        self._stderr.seek(0)
        return last_line(self._stderr.read())

    def close(self) -> None:
        self.sock.close()
        self._process.kill()
        self._process.wait()
        self._stderr.close()


def _connect(hops: Sequence[Hop], name: str, timeout_s: float, *, log_in: bool) -> _Connection:
    """Connect hop by hop; `log_in` False stops at the last hop's host key, unchecked."""
    try:
        return _connect_once(hops, name, timeout_s, log_in=log_in)
    except HostKeyError:
        if hops[-1].pinned_key is None:
            raise
        # A fingerprint does not tell its key's type, and a server shows one key of several: ask for the others.
        for family in _KEY_FAMILIES:
            with contextlib.suppress(HostKeyError, UnreachableError):
                return _connect_once(hops, name, timeout_s, log_in=log_in, key_family=family)
        raise


def _connect_once(
    hops: Sequence[Hop], name: str, timeout_s: float, *, log_in: bool, key_family: str | None = None
) -> _Connection:
    connection = _Connection()
    try:
        for hop in hops:
            last = hop is hops[-1]
            try:
                _connect_hop(
                    connection,
                    hop,
                    name if last else hop.hostname,
                    timeout_s,
                    log_in=log_in or not last,
                    key_family=key_family if last else None,
                )
            except _SSH_ERRORS as error:
                words = connection.proxy_words()
                raise UnreachableError(
                    f"{hop.hostname}:{hop.port} does not answer as an SSH server: {words or _reason(error)}",
                    next_step=f"see whether it is up: ssh -p {hop.port} {hop.user}@{hop.hostname}",
                ) from error
    except BaseException:
        connection.close()
        raise
    return connection


def _connect_hop(
    connection: _Connection, hop: Hop, name: str, timeout_s: float, *, log_in: bool, key_family: str | None
) -> None:
    ends_s = time.monotonic() + timeout_s
    host_keys = known_keys(hop.known_hosts, hop.label)
    transport = connection.add(hop, timeout_s)
    options = transport.get_security_options()
    options.ciphers = (*_FAST_CIPHERS, *(c for c in options.ciphers if c not in _FAST_CIPHERS))
    if hop.pinned_key is None:
        options.key_types = tuple(key_types_first(host_keys.keys, options.key_types))
    elif key_family is not None:
        options.key_types = tuple(kind for kind in options.key_types if key_family in kind)
    left_s = max(0.1, ends_s - time.monotonic())
    transport.banner_timeout = left_s
    transport.handshake_timeout = left_s
    transport.start_client(timeout=left_s)
    if not log_in:
        return
    _check_key(_shown_key(transport), hop, host_keys.keys, host_keys.revoked_keys, name)
    transport.auth_timeout = max(0.1, ends_s - time.monotonic())
    _log_in(transport, hop)
    transport.set_keepalive(_KEEPALIVE_S)


def _shown_key(transport: paramiko.Transport) -> HostKey:
    key = transport.get_remote_server_key()
    return host_key(key.get_name(), key.get_base64())


def _check_key(key: HostKey, hop: Hop, host_keys: Sequence[HostKey], revoked_keys: frozenset[str], name: str) -> None:
    """Nothing has been sent yet but the key exchange; nothing is sent where this raises."""
    if key.base64 in revoked_keys:
        raise HostKeyError(f"{hop}: the host key {key.fingerprint} is marked as revoked in known_hosts")
    fingerprints = (hop.pinned_key,) if hop.pinned_key else tuple(key.fingerprint for key in host_keys)
    if key.fingerprint in fingerprints:
        return
    trust = command_line("targets trust", name)
    if fingerprints:
        raise HostKeyError(
            f"{hop}: the {key.type} host key is {key.fingerprint}, not the pinned {' or '.join(fingerprints)};"
            " nothing was sent",
            next_step=f"somebody else may answer there; if the board was installed anew: {trust}",
        )
    raise LabError(
        f"{hop}: its {key.type} host key {key.fingerprint} is not known here; nothing was sent",
        next_step=f"compare it with the board's own, then: {trust}",
    )


def _log_in(transport: paramiko.Transport, hop: Hop) -> None:
    """Try the named identity files, then the agent's keys, then the default files. Raises LabError with all tried."""
    attempts: list[str] = []
    for label, key in _identities(hop, attempts):
        attempts.append(label)
        try:
            more = transport.auth_publickey(hop.user, key)
        except paramiko.AuthenticationException:
            continue
        except paramiko.SSHException as error:
            if transport.is_active():  # such as an agent that refuses to sign
                attempts[-1] += f" ({_reason(error)})"
                continue
            attempts.append("then the server hung up")
            break
        if not more:
            return
        attempts[-1] += f" (accepted, but {' and '.join(more)} is wanted too, which edgeloop does not do)"
    raise LabError(
        f"{hop}: the server took none of our keys; tried: {', '.join(attempts) or 'none, there is no key'}",
        next_step="name the key with identity_file, or put it there:"
        f" ssh-copy-id -p {hop.port} {hop.user}@{hop.hostname}",
    )


def _identities(hop: Hop, attempts: list[str]) -> Iterator[tuple[str, paramiko.PKey]]:
    """Keys with their labels, in the order to try; files that are no use are added to `attempts` with the reason."""

    def files() -> Iterator[tuple[str, paramiko.PKey]]:
        for path in hop.identity_files:
            try:
                yield str(path), paramiko.PKey.from_path(path)
            except FileNotFoundError:
                if hop.named_identities:
                    attempts.append(f"{path} (no such file)")
            except (paramiko.PasswordRequiredException, TypeError):
                attempts.append(f"{path} (encrypted; ssh-add it)")
            except (OSError, ValueError, paramiko.SSHException, UnknownKeyType) as error:
                attempts.append(f"{path} ({_reason(error)})")

    if hop.named_identities:
        yield from files()
    yield from _agent_keys(hop)
    if not hop.named_identities:
        yield from files()


def _agent_keys(hop: Hop) -> Iterator[tuple[str, paramiko.PKey]]:
    agent_keys = {key for path in hop.identity_files for key in _public_half(path)} if hop.identities_only else None
    try:
        agent = paramiko.Agent()
    except (paramiko.SSHException, OSError):
        return  # SSH_AUTH_SOCK names an agent that is gone
    with contextlib.closing(agent):
        for key in agent.get_keys():
            if agent_keys is None or key.get_base64() in agent_keys:
                yield f"agent's {key.get_name()}", key


def _public_half(path: Path) -> Iterator[str]:
    try:
        yield path.with_name(path.name + ".pub").read_text(encoding="utf-8", errors="replace").split()[1]
    except (OSError, IndexError):
        return


def _converse(
    transport: paramiko.Transport,
    command: str,
    stdin: bytes | Path | None,
    stdout: Sink,
    stderr: Sink,
    deadline_s: float,
) -> int:
    """Run one command. Both outputs are drained while stdin is fed: a full window of either would stop the rest."""
    channel = transport.open_session(timeout=deadline_s)
    channel.exec_command(command)
    failures: list[BaseException] = []

    def run_guarded(work: Callable[[], None]) -> None:
        try:
            work()
        except (EdgeloopError, OSError, EOFError, paramiko.SSHException) as error:
            failures.append(error)
            transport.close()  # ends the others

    def feed() -> None:
        if isinstance(stdin, Path):
            with stdin.open("rb") as handle:
                _send(channel, handle)
        elif stdin:
            _send(channel, io.BytesIO(stdin))
        if not channel.closed:
            channel.shutdown_write()

    def drain(receive: Callable[[int], bytes], sink: Sink) -> None:
        while data := receive(_CHUNK):
            sink(data)

    threads = [
        threading.Thread(target=run_guarded, args=(work,), daemon=True)
        for work in (feed, lambda: drain(channel.recv_stderr, stderr))
    ]
    for thread in threads:
        thread.start()
    run_guarded(lambda: drain(channel.recv, stdout))
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    status = channel.recv_exit_status()
    channel.close()
    return status


def _send(channel: paramiko.Channel, source: IO[bytes]) -> None:
    """Send until the source ends or the command does, which it may without reading all of its input."""
    while data := source.read(_BLOCK):
        rest = memoryview(data)
        while rest:
            try:
                count = channel.send(bytes(rest[:_PACKET]))
            except OSError:
                if channel.closed:
                    return
                raise
            if count == 0:
                return
            rest = rest[count:]


def _reason(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
