"""Pushed files: never there half-written, never under a wrong name, and never outside of their folder."""

from __future__ import annotations

import hashlib
import io
import json
import os
import stat
import zipfile
from pathlib import Path
from typing import Any

import pytest

from edgeloop_agent import cache, cleaning, folder, runtimes, wire
from edgeloop_agent.errors import AgentError

RAW = b"a model" * 1000
SHA = hashlib.sha256(RAW).hexdigest()
NAME = SHA + ".tflite"


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return folder.open_state_dir(str(tmp_path / "state"))


def receive(state: Path, raw: bytes = RAW, suffix: str = ".tflite", **changes: Any) -> dict[str, Any]:
    sha256 = hashlib.sha256(raw).hexdigest()
    given = {"name": sha256 + suffix, "sha256": sha256, "size": len(raw), **changes}
    return cache.receive(
        state, source=io.BytesIO(changes.pop("sent", raw)), **{k: given[k] for k in ("name", "sha256", "size")}
    )


def held(state: Path) -> list[str]:
    return sorted(path.name for path in (state / "cache").iterdir())


def test_what_was_received_is_there_under_its_hash(state: Path) -> None:
    assert receive(state) == {"stored": NAME, "bytes": len(RAW), "already": False}
    assert (state / "cache" / NAME).read_bytes() == RAW
    assert runtimes.has(state, [NAME, "0" * 64 + ".npz"], []) == {
        "present": [NAME],
        "missing": ["0" * 64 + ".npz"],
        "bytes": {NAME: len(RAW)},
        "runtimes_present": [],
        "runtimes_missing": [],
    }
    assert receive(state)["already"] is True


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"sent": RAW[:-1]}, "ended after 6999 of 7000 bytes"),
        ({"sent": RAW + b"x"}, "more than the announced 7000 bytes"),
        ({"sent": RAW[:-1] + b"x"}, "have the hash"),
        ({"size": -1}, "can't be received"),
        ({"size": 1 << 60}, "MiB free"),
        ({"name": "0" * 64 + ".tflite"}, "does not begin with the hash"),
        ({"name": "../" + NAME}, "is not a hash and a suffix"),
        ({"name": SHA + "/x.tflite"}, "is not a hash and a suffix"),
        ({"name": SHA + ".tflite\n"}, "is not a hash and a suffix"),
        ({"name": SHA + ".ok"}, "is not a hash and a suffix"),
    ],
)
def test_what_does_not_fit_is_refused_and_leaves_nothing(state: Path, changes: dict[str, Any], line: str) -> None:
    with pytest.raises(AgentError, match=line):
        receive(state, **changes)
    assert held(state) == []


def test_a_full_disk_is_the_boards_and_leaves_nothing(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_fd: int) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(AgentError, match="no space left on the board") as raised:
        receive(state)
    assert raised.value.owner == "board"
    assert held(state) == []


def test_a_transfer_that_was_killed_is_swept_away_and_a_running_one_is_not(state: Path) -> None:
    dead = state / "cache" / f".{NAME}.part999999999"
    living = state / "cache" / f".{NAME}.part{os.getppid()}"
    dead.write_bytes(b"half")
    living.write_bytes(b"half")
    receive(state, b"other")
    assert not dead.exists()
    assert living.exists()


def test_a_file_without_a_marker_is_hashed_before_it_counts(state: Path) -> None:
    good = hashlib.sha256(b"pushed by hand").hexdigest() + ".pyz"
    (state / "cache" / good).write_bytes(b"pushed by hand")
    (state / "cache" / NAME).write_bytes(b"somebody else's bytes")
    assert runtimes.has(state, [good, NAME], [])["present"] == [good]
    assert not (state / "cache" / NAME).exists()


def test_a_file_that_changed_on_the_card_is_hashed_again(state: Path) -> None:
    receive(state)
    path = state / "cache" / NAME
    path.write_bytes(RAW[:-1] + b"x")
    assert runtimes.has(state, [NAME], [])["missing"] == [NAME]


def test_a_verified_file_is_not_hashed_again(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    receive(state)
    monkeypatch.setattr(cache, "hash_of", pytest.fail)
    assert runtimes.has(state, [NAME], [])["present"] == [NAME]


def wheel(state: Path, members: dict[str, bytes], link: str | None = None) -> str:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, raw in members.items():
            archive.writestr(name, raw)
        if link is not None:
            entry = zipfile.ZipInfo(link)
            entry.external_attr = (stat.S_IFLNK | 0o777) << 16
            archive.writestr(entry, "/etc/passwd")
    raw = buffer.getvalue()
    receive(state, raw, ".whl")
    return hashlib.sha256(raw).hexdigest() + ".whl"


def test_wheels_are_unpacked_together_under_one_hash(state: Path) -> None:
    first = wheel(state, {"numpy/__init__.py": b"n", "numpy-1.dist-info/METADATA": b"m"})
    second = wheel(state, {"run.data/purelib/run/__init__.py": b"r", "run.data/scripts/tool": b"s"})
    runtime = "a" * 64
    answer = runtimes.unpack(state, [first, second], runtime)
    path = Path(answer["path"])
    assert answer["already"] is False
    assert (path / "numpy/__init__.py").read_bytes() == b"n"
    assert (path / "run/__init__.py").read_bytes() == b"r"
    assert not list(path.rglob("tool"))
    assert runtimes.unpack(state, [], runtime)["already"] is True
    assert runtimes.has(state, [], [runtime, "b" * 64])["runtimes_present"] == [runtime]


@pytest.mark.parametrize("name", ["../evil.py", "/etc/evil", "a/../../evil", "a\\..\\evil"])
def test_a_wheel_that_reaches_outside_is_refused_and_leaves_nothing(state: Path, name: str) -> None:
    bad = wheel(state, {"fine.py": b"", name: b"evil"})
    with pytest.raises(AgentError, match="reaches outside"):
        runtimes.unpack(state, [bad], "a" * 64)
    assert list((state / "runtimes").iterdir()) == []


def test_a_link_in_a_wheel_is_refused(state: Path) -> None:
    with pytest.raises(AgentError, match="reaches outside"):
        runtimes.unpack(state, [wheel(state, {}, link="passwd")], "a" * 64)


def test_a_wheel_that_is_absent_or_no_zip_is_refused(state: Path) -> None:
    with pytest.raises(AgentError, match="push it first"):
        runtimes.unpack(state, ["0" * 64 + ".whl"], "a" * 64)
    receive(state, b"no zip", ".whl")
    with pytest.raises(AgentError, match="not a zip file"):
        runtimes.unpack(state, [hashlib.sha256(b"no zip").hexdigest() + ".whl"], "a" * 64)
    with pytest.raises(AgentError, match="is not a runtime's hash"):
        runtimes.unpack(state, [], "../" + "a" * 61)


def aged(state: Path, raw: bytes, age_s: float) -> str:
    receive(state, raw, ".npz")
    name = hashlib.sha256(raw).hexdigest() + ".npz"
    moment = (state / "cache" / name).stat().st_mtime - age_s
    os.utime(state / "cache" / (name + ".ok"), (moment, moment))
    return name


def test_the_least_recently_used_goes_first_until_the_quota_is_met(state: Path) -> None:
    old, older, new = aged(state, b"o" * 700_000, 50), aged(state, b"p" * 700_000, 90), aged(state, b"n" * 700_000, 1)
    answer = cleaning.clean(state, 1, everything=False)
    assert answer["removed"] == [f"cache/{older}", f"cache/{old}"]
    assert answer["freed_bytes"] >= 1_400_000
    assert answer["used_bytes"] <= 1 << 20
    assert held(state) == [new, new + ".ok"]


def test_without_a_quota_nothing_is_removed(state: Path) -> None:
    receive(state)
    assert cleaning.clean(state, None, everything=False)["removed"] == []
    assert cleaning.clean(state, 100, everything=False)["removed"] == []
    assert held(state) == [NAME, NAME + ".ok"]


def test_what_a_running_job_needs_is_never_removed(state: Path) -> None:
    receive(state)
    data, other = aged(state, b"data", 90), aged(state, b"other", 90)
    running, finished = state / "jobs" / ("1" * 32), state / "jobs" / ("2" * 32)
    for place in (running, finished):
        place.mkdir()
    (finished / "done.json").write_text("{}")
    job = json.loads(JOB)
    job["subjects"][0]["model_sha256"] = SHA
    job["data_sha256"] = data.partition(".")[0]
    (running / "job.json").write_text(json.dumps(job))
    lock = folder.open_shared(running / folder.SUPERVISOR_LOCK)
    assert folder.try_lock(lock)
    os.utime(running, (0, 0))
    answer = cleaning.clean(state, None, everything=True)
    os.close(lock)
    assert sorted(answer["kept"]) == sorted([f"cache/{NAME}", f"cache/{data}", f"jobs/{'1' * 32}"])
    assert sorted(answer["removed"]) == sorted([f"cache/{other}", f"jobs/{'2' * 32}"])
    assert cleaning.clean(state, None, everything=True)["kept"] == []
    assert held(state) == []


JOB = wire.encode(
    wire.Job(
        id="1" * 32,
        agent_sha256="3" * 64,
        lease_token="t" * 16,
        lease_owner="o",
        subjects=[wire.WireSubject("a", "litert", "4" * 64, ".tflite", 1, ["x"], ["y"])],
        schedule=[wire.WireStep(0, 0, "latency")],
        session_plan=wire.SessionPlan(1, 0.0, 1.0, 1, 0.1, "invoke", None, 0.0, 10.0),
        conditions=wire.Conditions(
            cores=[],
            governor="as-found",
            idle_gate=False,
            start_temperature_max_c=None,
            cool_down_max_s=0.0,
            foreign_load_max_pct=None,
            soak_max_s=None,
            soak_window_s=120.0,
            soak_slope_max_c_per_min=0.2,
        ),
        data_sha256=None,
        python_path=[],
        power_sensor=None,
        seed=0,
        deadline_s=10.0,
    )
)


def test_the_state_folder_is_for_every_user_and_never_a_link(tmp_path: Path) -> None:
    state = folder.open_state_dir(str(tmp_path / "state"))
    assert stat.S_IMODE(state.stat().st_mode) == 0o1777
    assert stat.S_IMODE((state / "jobs").stat().st_mode) == 0o1777
    (tmp_path / "link").symlink_to(state)
    with pytest.raises(AgentError, match="is a symbolic link; name the folder itself"):
        folder.open_state_dir(str(tmp_path / "link"))
    (tmp_path / "file").write_text("")
    with pytest.raises(AgentError, match="is not a folder"):
        folder.open_state_dir(str(tmp_path / "file"))


def test_a_folder_of_another_user_counts_only_where_it_is_shared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "getuid", lambda: tmp_path.stat().st_uid + 1)
    real = os.lstat
    monkeypatch.setattr(os, "lstat", lambda path: os.stat_result((*real(path)[:4], 4242, *real(path)[5:])))
    tmp_path.chmod(0o755)
    assert "belongs to user 4242 and is not shared" in (folder.folder_problem(tmp_path) or "")
    tmp_path.chmod(0o1777)
    assert folder.folder_problem(tmp_path) is None


def test_a_network_file_system_is_told_by_its_mount(tmp_path: Path) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text(f"/dev/root / ext4 rw 0 0\nserver:/x {tmp_path}/with\\040space nfs4 rw 0 0\n")
    assert folder.file_system(tmp_path / "with space" / "state", mounts) == "nfs4"
    assert folder.file_system(tmp_path / "other", mounts) == "ext4"
    assert folder.is_network("nfs4")
    assert not folder.is_network("ext4")
