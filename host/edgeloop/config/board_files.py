"""From a target's name to boards: where board files lie, what they may say, and how they join their model.

A target is a board's name, `user@host[:port]`, `tag:NAME` or `local`. Files are looked for beside the campaign
(`targets/NAME.toml`, then `NAME.toml`), then in the user's folder, then in what is shipped. The first found wins.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from platformdirs import user_config_path
from pydantic import Field

from edgeloop.config.board_models import GENERIC, LOCAL, load_model, model_names, read_model
from edgeloop.core.board import Board, BoardEnvironment, BoardModel, Delegate, Delegates, PowerMeterSpec, Runtime, Ssh
from edgeloop.core.frozen import Frozen
from edgeloop.core.parse import parse_as, parse_toml
from edgeloop.engines.registry import EXEC
from edgeloop.errors import ConfigError, Fault, UserError
from edgeloop.sentences import command_line

_UNBUILT = {
    "power_switch": "power switches are not supported by this version",
}
_NAME = re.compile(r"\A[A-Za-z0-9][A-Za-z0-9._-]*\Z")
_ADDRESS = re.compile(
    r"\A(?:(?P<user>[^@\s]+)@)?(?:\[(?P<six>[0-9A-Fa-f:.%\w]+)\]|(?P<host>[^@\s:\[\]]+))(?::(?P<port>\d+))?\Z"
)


class BoardFile(Frozen):
    """A board's file as it is written: personal keys, and the model they are joined with."""

    schema_: Literal[1] = Field(alias="schema")
    name: str | None = None
    extends: str
    serial: str | None = None
    tags: tuple[str, ...] = ()
    emulated: bool = False
    ssh: Ssh | None = None
    runtime: Runtime = Runtime()
    environment: BoardEnvironment = BoardEnvironment()
    power_meter: PowerMeterSpec | None = None
    delegate: Delegates = ()


@dataclass(frozen=True, slots=True)
class BoardListing:
    """One board of the inventory, or the faults of the file that should have declared it."""

    name: str
    path: Path | None
    board: Board | None
    faults: tuple[str, ...] = ()


def user_folder() -> Path:
    """Where a user's boards are kept, and where `targets add` writes."""
    return user_config_path("edgeloop") / "targets"


def parse_address(text: str) -> Ssh:
    """Return `[user@]host[:port]` as Ssh; IPv6 stands in brackets. Raises UserError."""
    match = _ADDRESS.match(text)
    if match is None or text.startswith("-"):
        raise UserError(f"{text!r} is not an address", next_step="write user@host or user@host:port")
    port = int(match["port"]) if match["port"] else None
    if port is not None and not 1 <= port <= 65535:
        raise UserError(f"{text!r}: port {port} is not between 1 and 65535")
    host = match["six"] or match["host"]
    if host.startswith("-") or (match["user"] or "").startswith("-"):
        raise UserError(f"{text!r} is not an address", next_step="a name can't begin with a dash")
    return Ssh(host=host, user=match["user"], port=port)


def resolve(target: str, beside: Path | None = None) -> list[Board]:
    """Return the boards that a target names, at least one, sorted by name.

    `beside` is the campaign's folder. Raises UserError for a target that names no board, ConfigError for faults
    of the files that do.
    """
    if target.startswith("tag:"):
        return _boards_with_tag(target.removeprefix("tag:"), beside)
    if "@" in target:
        return [_ad_hoc(target)]
    if not _NAME.match(target):
        raise UserError(f"{target!r} is not a target", next_step="a board's name, user@host, tag:NAME or local")
    path = _find(target, beside)
    if path is not None:
        return [read_board(path, beside)]
    if target == LOCAL:
        return [local_board()]
    if target in model_names():
        raise UserError(
            f"{target} is a board model, not a board",
            next_step=f"add a board of it: {command_line('targets add', 'NAME', ssh='user@host', model=target)}",
        )
    names = [item.name for item in inventory(beside)]
    raise UserError(
        f"no board {target!r}; found {', '.join(names)}",
        next_step=f"add it with: {command_line('targets add', target, ssh='user@host')}, or name it as user@host",
    )


def resolve_all(targets: Sequence[str], beside: Path | None = None) -> list[Board]:
    """Boards of several targets, each once, in the order asked. All faults of all targets come at once."""
    boards: dict[str, Board] = {}
    faults: list[Fault] = []
    for target in targets:
        try:
            for board in resolve(target, beside):
                boards.setdefault(board.name, board)
        except ConfigError as error:
            faults.extend(error.faults)
        except UserError as error:
            faults.append(Fault(f"target {target}", error.message, error.next_step))
    if faults:
        raise ConfigError(faults)
    return list(boards.values())


def inventory(beside: Path | None = None) -> list[BoardListing]:
    """Every board that has a name, sorted; files with faults are listed with them, and `local` is always there."""
    listings: dict[str, BoardListing] = {}
    for path in _board_files(beside):
        if path.stem in listings:
            continue
        try:
            listings[path.stem] = BoardListing(path.stem, path, read_board(path, beside))
        except ConfigError as error:
            listings[path.stem] = BoardListing(path.stem, path, None, tuple(error.lines()))
    if LOCAL not in listings:
        listings[LOCAL] = BoardListing(LOCAL, None, local_board())
    return [listings[name] for name in sorted(listings)]


def local_board() -> Board:
    """This machine, unless a file says more about it."""
    model = load_model(LOCAL)
    return Board(
        name=LOCAL,
        model=model,
        kind="local",
        runtime=model.runtime.model_copy(update={"python": sys.executable}),
        environment=model.environment,
        power_meter=model.power_meter,
        delegate=model.delegate,
    )


def read_board(path: Path, beside: Path | None = None) -> Board:
    """Read one board's file and join it with its model. Raises ConfigError with all faults of the file."""
    where = str(path)
    try:
        plain = parse_toml(path.read_text(encoding="utf-8"), where)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError([Fault(where, f"can't be read: {error}")]) from error
    faults = list(_unbuilt(plain, where))
    board_file: BoardFile | None = None
    try:
        board_file = parse_as(BoardFile, plain, where)
    except ConfigError as error:
        faults.extend(error.faults)
    extends = plain.get("extends")
    model: BoardModel | None = None
    if isinstance(extends, str):
        try:
            model = find_model(extends, beside)
        except UserError as error:
            faults.append(Fault(f"{where}: extends", error.message, error.next_step))
    name = plain.get("name", path.stem)
    if isinstance(name, str) and name != path.stem:
        faults.append(Fault(f"{where}: name", f"is {name!r} in a file called {path.name}", "give both the same name"))
    elif not _NAME.match(path.stem):
        faults.append(Fault(where, "a board's name has letters, digits, dots, dashes and underscores", "rename it"))
    if isinstance(extends, str) and extends != LOCAL and "ssh" not in plain:
        faults.append(Fault(f"{where}: ssh", "missing", "add [ssh] with host and user"))
    if isinstance(extends, str) and extends == LOCAL and "ssh" in plain:
        faults.append(Fault(f"{where}: ssh", "this machine is not reached over SSH", "remove [ssh]"))
    if faults or board_file is None or model is None:
        raise ConfigError(faults)
    return _join(path, board_file, model)


def find_model(name: str, beside: Path | None = None) -> BoardModel:
    """A model by name: of the user's own folders first, then of those shipped. Raises UserError or ConfigError."""
    if _NAME.match(name):
        for path in _places(name, beside):
            if path.is_file() and _kind(path) == "model":
                return read_model(path)
    return load_model(name)


def _join(path: Path, board_file: BoardFile, model: BoardModel) -> Board:
    local = board_file.extends == LOCAL
    runtime = {**model.runtime.model_dump(), **board_file.runtime.model_dump(exclude_unset=True)}
    if local and not {"python"} & (model.runtime.model_fields_set | board_file.runtime.model_fields_set):
        runtime["python"] = sys.executable
    environment = {**model.environment.model_dump(), **board_file.environment.model_dump(exclude_unset=True)}
    return Board(
        name=path.stem,
        model=model,
        kind="local" if local else "ssh",
        ssh=board_file.ssh,
        serial=board_file.serial,
        tags=board_file.tags,
        emulated=board_file.emulated,
        runtime=Runtime.model_validate(runtime),
        environment=BoardEnvironment.model_validate(environment),
        power_meter=_meter_beside(board_file.power_meter, path) or model.power_meter,
        delegate=_delegates(board_file.delegate, model.delegate, path),
        path=str(path),
    )


def _meter_beside(meter: PowerMeterSpec | None, path: Path) -> PowerMeterSpec | None:
    if meter is None:
        return None
    return meter.model_copy(update={"command": _from_its_folder(meter.command, path)})


def _delegates(own: Sequence[Delegate], of_model: Sequence[Delegate], path: Path) -> tuple[Delegate, ...]:
    """A board's own, and those of its model that have other names."""
    names = {delegate.name for delegate in own}
    mine = [d.model_copy(update={"compile_command": _from_its_folder(d.compile_command, path)}) for d in own]
    return (*mine, *(delegate for delegate in of_model if delegate.name not in names))


def _from_its_folder(command: tuple[str, ...], path: Path) -> tuple[str, ...]:
    """A program that is a path is taken from the folder of the file that names it; a bare name from PATH."""
    if not command or "/" not in command[0]:
        return command
    return (str(path.resolve().parent / Path(command[0]).expanduser()), *command[1:])


def _unbuilt(plain: dict[str, Any], where: str) -> Iterator[Fault]:
    """Take keys of the format that this version can't serve out of `plain`, and say so for each."""
    for key, what in _UNBUILT.items():
        if plain.pop(key, None) is not None:
            yield Fault(f"{where}: {key}", what, "remove it")
    runtime = plain.get("runtime")
    if isinstance(runtime, dict) and runtime.get("source") == EXEC.name:
        runtime.pop("source")
        yield Fault(
            f"{where}: runtime.source", f"{EXEC.name} is an engine, not a source of runtimes", "use pushed or system"
        )


def _ad_hoc(address: str) -> Board:
    ssh = parse_address(address)
    model = load_model(GENERIC)
    name = re.sub(r"[^A-Za-z0-9._-]", "-", ssh.host).lstrip("._-") or "board"
    if ssh.port is not None:
        name = f"{name}-{ssh.port}"
    return Board(
        name=name,
        model=model,
        ssh=ssh,
        runtime=model.runtime,
        environment=model.environment,
        power_meter=model.power_meter,
        delegate=model.delegate,
    )


def _boards_with_tag(tag: str, beside: Path | None) -> list[Board]:
    listings = inventory(beside)
    # A file that can't be read may carry the tag: measuring fewer boards without a word would be a lie.
    faulty = [Fault(str(item.path), line.removeprefix(f"{item.path}: ")) for item in listings for line in item.faults]
    if faulty:
        raise ConfigError(faulty)
    boards = [item.board for item in listings if item.board is not None]
    with_tag = [board for board in boards if tag in board.tags]
    if not with_tag:
        tags = sorted({tag for board in boards for tag in board.tags})
        raise UserError(
            f"no board has the tag {tag!r}",
            next_step=f"tags are {', '.join(tags)}" if tags else "give a board's file the key tags",
        )
    return with_tag


def _places(name: str, beside: Path | None) -> list[Path]:
    folders = [] if beside is None else [beside / "targets", beside]
    return [folder / f"{name}.toml" for folder in (*folders, user_folder())]


def _find(name: str, beside: Path | None) -> Path | None:
    """The file that declares a board of this name; a model's file does not, nor does a campaign of that name."""
    for path in _places(name, beside):
        if path.is_file():
            kind = _kind(path)
            if kind in {"board", "unreadable"} or (kind == "other" and path.parent != beside):
                return path
    return None


def _board_files(beside: Path | None) -> Iterator[Path]:
    if beside is not None:
        yield from (path for path in sorted((beside / "targets").glob("*.toml")) if _kind(path) != "model")
        # Campaigns and limits lie here as well: only what extends a model is a board.
        yield from (path for path in sorted(beside.glob("*.toml")) if _kind(path) == "board")
    yield from (path for path in sorted(user_folder().glob("*.toml")) if _kind(path) != "model")


def _kind(path: Path) -> Literal["board", "model", "other", "unreadable"]:
    """The kind of thing that a file sets out to declare; whoever reads it in earnest reports its faults."""
    try:
        keys = set(parse_toml(path.read_text(encoding="utf-8"), str(path)))
    except (OSError, UnicodeDecodeError, ConfigError):
        return "unreadable"
    if "extends" in keys:
        return "board"
    return "model" if keys & {"architectures", "cpu", "detect"} else "other"
