"""The user's virtual boards by name: made, started, stopped, removed, listed. Each has its own keys and disk.

Two places know a board: its folder in the user's data (keys, disk, QEMU's process) and its board file among the user's
boards, which says how to reach it like any other board's, and is rewritten when a start gives it another port.
"""

from __future__ import annotations

import base64
import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

import tomlkit
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from platformdirs import user_cache_path, user_data_path
from pydantic import Field, ValidationError

from edgeloop.board.virtual import image, initramfs
from edgeloop.board.virtual.machine import HOST, Machine, State, check_programs, free_port
from edgeloop.board.virtual.rootfs import USER
from edgeloop.config.board_files import user_folder
from edgeloop.config.board_models import LOCAL, model_names
from edgeloop.core.frozen import Frozen
from edgeloop.errors import LabError, UserError
from edgeloop.processes.files import write_whole
from edgeloop.sentences import Argument, Sentence, command_line

Cpu = Literal["cortex-a53", "cortex-a72", "cortex-a76"]
MEMORY_MIB_MIN, MEMORY_MIB_MAX = 256, 16384
_DECLARATION = "board.json"


class Declaration(Frozen):
    """board.json: the board as it was created."""

    schema_: Literal[1] = Field(default=1, alias="schema")
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=64)
    arch: image.Arch
    cpu: Cpu
    memory_mib: int = Field(ge=MEMORY_MIB_MIN, le=MEMORY_MIB_MAX)
    port: int
    """Of its last start, or the one it will try first."""


@dataclass(frozen=True, slots=True)
class VirtualBoardListing:
    """One board, and the state of its process."""

    declaration: Declaration
    state: State
    pid: int | None
    file: Path


@dataclass(frozen=True, slots=True)
class Places:
    """The folders of virtual boards on this host."""

    data: Path = field(default_factory=lambda: user_data_path("edgeloop") / "boards")
    images: Path = field(default_factory=lambda: user_cache_path("edgeloop") / "virtual")
    board_files: Path = field(default_factory=user_folder)


class VirtualBoards:
    """All of one user's virtual boards. Raises UserError for names and values that can't be used."""

    def __init__(self, places: Places | None = None) -> None:
        self._places = places or Places()

    def create(
        self, name: str, *, arch: str, cpu: str, memory_mib: int, mirror: str | None, say: Callable[[str], None]
    ) -> Path:
        """Make a board and its board file; return that file's path. A failure leaves neither."""
        declaration = _declaration_of(name, arch, cpu, memory_mib)
        check_programs()
        file, folder = self._file(name), self._folder(name)
        for place in (file, folder):
            if os.path.lexists(place):
                raise UserError(f"{place} exists already", next_step=_other_name(name, virtual=folder.is_dir()))
        if name == LOCAL or name in model_names():
            raise UserError(f"{name!r} has a meaning of its own", next_step="choose another name")
        image_files = image.image_for(image.Spec(arch=declaration.arch), self._places.images, mirror=mirror, say=say)
        with _translate_errors(self._places.data):
            self._places.data.mkdir(parents=True, exist_ok=True, mode=0o700)
            image.check_room(self._places.data, image.COPY_MIB)
            with tempfile.TemporaryDirectory(prefix=".making-", dir=self._places.data) as work:
                new_folder = Path(work) / "board"
                new_folder.mkdir(mode=0o700)
                fingerprint = _fill(new_folder, image_files, declaration)
                new_folder.rename(folder)
        try:
            with _translate_errors(file):
                _write_new(file, _document(declaration, fingerprint, folder / "id_ed25519"))
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        return file

    def start(self, name: str) -> int:
        """Start a board and wait for its sshd; return its port, which its file has from then on."""
        check_programs()
        with self._locked_board(name) as (declaration, machine):
            if machine.state() == "running":
                raise UserError(
                    f"{name} runs already, at port {declaration.port}", next_step=command_line("board stop", name)
                )
            port = machine.start(declaration.port)
            try:
                self._move_to(declaration, port)
            except BaseException:
                machine.kill()
                raise
        return port

    def stop(self, name: str) -> tuple[State, bool]:
        """Power a board off; return the state it was in, and whether it went by itself."""
        with self._locked_board(name) as (_, machine):
            before = machine.state()
            return before, machine.stop()

    def kill(self, name: str) -> None:
        """Pull a board's plug."""
        with self._locked_board(name) as (_, machine):
            machine.kill()

    def remove(self, name: str) -> None:
        """Delete a stopped board, its keys and its board file; the image stays for others."""
        with self._locked_board(name) as (_, machine):
            if machine.state() == "running":
                raise UserError(f"{name} is running", next_step=command_line("board stop", name))
            self._file(name).unlink(missing_ok=True)
            shutil.rmtree(self._folder(name))

    def all_boards(self) -> tuple[list[VirtualBoardListing], list[str]]:
        """Every board by name, and a line for each folder that is none."""
        boards, faults = [], []
        for folder in sorted(self._places.data.glob("*/")) if self._places.data.is_dir() else []:
            if folder.name.startswith("."):
                continue
            try:
                declaration = self._read(folder.name)
            except UserError as error:
                faults += error.lines()
                continue
            machine = self._machine(declaration)
            pid = machine.pid()
            boards.append(VirtualBoardListing(declaration, machine.state(), pid, self._file(folder.name)))
        return boards, faults

    def state(self, name: str) -> State | None:
        """The state of a board; None where no virtual board has that name."""
        try:
            return self._machine(self._read(name)).state()
        except UserError:
            return None

    def _folder(self, name: str) -> Path:
        return self._places.data / name

    def _file(self, name: str) -> Path:
        return self._places.board_files / f"{name}.toml"

    def _machine(self, declaration: Declaration) -> Machine:
        return Machine(self._folder(declaration.name), declaration.name, declaration.cpu, declaration.memory_mib)

    def _read(self, name: str) -> Declaration:
        path = self._folder(name) / _DECLARATION
        try:
            declaration = Declaration.model_validate_json(path.read_bytes())
        except (OSError, ValidationError) as error:
            if _is_name(name) and path.parent.is_dir():
                raise UserError(
                    f"{path}: can't be read as a virtual board", next_step=f"delete {path.parent}"
                ) from error
            names = ", ".join(sorted(item.declaration.name for item in self.all_boards()[0])) or "none"
            raise UserError(
                f"no virtual board {name!r}; there are {names}", next_step=command_line("board create", name)
            ) from error
        if declaration.name != name:
            raise UserError(f"{path}: is the board {declaration.name!r}", next_step="put its folder back")
        return declaration

    @contextmanager
    def _locked_board(self, name: str) -> Iterator[tuple[Declaration, Machine]]:
        """One command at a time for one board."""
        if not _is_name(name):
            raise UserError(f"{name!r} can't be a board's name", next_step=_NAMES)
        self._read(name)
        with (self._folder(name) / "lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            declaration = self._read(name)
            yield declaration, self._machine(declaration)

    def _move_to(self, declaration: Declaration, port: int) -> None:
        """Write down the port of this start. Both files are replaced whole: whoever reads one sees old or new."""
        folder, file = self._folder(declaration.name), self._file(declaration.name)
        with _translate_errors(file):
            fresh = declaration.model_copy(update={"port": port})
            write_whole(folder / _DECLARATION, fresh.model_dump_json())
            try:
                document = tomlkit.parse(file.read_text(encoding="utf-8"))
                document["ssh"]["port"] = port
            except (FileNotFoundError, KeyError, TypeError, tomlkit.exceptions.TOMLKitError):
                # Gone, or no longer a board's file: the board is reached by it, so it is written anew.
                fingerprint = _fingerprint((folder / "host_key.pub").read_text(encoding="ascii"))
                document = _document(fresh, fingerprint, folder / "id_ed25519")
            file.parent.mkdir(parents=True, exist_ok=True)
            write_whole(file, tomlkit.dumps(document))


_NAMES = "use letters, digits, dots, dashes and underscores, at most 64"


def _declaration_of(name: str, arch: str, cpu: str, memory_mib: int) -> Declaration:
    for value, names, place in ((arch, get_args(image.Arch), Argument("arch")), (cpu, get_args(Cpu), Argument("cpu"))):
        if value not in names:
            what = Sentence("{} {} is unknown", place, repr(value))
            raise UserError(what, next_step=f"it is one of {', '.join(names)}")
    if not _is_name(name):
        raise UserError(f"{name!r} can't be a board's name", next_step=_NAMES)
    if not MEMORY_MIB_MIN <= memory_mib <= MEMORY_MIB_MAX:
        bounds = f"{MEMORY_MIB_MIN} to {MEMORY_MIB_MAX} MiB"
        raise UserError(Sentence("{} {}: it is {}", Argument("memory_mib"), memory_mib, bounds))
    return Declaration.model_validate(
        {"name": name, "arch": arch, "cpu": cpu, "memory_mib": memory_mib, "port": free_port()}
    )


def _is_name(name: str) -> bool:
    try:
        Declaration(name=name, arch="arm64", cpu="cortex-a72", memory_mib=1024, port=1)
    except ValidationError:
        return False
    return True


def _other_name(name: str, *, virtual: bool) -> str:
    return f"choose another name, or: {command_line('board remove', name)}" if virtual else "choose another name"


def _fill(folder: Path, image_files: image.Image, declaration: Declaration) -> str:
    """Write a new board's folder; return the fingerprint of its host key."""
    image.copy_sparse(image_files.disk, folder / "root.img")
    image.copy_sparse(image_files.kernel, folder / "vmlinuz")
    host_private, host_public = _new_key()
    user_private, user_public = _new_key()
    own = [
        initramfs.Member("board", 0o700),
        initramfs.Member("board/ssh_host_ed25519_key", 0o600, host_private),
        initramfs.Member("board/authorized_keys", 0o644, user_public.encode()),
        initramfs.Member("board/hostname", 0o644, f"{declaration.name}\n".encode()),
    ]
    common = image_files.initrd.read_bytes()
    padding = b"\0" * (-len(common) % initramfs.ALIGNMENT)
    for name, raw, mode in (
        ("initrd", common + padding + initramfs.archive(own), 0o600),
        ("id_ed25519", user_private, 0o600),
        ("host_key.pub", host_public.encode(), 0o644),
        (_DECLARATION, declaration.model_dump_json().encode(), 0o644),
    ):
        path = folder / name
        path.touch(mode=mode)
        path.write_bytes(raw)
    return _fingerprint(host_public)


def _new_key() -> tuple[bytes, str]:
    """A fresh ed25519 key: private in OpenSSH's form, public as `ssh-ed25519 AAAA...` with a line's end."""
    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
    return private, key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode("ascii") + "\n"


def _fingerprint(public: str) -> str:
    digest = hashlib.sha256(base64.b64decode(public.split()[1])).digest()
    return "SHA256:" + base64.b64encode(digest).decode("ascii").rstrip("=")


def _document(declaration: Declaration, fingerprint: str, identity: Path) -> tomlkit.TOMLDocument:
    document = tomlkit.document()
    document.add(tomlkit.comment(f"Written by `{command_line('board create')}`; each start writes its port"))
    keys = {
        "schema": 1,
        "name": declaration.name,
        "extends": f"virtual-{declaration.arch}",
        "tags": ["virtual"],
        "emulated": True,
        "ssh": {
            "host": HOST,
            "user": USER,
            "port": declaration.port,
            "host_key": fingerprint,
            "identity_file": str(identity),
            "jump": "none",
        },
    }
    for name, value in keys.items():
        document.add(name, tomlkit.item(value))
    return document


@contextmanager
def _translate_errors(place: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise LabError(f"{error.filename or place}: can't be written: {error.strerror or error}") from error


def _write_new(path: Path, document: tomlkit.TOMLDocument) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("x", encoding="utf-8") as handle:
        handle.write(tomlkit.dumps(document))
