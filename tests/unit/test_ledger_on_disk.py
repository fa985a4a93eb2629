"""What only a ledger on disk can get wrong: torn and damaged lines, other schemas, two writers, a full disk."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeloop.core.events import RunFinished, RunStarted, fold
from edgeloop.core.verdict import Outcome
from edgeloop.errors import StationError, UserError
from edgeloop.records import ledger as module
from edgeloop.records.ledger import FileLedger, read_ledger
from edgeloop.testing.contracts.ledger import trial_asked
from edgeloop.testing.fakes.clock import FakeClock

SAMPLE = Path(__file__).parents[1] / "data" / "ledger-schema-1"
STARTED = RunStarted(run_id="r", campaign_name="c", campaign_key="0" * 64, versions={}, targets=("local",))


def written(folder: Path, trials: int = 3) -> Path:
    ledger = FileLedger(folder, FakeClock())
    ledger.append(STARTED)
    for trial in range(1, trials + 1):
        ledger.append(trial_asked(trial))
    ledger.close()
    return folder / "ledger.jsonl"


def test_a_ledger_of_schema_1_still_loads_with_every_kind_of_event() -> None:
    entries = read_ledger(SAMPLE)
    kinds = {entry.event.kind for entry in entries}
    assert kinds == {
        "started", "asked", "trained", "built", "job_intended", "session", "judged", "errored", "moved", "finished",
    }  # fmt: skip
    trials = fold(entry.event for entry in entries)
    assert [(t.number, t.outcome) for t in trials] == [
        (0, Outcome.PASS), (1, Outcome.FAIL), (2, Outcome.ERROR), (3, Outcome.PASS),
    ]  # fmt: skip
    assert entries[-1].trials_spent == 3
    assert isinstance(entries[-1].event, RunFinished)
    assert trials[3].passed


@pytest.mark.parametrize("kept_bytes", [0, 1, 17, -1])
def test_a_torn_last_line_is_moved_aside_and_the_rest_goes_on(tmp_path: Path, kept_bytes: int) -> None:
    path = written(tmp_path)
    *whole, last = path.read_bytes().splitlines(keepends=True)
    torn = last[:kept_bytes]
    path.write_bytes(b"".join(whole) + torn)
    assert len(read_ledger(tmp_path)) == 3  # reading repairs nothing
    assert path.read_bytes() == b"".join(whole) + torn

    ledger = FileLedger(tmp_path, FakeClock())
    assert [entry.seq for entry in ledger.entries()] == [1, 2, 3]
    assert path.read_bytes() == b"".join(whole)
    assert ledger.append(trial_asked(3)).seq == 4
    ledger.close()
    assert len(read_ledger(tmp_path)) == 4
    aside = tmp_path / "ledger.torn"
    assert aside.exists() == bool(torn)
    if torn:
        assert aside.read_bytes() == torn + b"\n"


def test_a_last_line_that_a_power_cut_left_without_its_bytes_is_torn(tmp_path: Path) -> None:
    path = written(tmp_path)
    *whole, last = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(whole) + b"\0" * (len(last) - 1) + b"\n")
    ledger = FileLedger(tmp_path, FakeClock())
    assert len(ledger.entries()) == 3
    ledger.close()
    assert path.read_bytes() == b"".join(whole)


@given(st.integers(0, 10_000))
def test_cut_anywhere_a_ledger_is_a_prefix_of_what_it_was(tmp_path_factory: pytest.TempPathFactory, cut: int) -> None:
    folder = tmp_path_factory.mktemp("cut")
    path = written(folder)
    entries, data = read_ledger(folder), path.read_bytes()
    path.write_bytes(data[: cut % (len(data) + 1)])
    ledger = FileLedger(folder, FakeClock())
    left = ledger.entries()
    ledger.close()
    assert left == entries[: len(left)]
    assert len(left) == data[: cut % (len(data) + 1)].count(b"\n")


@pytest.mark.parametrize("damage", [b"{not json}", b"", b'{"schema": 1}'])
def test_a_damaged_line_is_named_and_nothing_is_changed(tmp_path: Path, damage: bytes) -> None:
    path = written(tmp_path)
    lines = path.read_bytes().split(b"\n")
    lines[1] = damage
    path.write_bytes(b"\n".join(lines))
    with pytest.raises(UserError, match=r"ledger\.jsonl, line 2: damaged: ") as caught:
        FileLedger(tmp_path, FakeClock())
    assert len(caught.value.lines()) == 1
    assert "\n" not in caught.value.lines()[0]
    assert path.read_bytes() == b"\n".join(lines)
    with pytest.raises(UserError, match="line 2"):
        read_ledger(tmp_path)


def test_a_lost_line_is_noticed(tmp_path: Path) -> None:
    path = written(tmp_path)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + lines[2] + lines[3])
    with pytest.raises(UserError, match=r"line 2: is number 3 of the run"):
        FileLedger(tmp_path, FakeClock())


def test_a_ledger_of_another_schema_is_refused_by_its_number(tmp_path: Path) -> None:
    path = written(tmp_path)
    first, *rest = path.read_text().splitlines(keepends=True)
    plain = json.loads(first) | {"schema": 2, "something": "new"}
    path.write_text(json.dumps(plain) + "\n" + "".join(rest))
    with pytest.raises(UserError, match=r"line 1: written under schema 2, this edgeloop reads schema 1"):
        FileLedger(tmp_path, FakeClock())


def test_a_ledger_that_was_refused_leaves_the_folder_unlocked(tmp_path: Path) -> None:
    path = written(tmp_path)
    good = path.read_bytes()
    path.write_bytes(b"{}\n" + good)
    with pytest.raises(UserError):
        FileLedger(tmp_path, FakeClock())
    path.write_bytes(good)
    FileLedger(tmp_path, FakeClock()).close()


def test_a_second_writer_is_told_the_pid_of_the_first(tmp_path: Path) -> None:
    first = FileLedger(tmp_path, FakeClock())
    with pytest.raises(UserError, match=rf"another edgeloop writes this run \(pid {os.getpid()}\)"):
        FileLedger(tmp_path, FakeClock())
    first.close()
    FileLedger(tmp_path, FakeClock()).close()


def test_a_killed_writer_leaves_whole_lines_and_no_lock(tmp_path: Path) -> None:
    script = """
import os, signal, sys
from pathlib import Path
from edgeloop.records.ledger import FileLedger
from edgeloop.testing.fakes.clock import FakeClock
from edgeloop.testing.contracts.ledger import trial_asked
ledger = FileLedger(Path(sys.argv[1]), FakeClock())
ledger.append(trial_asked(1))
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], timeout=60, check=False)
    assert done.returncode == -9
    ledger = FileLedger(tmp_path, FakeClock())
    assert [entry.seq for entry in ledger.entries()] == [1]
    assert ledger.append(trial_asked(2)).trials_spent == 2
    ledger.close()


def test_an_event_that_the_disk_refuses_leaves_nothing_of_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = FileLedger(tmp_path, FakeClock())
    ledger.append(trial_asked(1))
    before = (tmp_path / "ledger.jsonl").read_bytes()
    write = os.write

    def half_then_full(file: int, data: bytes) -> int:
        if len(data) < 20:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(file, data[: len(data) // 2])

    monkeypatch.setattr(module.os, "write", half_then_full)
    with pytest.raises(StationError, match="No space left on device"):
        ledger.append(trial_asked(2))
    monkeypatch.undo()
    assert (tmp_path / "ledger.jsonl").read_bytes() == before
    entry = ledger.append(trial_asked(2))
    assert (entry.seq, entry.trials_spent) == (2, 2)
    ledger.close()
    assert len(read_ledger(tmp_path)) == 2


def test_every_event_is_synced_before_append_returns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = FileLedger(tmp_path, FakeClock())
    synced: list[int] = []
    monkeypatch.setattr(module.os, "fsync", lambda file: synced.append(os.fstat(file).st_size))
    ledger.append(trial_asked(1))
    assert synced == [(tmp_path / "ledger.jsonl").stat().st_size]
    ledger.close()


def test_a_folder_without_a_ledger_says_so(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no ledger\.jsonl in it"):
        read_ledger(tmp_path)


def test_a_folder_that_is_a_file_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("")
    with pytest.raises(UserError, match="can't be written"):
        FileLedger(tmp_path / "run", FakeClock())
