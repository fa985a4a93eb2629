"""A board's runtime brought there: the wheels its interpreter needs, pushed once and unpacked by hash."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from edgeloop.board.agent import cache_name
from edgeloop.board.wheels import WheelSet


class Receiver(Protocol):
    """The part of a board's agent that bringing runtimes needs; see BoardAgent."""

    def missing(self, names: Sequence[str], runtimes: Sequence[str] = ()) -> tuple[frozenset[str], frozenset[str]]: ...
    def push(self, path: Path, sha256: str) -> None: ...
    def unpack(self, names: Sequence[str], runtime: str) -> None: ...


def bring_runtimes(agent: Receiver, wheels: WheelSet, say: Callable[[str], Any]) -> tuple[str, ...]:
    """Push and unpack what the board lacks; return the folders under runtimes/ in the order of sys.path.

    A runtime that is unpacked there costs one short question. Raises what the agent raises.
    """
    if not wheels.paths:
        return ()
    names = [cache_name(sha256, path) for sha256, path in zip(wheels.sha256, wheels.paths, strict=True)]
    absent, packages = agent.missing(names, wheels.runtimes)
    for name, sha256, runtime, path in zip(names, wheels.sha256, wheels.runtimes, wheels.paths, strict=True):
        if runtime in packages:
            if name in absent:
                say(f"pushing {path.name} ({path.stat().st_size / 2**20:.0f} MiB)")
                agent.push(path, sha256)
            say(f"unpacking {path.name}")
            agent.unpack([name], runtime)
    return wheels.runtimes
