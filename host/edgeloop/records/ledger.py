"""The run's ledger: one JSON line for each event in `ledger.jsonl`, on disk before `append` returns.

One writer at a time, by a lock on `ledger.lock` that the kernel lets go when its process dies. A line that a crash
tore off is moved to `ledger.torn` when the next writer opens the folder; a line damaged in any other way is not
guessed at, it is named.
"""

from __future__ import annotations

import fcntl
import os
from contextlib import ExitStack
from pathlib import Path

from pydantic import ValidationError

from edgeloop.core.events import Entry, Event, TrialAsked
from edgeloop.errors import UserError, kept_on_disk
from edgeloop.ports import Clock
from edgeloop.sentences import Argument, Sentence, command_line

LEDGER = "ledger.jsonl"
LOCK = "ledger.lock"
TORN = "ledger.torn"


class Accounts:
    """Numbers entries and keeps what was spent, over all the processes that wrote one ledger.

    `wall_s_spent` is the time that ledgers were open: from the last entry of one process to the start of the next
    nothing is spent. `trials_spent` counts the candidates asked; M1 is free.
    """

    def __init__(self, clock: Clock, last: Entry | None) -> None:
        self._clock = clock
        self._opened_s = clock.monotonic_s()
        self._wall_before_s = last.wall_s_spent if last else 0.0
        self._seq = last.seq if last else 0
        self._trials = last.trials_spent if last else 0

    def next(self, event: Event) -> Entry:
        """Return the entry that `event` would be; it counts once it is entered by `book`."""
        number = isinstance(event, TrialAsked) and event.role == "candidate"
        return Entry(
            seq=self._seq + 1,
            utc=self._clock.utc(),
            trials_spent=self._trials + number,
            wall_s_spent=self.wall_s_spent,
            event=event,
        )

    @property
    def wall_s_spent(self) -> float:
        return self._wall_before_s + self._clock.monotonic_s() - self._opened_s

    def book(self, entry: Entry) -> None:
        """Count an entry that is on disk."""
        self._seq = entry.seq
        self._trials = entry.trials_spent


_OTHER_RUN = Sentence("put the file back as it was, or start another run with {}", Argument("out"))


class FileLedger:
    """The ledger of a run folder, opened for writing."""

    def __init__(self, folder: Path, clock: Clock) -> None:
        """Open or begin the ledger in `folder`, which is made if need be.

        Raises UserError where another process writes it, where a line is damaged or of another schema, or where the
        folder can't be written.
        """
        self._path = folder / LEDGER
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._lock = _lock(folder / LOCK)
        except OSError as error:
            raise UserError(
                f"{folder}: can't be written: {error.strerror}", next_step=Sentence("give another {}", Argument("out"))
            ) from error
        with ExitStack() as at_failure:
            at_failure.callback(os.close, self._lock)
            self._entries, whole_bytes = _read(self._path)
            self._file = self._open(whole_bytes)
            at_failure.pop_all()
        self._accounts = Accounts(clock, self._entries[-1] if self._entries else None)

    def append(self, event: Event) -> Entry:
        """Write one event and fsync it. Raises StationError where the disk refuses; then nothing of it stays."""
        entry = self._accounts.next(event)
        size = os.fstat(self._file).st_size
        with kept_on_disk(self._path):
            try:
                _write(self._file, entry.model_dump_json().encode() + b"\n")
                os.fsync(self._file)
            except OSError:
                os.ftruncate(self._file, size)
                raise
        self._accounts.book(entry)
        self._entries.append(entry)
        return entry

    def entries(self) -> list[Entry]:
        return list(self._entries)

    @property
    def wall_s_spent(self) -> float:
        return self._accounts.wall_s_spent

    def close(self) -> None:
        """Let the next writer in. Closing twice does no harm."""
        if self._file >= 0:
            os.close(self._file)
            os.close(self._lock)
            self._file = self._lock = -1

    def _open(self, whole_bytes: int) -> int:
        """Open for appending behind the last whole line, with a torn one moved aside."""
        new = not self._path.exists()
        file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        if new:
            _sync_folder(self._path.parent)
        torn = os.pread(file, os.fstat(file).st_size - whole_bytes, whole_bytes)
        if torn:
            aside = os.open(self._path.with_name(TORN), os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
            _write(aside, torn + b"\n")
            os.fsync(aside)
            os.close(aside)
            os.ftruncate(file, whole_bytes)
            os.fsync(file)
        return file


def read_ledger(folder: Path) -> list[Entry]:
    """Return the entries of a run folder without opening it for writing; a torn last line is left out.

    Raises UserError where there is no ledger, or a line is damaged or of another schema.
    """
    path = folder / LEDGER
    if not path.is_file():
        raise UserError(f"{folder}: no {LEDGER} in it", next_step=f"name the folder that `{command_line('run')}` wrote")
    return _read(path)[0]


def _read(path: Path) -> tuple[list[Entry], int]:
    """Return the entries, and how many bytes their lines take; what lies behind these was torn off."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return [], 0
    except OSError as error:
        raise UserError(f"{path}: can't be read: {error.strerror}") from error
    *lines, torn = data.split(b"\n")
    if torn == b"" and lines and b"\0" in lines[-1]:
        torn = lines.pop() + b"\n"  # a power cut may leave the length of a line without its bytes
    entries = []
    for number, line in enumerate(lines, start=1):
        entry = _entry(line, f"{path}, line {number}")
        if entry.seq != number:
            raise UserError(
                f"{path}, line {number}: is number {entry.seq} of the run; lines were lost, added or moved",
                next_step=_OTHER_RUN,
            )
        entries.append(entry)
    return entries, len(data) - len(torn)


def _entry(line: bytes, where: str) -> Entry:
    try:
        return Entry.model_validate_json(line)
    except ValidationError as error:
        faults = error.errors(include_url=False)
        schema = next((fault for fault in faults if fault["loc"] == ("schema",)), None)
        if schema is not None:
            raise UserError(
                f"{where}: written under schema {schema['input']!r}, this edgeloop reads schema 1",
                next_step="use the version of edgeloop that wrote it",
            ) from error
        place = "".join(f"{part}." for part in faults[0]["loc"]).rstrip(".")
        raise UserError(
            f"{where}: damaged: {place}{': ' if place else ''}{faults[0]['msg']}",
            next_step=_OTHER_RUN,
        ) from error


def _lock(path: Path) -> int:
    """Return a descriptor that holds the lock, with our process id written for whoever finds it taken."""
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        pid = os.pread(file, 32, 0).decode("ascii", "replace").strip()
        os.close(file)
        raise UserError(
            f"{path.parent}: another edgeloop writes this run (pid {pid or 'unknown'})",
            next_step=Sentence("wait for it, stop it, or give another {}", Argument("out")),
        ) from error
    os.ftruncate(file, 0)
    os.pwrite(file, f"{os.getpid()}\n".encode(), 0)
    return file


def _write(file: int, data: bytes) -> None:
    while data:
        data = data[os.write(file, data) :]


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
