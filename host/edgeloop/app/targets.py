"""What `edgeloop targets` does: boards are met, written down, looked at, provisioned and cleaned."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import tomlkit
from tomlkit.exceptions import TOMLKitError

from edgeloop.config.board_files import BoardListing, find_model, inventory, parse_address, resolve, user_folder
from edgeloop.config.board_models import GENERIC, LOCAL, detect_model, model_names
from edgeloop.core.board import Board
from edgeloop.core.check import Check, printable
from edgeloop.errors import BoardError, HostKeyError, LabError, UserError
from edgeloop.processes.files import write_whole
from edgeloop.wiring.benches import open_board


@dataclass(frozen=True, slots=True)
class Shown:
    """A host key as a board shows it, before anybody trusts it."""

    board: Board
    key_type: str
    fingerprint: str
    key: str
    """In base64."""
    pinned: str | None
    """What the board's file pins now."""


@dataclass(frozen=True, slots=True)
class Added:
    """A board that was written down."""

    board: Board
    path: Path
    model: str
    described_as: str | None
    """What the board calls itself."""


@dataclass(frozen=True, slots=True)
class Provisioned:
    """What a board can now run, and the bytes that were sent for it."""

    engines: tuple[str, ...]
    bytes_pushed: int


@dataclass(frozen=True, slots=True)
class Cleaned:
    """What was freed on a board. `not_removed`: files of other users."""

    removed: int
    not_removed: int
    freed_mib: float
    used_mib: float


def list_boards(beside: Path | None) -> list[BoardListing]:
    """Every board that has a file, and `local`."""
    return inventory(beside)


def boards_folder() -> Path:
    """Where `add` writes."""
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
) -> Shown:
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
        raise UserError(f"--identity-file {identity_file}: no such file")
    if jump is not None:
        parse_address(jump)
    chosen = find_model(model or GENERIC)
    if chosen.name == LOCAL:
        raise UserError("this machine is the target `local`; it is not added")
    own = {key: value for key, value in (("python", python), ("state_dir", state_dir)) if value is not None}
    runtime = chosen.runtime.model_copy(update=own)
    try:
        board = Board(name=name, model=chosen, ssh=ssh, runtime=runtime, environment=chosen.environment)
    except ValueError:
        message = f"{name!r} can't be a board's name"
        raise UserError(message, next_step="use letters, digits, dots, dashes and underscores") from None
    return look(board)


def look(board: Board) -> Shown:
    """Ask a board for its host key. Nothing is trusted by that."""
    from edgeloop.board.ssh import scan_host_key

    if board.ssh is None:
        raise UserError(f"{board.name} is this machine: there is no host key to trust")
    key = scan_host_key(board.ssh)
    return Shown(board, key.type, key.fingerprint, key.base64, board.ssh.host_key)


def check_fingerprint(shown: Shown, expected: str) -> None:
    """Raises HostKeyError where the board shows another key than the user expects."""
    wanted = expected if expected.startswith("SHA256:") else f"SHA256:{expected}"
    if shown.fingerprint != wanted.rstrip("="):
        raise HostKeyError(
            f"{shown.board.name} shows {shown.fingerprint}, not {wanted}",
            next_step="compare with `ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub` on the board itself",
        )


def add(shown: Shown, *, model: str | None) -> Added:
    """Ask the board whose key was accepted what it is, and write its file.

    A model that is given wins over the one that is detected. Raises BoardError or LabError where the board can't be
    asked; nothing is written then.
    """
    assert shown.board.ssh is not None
    ssh = shown.board.ssh.model_copy(update={"host_key": shown.fingerprint})
    board = shown.board.model_copy(update={"ssh": ssh})
    with closing(open_board(board)) as bench:
        facts = bench.facts()
    described_as = _words(facts.get("model"))
    chosen = model or detect_model(described_as, _words(facts.get("machine"))) or GENERIC
    path = boards_folder() / f"{board.name}.toml"
    _write_new(path, _document(board, chosen, _words(facts.get("serial"))))
    return Added(resolve(board.name)[0], path, chosen, described_as)


def pin(shown: Shown) -> Path:
    """Trust the key from now on: in the board's file, or in known_hosts where no file declares it."""
    from edgeloop.board.known_hosts import host_key
    from edgeloop.board.ssh import trust_host_key

    board = shown.board
    assert board.ssh is not None
    if board.path is None:
        return trust_host_key(board.ssh, host_key(shown.key_type, shown.key))
    path = Path(board.path)
    try:
        document = tomlkit.parse(path.read_text(encoding="utf-8"))
        document["ssh"]["host_key"] = shown.fingerprint
        write_whole(path, tomlkit.dumps(document))
    except (OSError, TOMLKitError) as error:
        raise LabError(f"{path}: can't be rewritten: {error}") from error
    return path


def diagnose(target: str, beside: Path | None) -> list[Check]:
    """Declared against found. Raises where the board can't be asked at all."""
    from edgeloop.board import doctor

    with closing(open_board(one_board(target, beside))) as bench:
        return doctor.diagnose(bench.board, bench.agent, lambda: datetime.now(UTC))


def provision(target: str, engines: Sequence[str], beside: Path | None, say: Callable[[str], None]) -> Provisioned:
    """Bring agent and runtimes to a board and load each engine there; without `engines`, all that it can run.

    Raises UserError for an unknown engine, BoardError for one that can't run or does not load there.
    """
    from edgeloop.board.doctor import import_check
    from edgeloop.board.wheels import ENGINE_DISTRIBUTIONS, engine_support, interpreter_of

    unknown = [engine for engine in engines if engine not in ENGINE_DISTRIBUTIONS]
    if unknown:
        raise UserError(f"no engine {unknown[0]!r}", next_step=f"engines are {', '.join(ENGINE_DISTRIBUTIONS)}")
    board = one_board(target, beside)
    with closing(open_board(board)) as bench:
        support = engine_support(interpreter_of(bench.facts()), board.runtime.source)
        wanted = list(dict.fromkeys(engines)) or [engine for engine, item in support.items() if item.usable]
        wanted = wanted or list(support)  # none can run: provisioning says why, for each
        bench.provision(wanted, lambda what, _done, _all: say(what))
        for engine in wanted:
            check = import_check(engine, bench.board, bench.agent, support[engine])
            if check.state == "wrong":
                raise BoardError(f"{board.name}: {engine} {check.found}", next_step=check.next_step)
        return Provisioned(tuple(wanted), bench.bytes_pushed)


def clean(target: str, beside: Path | None, *, everything: bool) -> Cleaned:
    """Free a board's folder down to its quota, or of everything that no running job needs."""
    board = one_board(target, beside)
    with closing(open_board(board)) as bench:
        answer = bench.agent.clean(
            max_mib=None if everything else bench.board.runtime.cache_max_mib, everything=everything
        )
    removed, not_removed = answer.get("removed"), answer.get("not_removed")
    return Cleaned(
        removed=len(removed) if isinstance(removed, list) else 0,
        not_removed=len(not_removed) if isinstance(not_removed, list) else 0,
        freed_mib=_mib(answer.get("freed_bytes")),
        used_mib=_mib(answer.get("used_bytes")),
    )


def _mib(value: Any) -> float:
    return value / 2**20 if isinstance(value, int) else 0.0


def _document(board: Board, model: str, serial: str | None) -> tomlkit.TOMLDocument:
    document = tomlkit.document()
    document.add(tomlkit.comment("Written by `edgeloop targets add`; every key: targets/README.md"))
    document.add("schema", tomlkit.item(1))
    document.add("name", tomlkit.item(board.name))
    document.add("extends", tomlkit.item(model))
    if serial:
        document.add("serial", tomlkit.item(serial))
    document.add("tags", tomlkit.item([]))
    runtime = board.runtime.model_dump(mode="json")
    shared = board.model.runtime.model_dump(mode="json")
    assert board.ssh is not None
    tables = {
        "ssh": board.ssh.model_dump(mode="json", exclude_none=True, exclude_defaults=True),
        "runtime": {key: value for key, value in runtime.items() if value != shared[key]},
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


def _words(value: Any) -> str | None:
    return (printable(value) or None) if isinstance(value, str) else None
