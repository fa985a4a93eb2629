"""Systems that boards commonly run, as their own Python describes them."""

from __future__ import annotations

from edgeloop.board.wheels import Interpreter


def known_systems() -> list[tuple[str, Interpreter]]:
    """Systems that boards commonly run, as their own Python describes them (numpy: the distribution's)."""
    return [
        ("Raspberry Pi OS Bullseye, 64 bit", Interpreter((3, 9), "aarch64", (2, 31), numpy="1.19.5")),
        ("Raspberry Pi OS Bookworm, 64 bit", Interpreter((3, 11), "aarch64", (2, 36), numpy="1.24.2")),
        ("Raspberry Pi OS Bookworm, 32 bit", Interpreter((3, 11), "armv7l", (2, 36), numpy="1.24.2")),
        ("Raspberry Pi OS Trixie, 64 bit", Interpreter((3, 13), "aarch64", (2, 41), numpy="2.2.4")),
        ("Raspberry Pi OS Trixie, 32 bit", Interpreter((3, 13), "armv7l", (2, 41), numpy="2.2.4")),
        ("Ubuntu 22.04, 64 bit", Interpreter((3, 10), "aarch64", (2, 35), numpy="1.21.5")),
        ("Ubuntu 24.04, 64 bit", Interpreter((3, 12), "aarch64", (2, 39), numpy="1.26.4")),
    ]
