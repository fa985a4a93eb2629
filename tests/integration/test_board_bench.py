"""A job on this machine through the real agent: what is pushed, adopted, refused, and said when it goes wrong."""

from __future__ import annotations

import json
import os
import signal
import stat
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeloop.board.agent import BoardAgent
from edgeloop.board.bench import BoardBench, open_bench
from edgeloop.board.job import job_id_of
from edgeloop.board.link import Completed
from edgeloop.board.local import LocalLink
from edgeloop.board.wheels import WheelSet
from edgeloop.core.artifact import Artifact
from edgeloop.core.board import Board, BoardModel, Runtime
from edgeloop.core.measurement import MeasureRequest, ScheduleStep, StepKind, Subject
from edgeloop.core.plan import Environment, Plan
from edgeloop.core.tensors import TensorSpec
from edgeloop.errors import BoardError, BoardFullError, LabError, LeaseError, ModelError, UnreachableError
from edgeloop.ports import Link, Progress
from edgeloop.processes.files import sha256_of
from edgeloop.records.samples import AttemptFolder
from edgeloop.testing.fakes.clock import FakeClock
from edgeloop_agent import wire

DATA = Path(__file__).parents[1] / "data"
PLAN = Plan(
    profile="quick", sessions=2, warmup_s_min=0.02, warmup_s_max=0.1, runs_min=20, time_s_min=0.05, deadline_s=60
)
MODEL = BoardModel.model_validate({"schema": 1, "name": "local"})


def artifact(path: Path, **more: Any) -> Artifact:
    return Artifact(
        path=str(path),
        sha256=sha256_of(path),
        deployed_bytes=path.stat().st_size,
        inputs=(TensorSpec(name="x", dtype="int8", shape=(1, 4, 4, 1)),),
        outputs=(TensorSpec(name="y", dtype="int8", shape=(1, 3)),),
        **more,
    )


def request_for(folder: Path, model: Path, kinds: Sequence[StepKind] = ("latency",), **more: Any) -> MeasureRequest:
    settings = {
        "key": str(folder.parent),
        "subjects": (Subject("candidate", artifact(model)),),
        "schedule": tuple(ScheduleStep(index, "candidate", kind) for index, kind in enumerate(kinds)),
        "plan": PLAN,
        "environment": Environment(),
        "folder": folder,
        "deadline_s": 120.0,
    }
    return MeasureRequest(**{**settings, **more})


def silent(progress: Progress) -> None:
    pass


def bench_of(board: Board, link: Link, **more: Any) -> BoardBench:
    """A bench whose board has numpy and runtime installed already: this test's own interpreter."""
    return BoardBench(board, link, runtime_for=lambda facts, engines: WheelSet(), **more)


class RecordingLink(LocalLink):
    """A LocalLink that remembers the agent's commands, and may answer for the board."""

    def __init__(self, answer: Callable[[str, Completed], Completed] | None = None) -> None:
        super().__init__()
        self.commands: list[str] = []
        self._answer = answer

    def run(self, argv: Sequence[str], **options: Any) -> Completed:  # type: ignore[override]
        command = argv[argv.index("--state-dir") - 1] if "--state-dir" in argv else "bootstrap"
        self.commands.append(command)
        done = super().run(argv, **options)
        return self._answer(command, done) if self._answer else done


def board_in(state_dir: Path) -> Board:
    runtime = Runtime(python=sys.executable, state_dir=str(state_dir))
    return Board(name="here", kind="local", model=MODEL, runtime=runtime)


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Board:
    """One board for this module; every test leaves it free."""
    return board_in(tmp_path_factory.mktemp("board") / "state")


@pytest.fixture(autouse=True)
def _left_free(board: Board) -> Iterator[None]:
    yield
    if Path(board.runtime.state_dir).exists():
        held = Path(board.runtime.state_dir, wire.LEASE_FILE)
        assert not held.exists() or wire.load_json(held.read_bytes()) == {}, "the test left the board leased"


@pytest.fixture
def model() -> Path:
    return DATA / "tiny_int8.tflite"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "data.npz"
    np.savez(path, x=np.random.default_rng(0).normal(size=(9, 4, 4, 1)).astype(np.float32))
    return path


class TestMeasuring:
    def test_sessions_come_back_with_raw_samples_and_dequantized_outputs(
        self, board: Board, model: Path, data: Path, tmp_path: Path
    ) -> None:
        seen: list[tuple[int, int]] = []
        bench = bench_of(board, LocalLink())
        request = request_for(tmp_path / "out", model, ["latency", "evaluate", "latency"], data=data)
        attempt = bench.measure(request, lambda progress: seen.append((progress.done, progress.total)))
        assert [session.outcome for session in attempt.sessions] == ["ok", "ok", "ok"]
        assert all(len(attempt.sessions[i].latencies_ns) >= PLAN.runs_min for i in (0, 2))
        assert attempt.outputs["candidate"]["y"].shape == (9, 3)
        assert attempt.outputs["candidate"]["y"].dtype == np.float32
        assert attempt.engine_versions["candidate"].startswith("litert 2")
        assert seen[-1] == (3, 3)
        again = AttemptFolder(request.folder).read()
        assert again.facts == attempt.facts
        assert np.array_equal(again.sessions[0].latencies_ns, attempt.sessions[0].latencies_ns)

    def test_a_complete_folder_is_read_and_the_board_is_not_asked(
        self, board: Board, model: Path, tmp_path: Path
    ) -> None:
        request = request_for(tmp_path / "out", model)
        first = bench_of(board, LocalLink()).measure(request, silent)
        link = RecordingLink()
        second = bench_of(board, link).measure(request, silent)
        assert link.commands == []
        assert second.job_id == first.job_id

    def test_what_the_board_has_is_not_sent_again(self, model: Path, data: Path, tmp_path: Path) -> None:
        board = board_in(tmp_path / "state")
        first = bench_of(board, LocalLink())
        first.measure(request_for(tmp_path / "1", model, data=data), silent)
        assert first.bytes_pushed > model.stat().st_size
        second = bench_of(board, LocalLink())
        second.measure(request_for(tmp_path / "2", model, data=data, key="another trial"), silent)
        assert second.bytes_pushed == 0

    def test_a_damaged_file_on_the_board_is_sent_again(self, board: Board, model: Path, tmp_path: Path) -> None:
        bench_of(board, LocalLink()).measure(request_for(tmp_path / "1", model), silent)
        cached = Path(board.runtime.state_dir, "cache", f"{sha256_of(model)}.tflite")
        cached.chmod(0o644)
        cached.write_bytes(cached.read_bytes()[:-1])
        second = bench_of(board, LocalLink())
        second.measure(request_for(tmp_path / "2", model, key="another trial"), silent)
        assert second.bytes_pushed == model.stat().st_size

    def test_this_machines_bench_keeps_its_jobs_in_the_users_cache(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        bench = open_bench(Board(name="local", kind="local", model=MODEL))
        assert Path(bench.board.runtime.state_dir).parent.name == "edgeloop"
        assert "edgeloop" in bench.board.runtime.state_dir
        assert bench.board.runtime.state_dir != Runtime().state_dir


class TestAdoption:
    def test_a_restarted_controller_adopts_its_running_job(self, board: Board, model: Path, tmp_path: Path) -> None:
        request = request_for(tmp_path / "out", model, ["latency"] * 3)

        class Killed(BaseException):
            pass

        def die(progress: Progress) -> None:
            if progress.done == 1:
                raise Killed

        with pytest.raises(Killed):
            bench_of(board, LocalLink()).measure(request, die)
        kept = (request.folder / "sessions/000.latency.npy").read_bytes()
        link = RecordingLink()
        attempt = bench_of(board, link).measure(request, silent)
        assert len(attempt.sessions) == 3
        assert "start" not in link.commands
        assert "receive" not in link.commands
        assert (request.folder / "sessions/000.latency.npy").read_bytes() == kept

    def test_a_job_that_finished_meanwhile_is_collected_even_where_the_folder_is_lost(
        self, board: Board, model: Path, tmp_path: Path
    ) -> None:
        first = bench_of(board, LocalLink()).measure(request_for(tmp_path / "1", model), silent)
        link = RecordingLink()
        second = bench_of(board, link).measure(request_for(tmp_path / "2", model), silent)
        assert second.job_id == first.job_id
        assert np.array_equal(second.sessions[0].latencies_ns, first.sessions[0].latencies_ns)

    def test_another_attempt_is_another_job(self, board: Board, model: Path, tmp_path: Path) -> None:
        bench = bench_of(board, LocalLink())
        request = request_for(tmp_path / "out", model)
        assert bench.measure(request, silent).job_id != bench.measure(replace(request, attempt=1), silent).job_id


class TestConnectionLost:
    def test_results_are_collected_when_the_board_answers_again(
        self, board: Board, model: Path, tmp_path: Path
    ) -> None:
        calls = {"look": 0, "read": 0, "start": 0}

        def flaky(command: str, done: Completed) -> Completed:
            calls[command] = calls.get(command, 0) + 1
            if command in {"look", "read", "start"} and calls[command] in {1, 3, 4}:
                raise UnreachableError("gone")
            return done

        pauses: list[float] = []
        bench = bench_of(board, RecordingLink(flaky), sleep_s=pauses.append)
        attempt = bench.measure(request_for(tmp_path / "out", model, ["latency"] * 3), silent)
        assert [session.outcome for session in attempt.sessions] == ["ok"] * 3
        assert pauses

    def test_a_board_that_never_answered_is_not_waited_for(self, board: Board, model: Path, tmp_path: Path) -> None:
        def gone(command: str, done: Completed) -> Completed:
            raise UnreachableError("gone")

        pauses: list[float] = []
        with pytest.raises(UnreachableError):
            bench_of(board, RecordingLink(gone), sleep_s=pauses.append).measure(
                request_for(tmp_path / "out", model), silent
            )
        assert pauses == []

    def test_a_board_that_stays_away_is_given_up_and_its_job_is_adopted_later(
        self, board: Board, model: Path, tmp_path: Path
    ) -> None:
        clock = FakeClock()
        began_s, away = clock.monotonic_s(), True

        def gone(command: str, done: Completed) -> Completed:
            if away and command == "look":
                raise UnreachableError("gone")
            return done

        request = request_for(tmp_path / "out", model, deadline_s=3600.0)
        waiting = bench_of(board, RecordingLink(gone), now_s=clock.monotonic_s, sleep_s=clock.advance)
        with pytest.raises(UnreachableError, match=r"^here: no connection for \d+ s: gone$"):
            waiting.measure(request, silent)
        assert 240 < clock.monotonic_s() - began_s <= 310
        away = False
        assert [s.outcome for s in bench_of(board, LocalLink()).measure(request, silent).sessions] == ["ok"]


class TestFaults:
    def test_a_changed_boot_id_closes_the_attempt(self, board: Board, model: Path, tmp_path: Path) -> None:
        looks = 0

        def reboot(command: str, done: Completed) -> Completed:
            nonlocal looks
            looks += command == "look"
            if command != "look" or looks < 2:
                return done
            look = wire.load_json(done.stdout)
            return Completed(0, json.dumps({**look, "boot_id": "another", "done": None}).encode(), b"")

        with pytest.raises(BoardError, match=r"here: rebooted after \d of 3 sessions; the attempt is closed"):
            bench_of(board, RecordingLink(reboot)).measure(
                request_for(tmp_path / "out", model, ["latency"] * 3), silent
            )
        assert not (tmp_path / "out" / "done.json").exists()

    def test_a_killed_agent_is_said_and_the_next_attempt_works(self, board: Board, model: Path, tmp_path: Path) -> None:
        def kill_supervisor(progress: Progress) -> None:
            if progress.done == 1:
                state = Path(board.runtime.state_dir, "jobs", job_id_of(request, None), "state.json")
                os.kill(wire.decode(wire.State, state.read_bytes()).pid, signal.SIGKILL)

        request = request_for(tmp_path / "out", model, ["latency"] * 3)
        bench = bench_of(board, LocalLink())
        with pytest.raises(BoardError, match="the agent was killed after"):
            bench.measure(request, kill_supervisor)
        assert len(bench.measure(replace(request, attempt=1), silent).sessions) == 3

    def test_an_agent_that_hangs_is_ended_by_its_heartbeat_and_the_next_attempt_works(
        self, board: Board, model: Path, tmp_path: Path
    ) -> None:
        def freeze_supervisor(progress: Progress) -> None:
            if progress.done == 1:
                state = Path(board.runtime.state_dir, "jobs", job_id_of(request, None), "state.json")
                os.kill(wire.decode(wire.State, state.read_bytes()).pid, signal.SIGSTOP)

        request = request_for(tmp_path / "out", model, ["latency"] * 3, deadline_s=36_000.0)
        hurried = bench_of(board, LocalLink(), now_s=lambda: 30 * time.monotonic())
        with pytest.raises(BoardError, match=r"the agent hangs after \d of 3 sessions: no heartbeat for \d+ s"):
            hurried.measure(request, freeze_supervisor)
        assert len(bench_of(board, LocalLink()).measure(replace(request, attempt=1), silent).sessions) == 3

    def test_a_board_that_somebody_else_holds_is_waited_for_and_then_named(
        self, board: Board, model: Path, tmp_path: Path
    ) -> None:
        BoardAgent(LocalLink(), board).acquire_lease("ada@bench7", 60, "somebodyelse")
        now = [0.0]
        said: list[str] = []

        def sleep(seconds: float) -> None:
            now[0] += seconds

        bench = bench_of(board, LocalLink(), now_s=lambda: now[0], sleep_s=sleep)
        with pytest.raises(LeaseError, match=r"here: held by ada@bench7; waited \d+ s"):
            bench.measure(
                request_for(tmp_path / "out", model, deadline_s=10.0), lambda progress: said.append(progress.text)
            )
        assert "waiting for the board, held by ada@bench7" in said
        BoardAgent(LocalLink(), board).release_lease("somebodyelse")

    def test_a_job_past_its_deadline_is_cancelled(self, board: Board, model: Path, tmp_path: Path) -> None:
        plan = PLAN.model_copy(update={"time_s_min": 30.0})
        began = time.monotonic()
        with pytest.raises(BoardError, match=r"deadline|within 2 s"):
            bench_of(board, LocalLink()).measure(
                request_for(tmp_path / "out", model, plan=plan, deadline_s=2.0), silent
            )
        assert time.monotonic() - began < 25
        agent = BoardAgent(LocalLink(), board)
        assert agent.show_lease()["held"] is False
        assert agent.show_lease()["job"] is None

    def test_a_model_that_the_engine_refuses_is_the_models_fault_in_the_engines_words(
        self, board: Board, model: Path, tmp_path: Path
    ) -> None:
        text = tmp_path / "text.tflite"
        text.write_text("this is no model" * 10)
        with pytest.raises(ModelError, match=r"candidate: litert .* on here refuses the model: \S"):
            bench_of(board, LocalLink()).measure(request_for(tmp_path / "out", text, ["latency"] * 2), silent)
        assert {session.outcome for session in AttemptFolder(tmp_path / "out").read().sessions} == {"refused"}

    def test_no_python_there_names_the_key(self, board: Board, model: Path, tmp_path: Path) -> None:
        board = with_python(board, tmp_path / "absent")
        with pytest.raises(BoardError, match="there is no Python at") as caught:
            bench_of(board, LocalLink()).measure(request_for(tmp_path / "out", model), silent)
        assert "runtime.python" in (caught.value.next_step or "")

    def test_an_old_python_there_is_named_with_its_version(self, board: Board, model: Path, tmp_path: Path) -> None:
        board = with_python(board, script(tmp_path, 'echo "old 3.7" >&2; exit 1'))
        with pytest.raises(BoardError, match=r"is Python 3\.7; the agent needs 3\.9"):
            bench_of(board, LocalLink()).facts()

    def test_a_state_folder_that_can_not_be_written_is_named(self, board: Board, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        runtime = board.runtime.model_copy(update={"state_dir": str(tmp_path / "file" / "state")})
        with pytest.raises((BoardError, LabError), match="can't be stored"):
            BoardBench(board.model_copy(update={"runtime": runtime}), LocalLink()).facts()


def script(folder: Path, text: str) -> Path:
    path = folder / "python"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def with_python(board: Board, python: Path) -> Board:
    return board.model_copy(update={"runtime": board.runtime.model_copy(update={"python": str(python)})})


class TestHostileAnswers:
    @pytest.mark.parametrize(
        ("answer", "said"),
        [
            ("echo hello", "not JSON"),
            ("echo NaN", "NaN"),
            ("echo '[1]'", "no JSON object"),
            ("head -c 20000000 /dev/zero", "sent more than"),
            ("yes '[' | head -n 100000 | tr -d '\\n'", "not JSON"),
            ("printf '\\377\\376'", "not JSON"),
            ("echo Traceback >&2; echo 'MemoryError: x' >&2; exit 1", "MemoryError: x"),
            ("""echo '{"error": 1}'; exit 1""", "exit status 1"),
            ("kill -11 $$", "exit status -11"),
        ],
    )
    def test_an_answer_that_is_not_the_protocols_is_refused_in_one_line(
        self, board: Board, tmp_path: Path, answer: str, said: str
    ) -> None:
        board = with_python(board, script(tmp_path, f'case "$2" in -c) echo ok;; *) {answer};; esac'))
        with pytest.raises(BoardError) as caught:
            bench_of(board, LocalLink()).facts()
        (line,) = caught.value.lines()
        assert said in line
        assert "\n" not in line
        assert len(line) < 700

    def test_the_agents_own_errors_keep_their_owner(self, board: Board, tmp_path: Path) -> None:
        full = (
            """echo '{"error": "cache: no space left on the board", "owner": "board", "code": "disk_full"}'; exit 1"""
        )
        board = with_python(board, script(tmp_path, f'case "$2" in -c) echo ok;; *) {full};; esac'))
        with pytest.raises(BoardFullError, match="here: cache: no space left") as caught:
            bench_of(board, LocalLink()).facts()
        assert caught.value.next_step == "free space there: edgeloop targets clean here"

    @pytest.mark.parametrize(
        "files",
        [{"../../etc/passwd": 3}, {"sessions/001.json": 3}, {"sessions/000.json": -1}, {"sessions/000.json": "3"}],
    )
    def test_names_and_sizes_from_the_board_are_not_followed(
        self, board: Board, model: Path, tmp_path: Path, files: dict[str, Any]
    ) -> None:
        def lie(command: str, done: Completed) -> Completed:
            if command != "look":
                return done
            look = wire.load_json(done.stdout)
            return Completed(0, json.dumps({**look, "sessions": [{"index": 0, "files": files}]}).encode(), b"")

        with pytest.raises(BoardError, match="`look` is refused"):
            bench_of(board, RecordingLink(lie)).measure(request_for(tmp_path / "out", model), silent)
