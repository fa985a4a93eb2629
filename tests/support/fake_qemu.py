"""A program that behaves like QEMU towards its starter, without a machine inside: for tests of starting and stopping.

It takes the port it is told to forward, greets like an sshd, listens at its console, and ends when that says so.
`FAKE_QEMU=deaf` ignores the console and SIGTERM, `dead` ends at once, `mute` never greets, `taken:PORT` finds that port
taken.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import sys
import threading
from pathlib import Path


def install(folder: Path) -> None:
    """Put it on a PATH folder under QEMU's name."""
    program = folder / "qemu-system-aarch64"
    program.write_text(f"#!{sys.executable}\nimport runpy, sys\nrunpy.run_path({__file__!r}, run_name='__main__')\n")
    program.chmod(0o755)


def main() -> None:
    mode = os.environ.get("FAKE_QEMU", "")
    words = " ".join(sys.argv)
    found = re.search(r"hostfwd=tcp:([\d.]+):(\d+)-:22", words)
    assert found is not None
    host, port = found[1], int(found[2])
    assert "restrict=on" in words
    if mode == "dead":
        sys.exit("qemu: no such CPU")
    if mode == f"taken:{port}":
        sys.exit(f"qemu: Could not set up host forwarding rule 'tcp:{host}:{port}-:22'")
    if mode == "deaf":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    console = socket.socket(socket.AF_UNIX)
    console.bind(re.search(r"path=([^,]+)", words)[1])  # type: ignore[index]
    console.listen()
    Path("console.log").write_text("booting\n")
    threading.Thread(target=_listen, args=(console, mode), daemon=True).start()
    sshd = socket.create_server((host, port))
    while True:
        connection, _ = sshd.accept()
        with connection:
            if mode != "mute":
                connection.sendall(b"SSH-2.0-fake\r\n")


def _listen(console: socket.socket, mode: str) -> None:
    while True:
        connection, _ = console.accept()
        with connection:
            while word := connection.recv(100):
                if word.strip() == b"poweroff" and mode != "deaf":
                    os._exit(0)


if __name__ == "__main__":
    main()
