"""`edgeloop targets`: boards are met, written down, looked at, provisioned and cleaned."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import tomlkit
from tomlkit.exceptions import TOMLKitError

from edgeloop.board.board_words import BoardWords
from edgeloop.config.board_files import BoardListing, find_model, inventory, parse_address, resolve, user_folder
from edgeloop.config.board_models import GENERIC, LOCAL, detect_model, model_names
from edgeloop.core.board import Board
from edgeloop.core.check import Check
from edgeloop.engines.registry import wheel_engines
from edgeloop.errors import BoardError, HostKeyError, LabError, UserError
from edgeloop.processes.files import write_whole
from edgeloop.sentences import Argument, Sentence, command_line
from edgeloop.wiring.benches import open_board


@dataclass(frozen=True, slots=True)
class BoardKey:
    """A host key as a board shows it, before anybody trusts it."""

    board: Board
    key_type: str
    fingerprint: str
    base64: str
    pin: str | None
    """The fingerprint that the board's file pins now."""


@dataclass(frozen=True, slots=True)
class NewBoard:
    """A board that was written down."""

    board: Board
    path: Path
    model: str
    described_as: str | None
    """The board's own name for itself."""


@dataclass(frozen=True, slots=True)
class Provision:
    """The engines that a board can now run, and the bytes that were sent for them."""

    engines: tuple[str, ...]
    bytes_pushed: int


@dataclass(frozen=True, slots=True)
class Cleanup:
    """The files that cleaning a board removed, and those that stay."""

    files: int
    """That were removed."""
    files_of_others: int
    """That stay: they belong to other users there."""
    freed_mib: float
    used_mib: float


def list_boards(beside: Path | None) -> list[BoardListing]:
    """Every board that has a file, and `local`."""
    return inventory(beside)


def boards_folder() -> Path:
    """The folder that `add` writes to."""
    return user_folder()


def one_board(target: str, beside: Path | None) -> Board:
    """The one board that a target names. Raises UserError where it names several."""
    boards = resolve(target, beside)
    if len(boards) > 1:
        names = ", ".join(board.name for board in boards)
        raise UserError(f"{target} names {len(boards)} boards: {names}", next_step="name one of them")
    return boards[0]


def meet(
    name: str,
    address: str,
    *,
    identity_file: str | None = None,
    jump: str | None = None,
    model: str | None = None,
    python: str | None = None,
    state_dir: str | None = None,
) -> BoardKey:
    """Ask an address for its host key, to be shown to the user before anything else is sent there.

    Raises UserError where the name is taken or something given can't be used, UnreachableError.
    """
    path = boards_folder() / f"{name}.toml"
    if path.exists():
        raise UserError(f"{path} exists already", next_step="choose another name, or remove that file first")
    if name == LOCAL or name in model_names():
        raise UserError(f"{name!r} has a meaning of its own", next_step="choose another name")
    ssh = parse_address(address).model_copy(update={"identity_file": identity_file, "jump": jump})
    if identity_file is not None and not Path(identity_file).expanduser().is_file():
        raise UserError(Sentence("{} {}: no such file", Argument("identity_file"), identity_file))
    if jump is not None:
        parse_address(jump)
    board_model = find_model(model or GENERIC)
    if board_model.name == LOCAL:
        raise UserError("this machine is the target `local`; it is not added")
    own = {key: value for key, value in (("python", python), ("state_dir", state_dir)) if value is not None}
    runtime = board_model.runtime.model_copy(update=own)
    try:
        board = Board(name=name, model=board_model, ssh=ssh, runtime=runtime, environment=board_model.environment)
    except ValueError:
        message = f"{name!r} can't be a board's name"
        raise UserError(message, next_step="use letters, digits, dots, dashes and underscores") from None
    return look(board)


def look(board: Board) -> BoardKey:
    """Ask a board for its host key. Nothing is trusted by that."""
    from edgeloop.board.ssh import scan_host_key

    if board.ssh is None:
        raise UserError(f"{board.name} is this machine: there is no host key to trust")
    key = scan_host_key(board.ssh)
    return BoardKey(board, key.type, key.fingerprint, key.base64, board.ssh.host_key)


def check_fingerprint(key: BoardKey, fingerprint: str) -> None:
    """Raise HostKeyError where the board shows another key than the user expects."""
    own = fingerprint if fingerprint.startswith("SHA256:") else f"SHA256:{fingerprint}"
    if key.fingerprint != own.rstrip("="):
        raise HostKeyError(
            f"{key.board.name} shows {key.fingerprint}, not {own}",
            next_step="compare with `ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub` on the board itself",
        )


def add(key: BoardKey, *, model: str | None) -> NewBoard:
    """Ask the board whose key was accepted what it is, and write its file.

    A model that is given wins over the one that is detected. Raises BoardError or LabError where the board can't be
    asked; nothing is written then.
    """
    assert key.board.ssh is not None
    ssh = key.board.ssh.model_copy(update={"host_key": key.fingerprint})
    board = key.board.model_copy(update={"ssh": ssh})
    with closing(open_board(board)) as bench:
        facts = bench.facts()
    words = BoardWords(facts)
    described_as = words.text("model")
    model_name = model or detect_model(described_as, words.text("machine")) or GENERIC
    path = boards_folder() / f"{board.name}.toml"
    _write_new(path, _document(board, model_name, words.text("serial")))
    return NewBoard(resolve(board.name)[0], path, model_name, described_as)


def pin(key: BoardKey) -> Path:
    """Trust the key from now on: in the board's file, or in known_hosts where no file declares it."""
    from edgeloop.board.known_hosts import host_key
    from edgeloop.board.ssh import trust_host_key

    board = key.board
    assert board.ssh is not None
    if board.path is None:
        return trust_host_key(board.ssh, host_key(key.key_type, key.base64))
    path = Path(board.path)
    try:
        document = tomlkit.parse(path.read_text(encoding="utf-8"))
        document["ssh"]["host_key"] = key.fingerprint
        write_whole(path, tomlkit.dumps(document))
    except (OSError, TOMLKitError) as error:
        raise LabError(f"{path}: can't be rewritten: {error}") from error
    return path


def diagnose(target: str, beside: Path | None) -> list[Check]:
    """Declared against found. Raises where the board can't be asked at all."""
    from edgeloop.board import doctor

    with closing(open_board(one_board(target, beside))) as bench:
        return doctor.diagnose(bench.board, bench.agent, lambda: datetime.now(UTC))


def provision(target: str, engines: Sequence[str], beside: Path | None, say: Callable[[str], None]) -> Provision:
    """Bring agent and runtimes to a board and load each engine there; without `engines`, all that it can run.

    Raises UserError for an unknown engine, BoardError for one that can't run or does not load there.
    """
    from edgeloop.board.doctor import import_check
    from edgeloop.board.wheels import engine_support, interpreter_of

    unknown = [engine for engine in engines if engine not in wheel_engines()]
    if unknown:
        raise UserError(f"no engine {unknown[0]!r}", next_step=f"engines are {', '.join(wheel_engines())}")
    board = one_board(target, beside)
    with closing(open_board(board)) as bench:
        support = engine_support(interpreter_of(bench.facts()), board.runtime.source)
        names = list(dict.fromkeys(engines)) or [engine for engine, item in support.items() if item.usable]
        names = names or list(support)  # none can run: provisioning says why, for each
        bench.provision(names, lambda progress: say(progress.text))
        for engine in names:
            check = import_check(engine, bench.board, bench.agent, support[engine])
            if check.state == "wrong":
                raise BoardError(f"{board.name}: {engine} {check.found}", next_step=check.next_step)
        return Provision(tuple(names), bench.bytes_pushed)


def clean(target: str, beside: Path | None, *, everything: bool) -> Cleanup:
    """Free a board's folder down to its quota, or of everything that no running job needs."""
    board = one_board(target, beside)
    with closing(open_board(board)) as bench:
        answer = bench.agent.clean(
            max_mib=None if everything else bench.board.runtime.cache_max_mib, everything=everything
        )
    files, others = answer.get("removed"), answer.get("not_removed")
    return Cleanup(
        files=len(files) if isinstance(files, list) else 0,
        files_of_others=len(others) if isinstance(others, list) else 0,
        freed_mib=_mib(answer.get("freed_bytes")),
        used_mib=_mib(answer.get("used_bytes")),
    )


def _mib(value: object) -> float:
    return value / 2**20 if isinstance(value, int) else 0.0


def _document(board: Board, model: str, serial: str | None) -> tomlkit.TOMLDocument:
    document = tomlkit.document()
    document.add(tomlkit.comment(f"Written by `{command_line('targets add')}`; every key: targets/README.md"))
    document.add("schema", tomlkit.item(1))
    document.add("name", tomlkit.item(board.name))
    document.add("extends", tomlkit.item(model))
    if serial:
        document.add("serial", tomlkit.item(serial))
    document.add("tags", tomlkit.item([]))
    runtime = board.runtime.model_dump(mode="json")
    of_model = board.model.runtime.model_dump(mode="json")
    assert board.ssh is not None
    tables = {
        "ssh": board.ssh.model_dump(mode="json", exclude_none=True, exclude_defaults=True),
        "runtime": {key: value for key, value in runtime.items() if value != of_model[key]},
    }
    for name, keys in tables.items():
        if keys:
            document.add(name, tomlkit.item(keys))
    return document


def _write_new(path: Path, document: tomlkit.TOMLDocument) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("x", encoding="utf-8") as handle:
            handle.write(tomlkit.dumps(document))
    except FileExistsError as error:
        raise UserError(f"{path} exists already", next_step="choose another name") from error
    except OSError as error:
        raise LabError(f"{path}: can't be written: {error.strerror or error}") from error
