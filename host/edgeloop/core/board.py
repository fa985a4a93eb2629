"""Boards as declared: what all boards of a model share, and one physical board of the user's inventory."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from edgeloop.core.frozen import Frozen

_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"


class Ssh(Frozen):
    """How to reach a board. What is absent comes from ~/.ssh/config, as with `ssh`."""

    host: str
    user: str | None = None
    port: int | None = Field(default=None, ge=1, le=65535)
    host_key: str | None = None
    """`SHA256:...`, as `ssh-keygen -l` prints it; absent: known_hosts decides."""
    identity_file: str | None = None
    jump: str | None = None
    """`user@host[:port]`, as ProxyJump."""
    connect_timeout_s: float = Field(default=15.0, gt=0)


class Runtime(Frozen):
    """Where interpreter and inference runtime come from, and where our files go."""

    source: Literal["pushed", "system"] = "pushed"
    """pushed: wheels for the board's interpreter are pushed and unpacked; system: what is installed is used."""
    python: str = "/usr/bin/python3"
    cores: tuple[int, ...] = ()
    """Cores to pin sessions to; empty: not pinned."""
    state_dir: str = "/var/tmp/edgeloop"  # noqa: S108 -- on the board, board-wide on purpose; the agent checks owner and mode
    cache_max_mib: int = Field(default=2048, ge=64)


class BoardEnvironment(Frozen):
    """What this kind of board is expected to show; joined with a campaign's declared environment."""

    expected_clock_mhz: float | None = Field(default=None, gt=0)
    start_temperature_max_c: float | None = Field(default=None, gt=0)
    cool_down_max_s: float = Field(default=300, ge=0)


class BoardModel(Frozen):
    """Shared by all boards of a model; shipped in `targets/`."""

    schema_: Literal[1] = Field(alias="schema")
    name: str = Field(pattern=_NAME)
    title: str = ""
    cpu: str = ""
    architectures: tuple[Literal["aarch64", "armv7l", "x86_64"], ...] = ()
    """What its interpreter may report."""
    clock_max_mhz: tuple[float, ...] = ()
    """Top clocks that its variants are sold with; a board that shows another one is worth a look."""
    memory_mib: int | None = Field(default=None, gt=0)
    """Memory of the smallest variant."""
    detect: tuple[str, ...] = ()
    """Texts that /proc/device-tree/model starts with on this board."""
    channel_multiple: int = Field(default=4, ge=1)
    """Widths are rounded to a multiple of this many channels."""
    runtime: Runtime = Runtime()
    environment: BoardEnvironment = BoardEnvironment()


class Board(Frozen):
    """One physical board (or this machine): its model and what is personal to it, already joined."""

    name: str = Field(pattern=_NAME)
    model: BoardModel
    kind: Literal["ssh", "local"] = "ssh"
    ssh: Ssh | None = None
    serial: str | None = None
    tags: tuple[str, ...] = ()
    emulated: bool = False
    runtime: Runtime = Runtime()
    environment: BoardEnvironment = BoardEnvironment()
    path: str | None = None
    """The file that declares it."""

    @property
    def shares_host(self) -> bool:
        """True where training on the host would disturb a measurement."""
        return self.kind == "local" or self.emulated
