"""Commands on this machine, through the same Link as a board's: the local bench is measured by the very same code."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from edgeloop.board.link import CommandLink, Sink

_CHUNK = 1 << 16


class LocalLink(CommandLink):
    """Each command is a subprocess in a process group of its own, killed as a group at its deadline."""

    def __init__(self) -> None:
        super().__init__("this machine")

    def close(self) -> None:
        """Nothing stays open between commands."""

    def exchange(
        self, argv: Sequence[str], stdin: bytes | Path | None, stdout: Sink, stderr: Sink, deadline_s: float
    ) -> int:
        ends = time.monotonic() + deadline_s
        with contextlib.ExitStack() as stack:
            source: IO[bytes] | int = subprocess.DEVNULL if stdin is None else subprocess.PIPE
            if isinstance(stdin, Path):
                source = stack.enter_context(stdin.open("rb"))
            try:
                process = subprocess.Popen(
                    list(argv), stdin=source, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
                )
            except OSError as error:
                stderr(f"{argv[0]}: {error.strerror}\n".encode())
                return 126 if isinstance(error, PermissionError) else 127
            try:
                feed = stdin if isinstance(stdin, bytes) else b""
                if not _pump(process, memoryview(feed), stdout, stderr, ends):
                    raise self.late(argv, deadline_s)
                return process.wait(max(0.0, ends - time.monotonic()))
            except subprocess.TimeoutExpired:
                raise self.late(argv, deadline_s) from None
            finally:
                _end(process)


def _pump(process: subprocess.Popen[bytes], feed: memoryview, stdout: Sink, stderr: Sink, ends_s: float) -> bool:
    """Feed stdin and drain both outputs until they close; False where time runs out."""
    assert process.stdout is not None
    assert process.stderr is not None
    with selectors.DefaultSelector() as selector:
        for stream, sink in ((process.stdout, stdout), (process.stderr, stderr)):
            selector.register(stream, selectors.EVENT_READ, sink)
        if process.stdin is not None:
            os.set_blocking(process.stdin.fileno(), False)
            selector.register(process.stdin, selectors.EVENT_WRITE)
        while selector.get_map():
            left_s = ends_s - time.monotonic()
            if left_s <= 0:
                return False
            for key, _ in selector.select(left_s):
                if key.data is None:
                    try:
                        feed = feed[os.write(key.fd, feed[:_CHUNK]) :]
                    except BrokenPipeError:  # it ended without reading all of its input; its exit status tells
                        feed = feed[:0]
                    if not feed:
                        selector.unregister(key.fileobj)
                        process.stdin.close()  # type: ignore[union-attr]
                elif data := os.read(key.fd, _CHUNK):
                    key.data(data)
                else:
                    selector.unregister(key.fileobj)
    return True


def _end(process: subprocess.Popen[bytes]) -> None:
    """Leave nothing of the group behind where the command did not end by itself."""
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream is not None:
            with contextlib.suppress(OSError):
                stream.close()
