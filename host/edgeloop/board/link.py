"""The part that links share: the answer of a command, bounded output, and a fetched file that appears whole or not.

How a command gets to the board is left to `ssh` and `local`.
"""

from __future__ import annotations

import os
import shlex
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgeloop.errors import BoardError, HarnessError, LabError, UnreachableError

STDERR_BYTES_MAX = 16 * 1024 * 1024
Sink = Callable[[bytes], None]


@dataclass(frozen=True, slots=True)
class Completed:
    """A command that ended. `exit_status` is 127 where there is no such command, negative after a signal."""

    exit_status: int
    stdout: bytes
    stderr: bytes

    @property
    def last_words(self) -> str:
        """The last line of stderr, cut to fit into a message."""
        return last_line(self.stderr)


def last_line(raw: bytes) -> str:
    """The last line of a program's output, printable and at most 300 characters."""
    lines = raw[-4096:].decode("utf-8", "replace").strip().splitlines()
    return "".join(c if c.isprintable() else "?" for c in lines[-1])[:300] if lines else ""


def shell_line(argv: Sequence[str]) -> str:
    """A command as messages have it."""
    text = shlex.join(argv)
    return text if len(text) <= 80 else text[:77] + "..."


class CommandLink(ABC):
    """A Link whose adapters have one thing to say: how to run a command with streams attached."""

    def __init__(self, where: str) -> None:
        self.where = where
        """The board as messages name it."""

    @abstractmethod
    def exchange(
        self, argv: Sequence[str], stdin: bytes | Path | None, stdout: Sink, stderr: Sink, deadline_s: float
    ) -> int:
        """Run, feed and drain at once, return the exit status. What a sink raises ends the command.

        Raises UnreachableError where the deadline passes.
        """

    @abstractmethod
    def close(self) -> None: ...

    def run(
        self,
        argv: Sequence[str],
        *,
        stdin: bytes | Path | None = None,
        deadline_s: float = 30.0,
        output_max: int = 16 * 1024 * 1024,
    ) -> Completed:
        """Run a command; a Path as stdin is streamed. Raises BoardError for more than `output_max` bytes of output."""
        if isinstance(stdin, Path) and not stdin.is_file():
            raise HarnessError(f"{stdin}: no such file to send to {self.where}")
        out, err = bytearray(), bytearray()
        status = self.exchange(
            argv,
            stdin,
            self._with_limit(out.extend, output_max, argv),
            self._with_limit(err.extend, STDERR_BYTES_MAX, argv),
            deadline_s,
        )
        return Completed(status, bytes(out), bytes(err))

    def fetch(self, remote: str, local: Path, *, deadline_s: float = 120.0, size_max: int = 1 << 30) -> None:
        """Copy one file here, to a temporary name first. Raises BoardError where it can't be read or is too large."""
        argv = ["cat", "--", remote]
        temporary = local.with_name(f".{local.name}.{os.getpid()}.part")
        err = bytearray()
        try:
            with temporary.open("wb") as handle:

                def write(data: bytes) -> None:
                    handle.write(data)

                status = self.exchange(
                    argv,
                    None,
                    self._with_limit(write, size_max, argv),
                    self._with_limit(err.extend, STDERR_BYTES_MAX, argv),
                    deadline_s,
                )
            if status != 0:
                raise BoardError(f"{self.where}: {remote} can't be read: {last_line(bytes(err)) or f'exit {status}'}")
            temporary.replace(local)
        except OSError as error:
            raise LabError(f"{local}: can't be written on this machine: {error.strerror or error}") from error
        finally:
            temporary.unlink(missing_ok=True)

    def late(self, argv: Sequence[str], deadline_s: float) -> UnreachableError:
        """The error for a command whose deadline passed."""
        return UnreachableError(
            f"{self.where}: no answer to `{shell_line(argv)}` within {deadline_s:g} s",
            next_step="see whether the board is up and its network answers",
        )

    def _with_limit(self, write: Sink, most: int, argv: Sequence[str]) -> Sink:
        rest = most

        def sink(data: bytes) -> None:
            nonlocal rest
            rest -= len(data)
            if rest < 0:
                raise BoardError(f"{self.where}: `{shell_line(argv)}` sent more than {most} bytes; it was stopped")
            write(data)

        return sink
