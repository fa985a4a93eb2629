"""Boards as declared: what all boards of a model share, and one physical board of the user's inventory."""

from __future__ import annotations

import shlex
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from edgeloop.core.frozen import Frozen
from edgeloop.errors import UserError

NO_DELEGATE = "none"
_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
SENSOR_PATTERN = r"^[A-Za-z0-9_][A-Za-z0-9_ .-]{0,63}(@[A-Za-z0-9_.:-]{1,64})?(/[a-z]{2,8}[0-9]{1,3})?$"


class Ssh(Frozen):
    """The way to a board. What is absent comes from ~/.ssh/config, as with `ssh`."""

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
    """Conditions that this kind of board is expected to show; joined with a campaign's declared environment."""

    expected_clock_mhz: float | None = Field(default=None, gt=0)
    start_temperature_max_c: float | None = Field(default=None, gt=0)
    cool_down_max_s: float = Field(default=300, ge=0)


class PowerMeterSpec(Frozen):
    """The meter of a board's power: a command on the host, or a sensor on the board itself."""

    command: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    """Prints a line for each reading, `WATTS` or `SECONDS WATTS`, until it is ended; see docs/reference/targets.md."""
    hwmon: str | None = Field(default=None, pattern=SENSOR_PATTERN)
    """`ina226`, or where a board has several: `ina226@1-0040`, `ina226/power1`, `ina226@1-0040/power1`."""
    accuracy_pct: float = Field(ge=0, lt=100)
    """Of a reading. Energies are judged as if it were wrong by so much, to the bad side."""

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if bool(self.command) == (self.hwmon is not None):
            raise ValueError("name one of command and hwmon")
        return self

    @property
    def on_host(self) -> bool:
        return bool(self.command)

    def __str__(self) -> str:
        return self.hwmon or shlex.join(self.command)


class Delegate(Frozen):
    """A TFLite delegate that a board has: a library that takes over what it can of a model's operators."""

    name: str = Field(pattern=_NAME)
    library: str = Field(pattern=r"^[^\s\x00][^\n\x00]*$")
    """On the board: an absolute path, or a name that its loader finds."""
    options: dict[str, str | bool | int | float] = {}
    """Options that the library is started with, by its own names."""
    compile_command: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    """Run on the host after a build: `{model}` is the .tflite, `{output}` the file that it writes."""
    ops_delegated_min_pct: float = Field(gt=0, le=100)
    """Of a network's operators. A session in which it took less is INVALID."""

    @model_validator(mode="after")
    def _usable(self) -> Self:
        if self.name == NO_DELEGATE:
            raise ValueError(f"{NO_DELEGATE} stands for no delegate: choose another name")
        if "/" in self.library and not self.library.startswith("/"):
            raise ValueError(f"library {self.library} is on the board: write an absolute path, or the name alone")
        if self.compile_command and not any("{model}" in word for word in self.compile_command[1:]):
            raise ValueError("compile_command names no {model}")
        return self

    @property
    def worded_options(self) -> dict[str, str]:
        """The options as a library gets them."""
        return {
            key: str(value).lower() if isinstance(value, bool) else str(value) for key, value in self.options.items()
        }


def _each_once(delegates: tuple[Delegate, ...]) -> tuple[Delegate, ...]:
    names = [delegate.name for delegate in delegates]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"two delegates are called {twice}")
    return delegates


Delegates = Annotated[tuple[Delegate, ...], AfterValidator(_each_once)]


class BoardModel(Frozen):
    """Shared by all boards of a model; shipped in `targets/`."""

    schema_: Literal[1] = Field(alias="schema")
    name: str = Field(pattern=_NAME)
    title: str = ""
    cpu: str = ""
    architectures: tuple[Literal["aarch64", "armv7l", "x86_64"], ...] = ()
    """The machines that its interpreter may report."""
    mcpu: str | None = Field(default=None, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """LLVM's name of its cores, as `cortex-a72`: what TVM compiles for."""
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
    power_meter: PowerMeterSpec | None = None
    delegate: Delegates = ()


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
    power_meter: PowerMeterSpec | None = None
    delegate: Delegates = ()
    """Those of its own file and those of its model."""
    path: str | None = None
    """The file that declares it."""

    def delegate_named(self, name: str | None) -> Delegate | None:
        """The delegate of that name; None for no name. Raises UserError where the board declares none of it."""
        if name is None:
            return None
        delegate = self.find_delegate(name)
        if delegate is None:
            raise UserError(
                f"{self.name} declares no delegate {name}; it has {self.delegate_names}",
                next_step="add [[delegate]] to its board file, or leave the delegate out",
            )
        return delegate

    def find_delegate(self, name: str) -> Delegate | None:
        return next((delegate for delegate in self.delegate if delegate.name == name), None)

    @property
    def delegate_names(self) -> str:
        """For messages."""
        return ", ".join(delegate.name for delegate in self.delegate) or "none"

    @property
    def shares_host(self) -> bool:
        """True where training on the host would disturb a measurement."""
        return self.kind == "local" or self.emulated
