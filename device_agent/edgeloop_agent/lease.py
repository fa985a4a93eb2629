"""The lease: who may use the board, until when. It lives on the board, so controllers need no server between them.

`lease.json` holds token, owner, boot id and expiry on CLOCK_BOOTTIME, and is changed in place under a lock on itself.
A lease of another boot, or one past its expiry, is void. The token fences: a job that carries an old one is refused.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Optional

from edgeloop_agent import folder, wire
from edgeloop_agent.errors import AgentError

_TOKEN = re.compile(r"\A[A-Za-z0-9_.-]{8,128}\Z")
SECONDS_MAX = 7 * 24 * 3600
KEPT_S = 120.0
"""The most that a running job keeps of its lease, renewed at half of it."""


@dataclass(frozen=True)
class Lease:
    """A valid lease."""

    token: str
    owner: str
    expires_boottime_ns: int


class LeaseFile:
    """The lease of one state folder. Clock and boot id come in, so that tests can move them."""

    def __init__(
        self,
        state: Path,
        now_ns: Callable[[], int] = folder.boottime_ns,
        boot: Optional[str] = None,
    ) -> None:
        self._path = state / wire.LEASE_FILE
        self._now_ns = now_ns
        self._boot = boot or folder.boot_id()

    def current(self) -> Optional[Lease]:
        """Return the lease in force, None where the board is free."""
        with folder.hold_lock(self._path) as fd:
            return self._parse(folder.read_all(fd, 4096))

    def acquire(self, owner: str, seconds: float, token: Optional[str] = None) -> dict[str, Any]:
        """Take the lease, or say who has it. The current token may acquire again, which renews."""
        _check(owner, seconds, token)
        with folder.hold_lock(self._path) as fd:
            lease = self._parse(folder.read_all(fd, 4096))
            if lease is not None and lease.token != token:
                return {
                    "acquired": False,
                    "holder": lease.owner,
                    "remaining_s": self._remaining_s(lease),
                    "boot_id": self._boot,
                }
            return {"acquired": True, **self._write(fd, token or os.urandom(16).hex(), owner, seconds)}

    def renew(self, token: str, seconds: float) -> dict[str, Any]:
        """Move the expiry. Raises AgentError where the token is not the current one."""
        with folder.hold_lock(self._path) as fd:
            lease = self._parse(folder.read_all(fd, 4096))
            if lease is None or lease.token != token:
                raise AgentError(self._why_lost(lease), "lab", wire.ErrorCode.LEASE)
            _check(lease.owner, seconds, token)
            return {"renewed": True, **self._write(fd, token, lease.owner, seconds)}

    def release(self, token: str) -> dict[str, Any]:
        """Free the board, where the token is the current one."""
        with folder.hold_lock(self._path) as fd:
            lease = self._parse(folder.read_all(fd, 4096))
            if lease is None or lease.token != token:
                return {"released": False}
            folder.rewrite(fd, b"{}")
        return {"released": True}

    def show(self) -> dict[str, Any]:
        """Say who holds the board."""
        lease = self.current()
        return {
            "held": lease is not None,
            "holder": lease.owner if lease else None,
            "remaining_s": self._remaining_s(lease) if lease else 0.0,
            "boot_id": self._boot,
        }

    def keep(self, token: str) -> Optional[str]:
        """Hold on to the lease; return one line where this token is not the current one, None where it is.

        Where less than KEPT_S is left, that much is left then: a lease lasts as long as somebody keeps it, and not
        long after.
        """
        with folder.hold_lock(self._path) as fd:
            lease = self._parse(folder.read_all(fd, 4096))
            if lease is None or lease.token != token:
                return self._why_lost(lease)
            if self._remaining_s(lease) < KEPT_S / 2:
                self._write(fd, token, lease.owner, KEPT_S)
        return None

    def _why_lost(self, lease: Optional[Lease]) -> str:
        if lease is None:
            return "the lease has expired, was released, or is from before a reboot"
        return "the lease was taken over by %s for another %.0f s" % (lease.owner, self._remaining_s(lease))

    def _remaining_s(self, lease: Lease) -> float:
        return round((lease.expires_boottime_ns - self._now_ns()) / 1e9, 3)

    def _write(self, fd: int, token: str, owner: str, seconds: float) -> dict[str, Any]:
        expires = self._now_ns() + int(seconds * 1e9)
        lease = {"token": token, "owner": owner, "boot_id": self._boot, "expires_boottime_ns": expires}
        folder.rewrite(fd, json.dumps({**lease, "schema": wire.SCHEMA}).encode())
        return {**lease, "remaining_s": seconds}

    def _parse(self, raw: bytes) -> Optional[Lease]:
        try:
            value = wire.load_json(raw)
            lease = Lease(value["token"], value["owner"], value["expires_boottime_ns"])
            valid = value["boot_id"] == self._boot and lease.expires_boottime_ns > self._now_ns()
        except (wire.WireError, KeyError, TypeError):
            return None
        return lease if valid and isinstance(lease.token, str) and isinstance(lease.owner, str) else None


def _check(owner: str, seconds: float, token: Optional[str]) -> None:
    if not 0 < seconds <= SECONDS_MAX:
        raise AgentError("a lease lasts more than 0 and at most %d s, not %g" % (SECONDS_MAX, seconds), "user")
    if not owner or len(owner) > 200 or not owner.isprintable():
        raise AgentError("a lease's owner is 1 to 200 printable characters", "user")
    if token is not None and not _TOKEN.match(token):
        raise AgentError("a lease's token is 8 to 128 letters, digits, '_', '.' or '-'", "harness")
