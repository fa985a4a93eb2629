"""What a board does before, between and throughout sessions, through the real supervisor and records to a verdict."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from fake_board import CLOSED, FakeBoard, wait_for

from edgeloop.analysis.judge_job import judge_attempts
from edgeloop.analysis.subject_data import subject_data
from edgeloop.board.bench import BoardBench
from edgeloop.board.local import LocalLink
from edgeloop.board.wheels import WheelSet
from edgeloop.core.artifact import Artifact
from edgeloop.core.board import Board, BoardModel, Runtime
from edgeloop.core.events import Judgement
from edgeloop.core.limits import parse_limits
from edgeloop.core.measurement import Attempt, MeasureRequest, ScheduleStep, Subject
from edgeloop.core.plan import Environment, Plan, ProfileName
from edgeloop.core.tensors import TensorSpec
from edgeloop.core.verdict import Outcome
from edgeloop.errors import BoardError
from edgeloop.processes.files import sha256_of
from edgeloop_agent.root import ROOT_VARIABLE

MODEL = Path(__file__).parents[1] / "data" / "tiny_int8.tflite"
SUBJECT = Subject(
    "candidate",
    Artifact(
        path=str(MODEL),
        sha256=sha256_of(MODEL),
        deployed_bytes=MODEL.stat().st_size,
        inputs=(TensorSpec(name="x", dtype="int8", shape=(1, 4, 4, 1)),),
        outputs=(TensorSpec(name="y", dtype="int8", shape=(1, 3)),),
    ),
)
LIMITS = parse_limits(["latency.p50_ms=1000"], frozenset())
SWAPPED = "pswpin 3\npswpout 2004\npgmajfault 5\noom_kill 0\n"
KILLED = "pswpin 3\npswpout 4\npgmajfault 5\noom_kill 1\n"
COUNT = "sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_count"


class FakeLink(LocalLink):
    """This machine, where every command of the agent reads conditions under a root of its own."""

    def __init__(self, root: Path) -> None:
        super().__init__()
        self._root = root

    def exchange(self, argv: Sequence[str], *more: Any) -> int:
        return super().exchange(["env", f"{ROOT_VARIABLE}={self._root}", *argv], *more)


class Bench:
    """A board made of files, and the bench that measures on it."""

    def __init__(self, folder: Path, pushed: Bench | None = None) -> None:
        """`pushed`: a bench whose board has agent and model already; what it has is copied instead of pushed."""
        self.folder, self.state = folder, folder / "state"
        if pushed is not None:
            shutil.copytree(pushed.state, self.state)
        self.fake = FakeBoard(folder / "root", self.state)
        runtime = Runtime(python=sys.executable, state_dir=str(self.state))
        model = BoardModel.model_validate({"schema": 1, "name": "fake"})
        self.board = Board(name="fake", kind="local", model=model, runtime=runtime)
        self.bench = BoardBench(self.board, FakeLink(self.fake.root), runtime_for=lambda facts, engines: WheelSet())

        if pushed is not None:
            self.bench._facts = pushed.bench.facts()

    def request(self, environment: Environment, **plan: Any) -> MeasureRequest:
        pace = {"warmup_s_min": 0.02, "warmup_s_max": 0.1, "time_s_min": 0.8, "runs_min": 20, "period_ms": 20}
        settings = {**pace, "deadline_s": 60, **plan}
        return MeasureRequest(
            key=str(self.folder),
            subjects=(SUBJECT,),
            schedule=tuple(ScheduleStep(index, "candidate", "latency") for index in range(2)),
            plan=Plan.of("standard", sessions=2, **settings),
            environment=environment,
            folder=self.folder / "samples",
            deadline_s=120,
        )

    def measure(self, request: MeasureRequest) -> Attempt:
        """Measure, but for the calibration loops: how fast this machine is just now is not the fake board's doing."""
        attempt = self.bench.measure(request, lambda progress: None)
        assert all(min(session.conditions.calibration_ns or (0,)) > 0 for session in attempt.sessions)
        steady = [
            replace(
                session,
                conditions=session.conditions.model_copy(update={"calibration_ns": (1_000_000, 1_000_000)}),
            )
            for session in attempt.sessions
        ]
        return replace(attempt, sessions=tuple(steady))

    def verdict(self, request: MeasureRequest, attempt: Attempt, profile: ProfileName = "standard") -> Judgement:
        asked = replace(request, plan=request.plan.model_copy(update={"profile": profile}))
        observed = subject_data(SUBJECT, "litert", attempt.sessions, {})
        return judge_attempts(
            asked,
            self.board,
            [attempt],
            LIMITS,
            observed,
            None,
            trial=0,
            split="validation",
            look=1,
            looks=1,
            seconds=0.0,
        )


def throughout(fake: FakeBoard) -> None:
    fake.flags(0x40004)


def before_and_over(fake: FakeBoard) -> None:
    fake.flags(0x40000)


def in_the_first_session(fake: FakeBoard) -> None:
    fake.while_session(0, lambda: fake.flags(0x60006))


def a_short_event_in_a_session(fake: FakeBoard) -> None:
    fake.while_session(1, lambda: fake.flags(0x80000))


def between_sessions(fake: FakeBoard) -> None:
    fake.flags(0x40000, later=True)


def under_voltage_only(fake: FakeBoard) -> None:
    fake.flags(0x10000, later=True)


def under_voltage_now(fake: FakeBoard) -> None:
    fake.while_session(0, lambda: fake.flags(0x10001))


def no_vcgencmd(fake: FakeBoard) -> None:
    fake.remove("usr/bin/vcgencmd")


def rubbish(fake: FakeBoard) -> None:
    fake.vcgencmd("#!/bin/sh\necho 'throttled=banana\x1b[2J'\n")


def closed_and_low(fake: FakeBoard) -> None:
    fake.vcgencmd(CLOSED)
    fake.while_session(1, lambda: fake.put("sys/class/hwmon/hwmon1/in0_lcrit_alarm", "1\n"))


def lying_clock(fake: FakeBoard) -> None:
    fake.put("firmware/measure_clock", "frequency(48)=1000265600\n")


def _another_board(fake: FakeBoard) -> None:
    fake.put("proc/device-tree/model", "BeagleBoard.org BeaglePlay\0")
    fake.remove("usr/bin/vcgencmd")
    fake.remove("sys/class/hwmon/hwmon1/name")
    fake.cooling(0)


def kernel_cools(fake: FakeBoard) -> None:
    _another_board(fake)
    fake.while_session(0, lambda: fake.cooling(2))


def fan_turns(fake: FakeBoard) -> None:
    _another_board(fake)
    fake.cooling(3, kind="pwm-fan")
    fake.put(COUNT, "7\n")


def kernel_caps(fake: FakeBoard) -> None:
    _another_board(fake)
    fake.while_session(1, lambda: fake.all_cores("scaling_max_freq", "1200000\n"))


def hardware_counts(fake: FakeBoard) -> None:
    _another_board(fake)
    fake.put(COUNT, "7\n")
    fake.while_session(0, lambda: fake.put(COUNT, "21\n"))


def governor_changed(fake: FakeBoard) -> None:
    fake.while_session(1, lambda: fake.all_cores("scaling_governor", "powersave\n"))


def slow_clock(fake: FakeBoard) -> None:
    def slow() -> None:
        fake.put("firmware/measure_clock", "frequency(48)=1200000000\n")
        fake.all_cores("scaling_cur_freq", "1200000\n")

    fake.while_session(0, slow)


def clock_set(fake: FakeBoard) -> None:
    fake.while_session(1, lambda: fake.put("clock_step_ns", "-7000000000\n"))


def swapping(fake: FakeBoard) -> None:
    fake.while_session(0, lambda: fake.put("proc/vmstat", SWAPPED))


def memory_kill(fake: FakeBoard) -> None:
    fake.while_session(0, lambda: fake.put("proc/vmstat", KILLED))


def nothing(fake: FakeBoard) -> None:
    pass


def stock_user(fake: FakeBoard) -> None:
    """Raspberry Pi OS as it comes, a user who is neither root nor in the group video, a clock that goes to and fro."""
    fake.vcgencmd(CLOSED)
    fake.all_cores("scaling_cur_freq", "600000\n")
    fake.while_session(0, lambda: fake.all_cores("scaling_cur_freq", "1800000\n"))


def hanging(fake: FakeBoard) -> None:
    fake.vcgencmd("#!/bin/sh\nexec sleep 60\n")


def warm(fake: FakeBoard) -> None:
    fake.celsius(66.0)


def heats_up_and_throttles(fake: FakeBoard) -> None:
    def heat() -> None:
        wait_for(lambda: list(fake.state.glob("jobs/*/work/soak/result.json")))
        for celsius in (60.0, 70.0, 80.0, 82.0):
            fake.celsius(celsius)
            if fake.wait(0.4):
                return
        fake.flags(0x60006)

    fake.celsius(48.0)
    fake.beside(heat)


def climb(fake: FakeBoard) -> None:
    def higher() -> None:
        for step in range(1000):
            fake.celsius(40 + step / 10)
            if fake.wait(0.1):
                return

    fake.beside(higher)


def never_flat(fake: FakeBoard) -> None:
    climb(fake)


def its_heater_dies(fake: FakeBoard) -> None:
    def kill() -> None:
        wait_for(lambda: list(fake.state.glob("jobs/*/work/soak/result.json")))
        (work,) = fake.state.glob("jobs/*/work/soak")
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if (process / "cwd").readlink() == work:
                    os.kill(int(process.name), signal.SIGSEGV)

    climb(fake)
    fake.beside(kill)


def no_temperature(fake: FakeBoard) -> None:
    fake.remove("sys/class/thermal/thermal_zone0/temp")
    fake.vcgencmd(CLOSED)


def cools_after_its_soak(fake: FakeBoard) -> None:
    fake.celsius(80.0)
    fake.while_session(1, lambda: fake.celsius(71.0))


Row = tuple[Callable[[FakeBoard], None], dict[str, Any], ProfileName, Outcome, str]
VALID, INVALID = Outcome.PASS, Outcome.INVALID
FORBID: dict[str, Any] = {}
ALLOW: dict[str, Any] = {"throttling": "allow"}
LOW_ALLOWED: dict[str, Any] = {"under_voltage": "allow"}
FIXED: dict[str, Any] = {"clock": "fixed", "expected_clock_mhz": 1800}
SOAK: dict[str, Any] = {"throttling": "soak", "soak_max_s": 6, "start_temperature_max_c": 50}
PERFORMANCE: dict[str, Any] = {"governor": "performance"}
COOL: dict[str, Any] = {"start_temperature_max_c": 50, "cool_down_max_s": 1}
CLOSED_EYES: dict[str, Any] = {"throttling": "allow", "under_voltage": "allow"}
# What the board does, what is declared, under which profile: the verdict, and what it says.
FAULTS: list[Row] = [
    (nothing, FORBID, "qualification", VALID, ""),
    (nothing, FIXED, "qualification", VALID, ""),
    (throughout, FORBID, "standard", INVALID, "session 1 (candidate): throttled: throttled ("),
    (throughout, ALLOW, "standard", VALID, ""),
    (
        before_and_over,
        FORBID,
        "standard",
        VALID,
        "not known: short throttling (throttled was set before, and hides it)",
    ),
    (before_and_over, FORBID, "qualification", INVALID, 'throttling = "forbid" is declared; restart the board'),
    (before_and_over, ALLOW, "qualification", VALID, ""),
    (
        in_the_first_session,
        FORBID,
        "standard",
        INVALID,
        "session 0 (candidate): throttled: frequency_capped, throttled",
    ),
    (in_the_first_session, ALLOW, "standard", VALID, ""),
    (
        a_short_event_in_a_session,
        FORBID,
        "standard",
        INVALID,
        "session 1 (candidate): throttled: soft_temperature_limit",
    ),
    (between_sessions, FORBID, "standard", INVALID, "between sessions 0 and 1: throttled: throttled"),
    (between_sessions, ALLOW, "standard", VALID, ""),
    (under_voltage_only, FORBID, "standard", INVALID, "between sessions 0 and 1: under-voltage"),
    (under_voltage_only, LOW_ALLOWED, "standard", VALID, ""),
    (under_voltage_only, ALLOW, "standard", INVALID, "between sessions 0 and 1: under-voltage"),
    (under_voltage_now, FORBID, "standard", INVALID, "session 0 (candidate): under-voltage in"),
    (under_voltage_now, LOW_ALLOWED, "standard", VALID, ""),
    (no_vcgencmd, FORBID, "standard", VALID, "not known: throttled (there is no vcgencmd)"),
    (no_vcgencmd, FORBID, "qualification", INVALID, "not known: throttled (there is no vcgencmd)"),
    (no_vcgencmd, ALLOW, "qualification", VALID, ""),
    (
        rubbish,
        FORBID,
        "standard",
        VALID,
        "not known: throttled (vcgencmd get_throttled printed 'throttled=banana [2J')",
    ),
    (rubbish, FORBID, "qualification", INVALID, "printed 'throttled=banana [2J'"),
    (closed_and_low, FORBID, "standard", INVALID, "session 1 (candidate): under-voltage in"),
    (closed_and_low, LOW_ALLOWED, "standard", VALID, "Can't open device file: /dev/vcio"),
    (lying_clock, FORBID, "standard", INVALID, "the kernel says 1800 MHz, the firmware measures 1000.27 MHz"),
    (lying_clock, FIXED | ALLOW, "standard", INVALID, "the clock fell to 1000.27 MHz, 1800 MHz is expected"),
    (lying_clock, ALLOW, "standard", VALID, ""),
    (kernel_cools, FORBID, "standard", INVALID, "the kernel slowed the processor down (cpufreq-cpu0, step 2 of 5)"),
    (kernel_cools, CLOSED_EYES, "qualification", VALID, ""),
    (fan_turns, LOW_ALLOWED, "qualification", VALID, ""),
    (fan_turns, FORBID, "qualification", INVALID, "under_voltage (there is no vcgencmd), and under_voltage"),
    (kernel_caps, FORBID, "standard", INVALID, "the clock was held to 1200 MHz of the 1800 MHz"),
    (kernel_caps, {"expected_clock_mhz": 1200}, "standard", VALID, ""),
    (kernel_caps, ALLOW, "standard", VALID, ""),
    (hardware_counts, FORBID, "standard", INVALID, "the processor throttled 14 times (core 0)"),
    (hardware_counts, ALLOW, "standard", VALID, ""),
    (
        governor_changed,
        FORBID,
        "standard",
        VALID,
        "not known: governor (somebody changed it from ondemand to powersave",
    ),
    (governor_changed, FORBID, "qualification", INVALID, 'session 1), and governor = "as-found" is declared'),
    (governor_changed, PERFORMANCE, "standard", INVALID, "powersave was in force on core 0, 1"),
    (slow_clock, FORBID, "standard", VALID, ""),
    (slow_clock, FIXED, "standard", INVALID, "the clock fell to 1200 MHz, 1800 MHz is expected"),
    (clock_set, ALLOW, "standard", INVALID, "session 1 (candidate): the clock was set by -7"),
    (swapping, ALLOW, "standard", INVALID, "2000 pages were swapped, 256 are let pass"),
    (memory_kill, ALLOW, "standard", INVALID, "the kernel killed 1 process(es) for want of memory"),
    (stock_user, FORBID, "standard", VALID, "throttled (vcgencmd get_throttled ended with 255: Can't open device file"),
    (hanging, FORBID, "standard", VALID, "not known: throttled (vcgencmd get_throttled gave no answer in 1 s)"),
    (nothing, PERFORMANCE, "qualification", VALID, ""),
    (
        nothing,
        {"governor": "turbo"},
        "standard",
        INVALID,
        "not among those that the board offers: conservative, ondemand",
    ),
    (warm, FORBID, "standard", VALID, ""),
    (warm, COOL, "standard", INVALID, "66.0 C, wanted at most 50 C"),
    (heats_up_and_throttles, SOAK, "qualification", VALID, ""),
    (never_flat, SOAK, "standard", INVALID, "C a minute over the last 2 s"),
    (its_heater_dies, SOAK, "standard", INVALID, " s: killed by SIGSEGV"),
    (no_temperature, SOAK, "standard", INVALID, "no temperature can be read, so nobody can tell when it is flat"),
    (cools_after_its_soak, SOAK, "standard", INVALID, "session 1 (candidate): it was at 71.0 C in the timed window"),
]


Key = tuple[Callable[[FakeBoard], None], str]
"""What the board does, and what of the declaration is asked of the board itself."""
ASKED_OF_THE_BOARD = {"governor", "soak_max_s", "start_temperature_max_c", "cool_down_max_s"}


def key_of(behaves: Callable[[FakeBoard], None], declared: dict[str, Any]) -> Key:
    return behaves, str({name: value for name, value in declared.items() if name in ASKED_OF_THE_BOARD})


@dataclass(frozen=True)
class Measured:
    bench: Bench
    request: MeasureRequest
    attempt: Attempt


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> dict[Key, Measured]:
    """One job for each thing that a board does, several at once: they sleep for most of their time.

    It serves every declaration that asks the same of the board, since judging is a function of its records. Flat is
    flat over two seconds: what takes minutes on a board is the same arithmetic.
    """
    first = Bench(tmp_path_factory.mktemp("first"))
    first.bench.prepare(first.request(Environment()), None, lambda progress: None)

    def measure(row: Row) -> Measured:
        bench = Bench(tmp_path_factory.mktemp(row[0].__name__), first)
        try:
            row[0](bench.fake)
            request = bench.request(Environment(**row[1]))
            return Measured(bench, request, bench.measure(request))
        finally:
            bench.fake.leave()

    rows = {key_of(row[0], row[1]): row for row in FAULTS}
    with ThreadPoolExecutor(10) as pool, pytest.MonkeyPatch.context() as patch:
        patch.setattr("edgeloop.board.job.SOAK_WINDOW_S", 2.0)
        return dict(zip(rows, pool.map(measure, rows.values()), strict=True))


@pytest.mark.parametrize(
    ("behaves", "declared", "profile", "outcome", "says"),
    FAULTS,
    ids=[f"{row[0].__name__}-{'-'.join(map(str, row[1].values())) or 'defaults'}-{row[2]}" for row in FAULTS],
)
def test_what_a_board_does_is_judged_by_what_was_declared(
    measured: dict[Key, Measured],
    behaves: Callable[[FakeBoard], None],
    declared: dict[str, Any],
    profile: ProfileName,
    outcome: Outcome,
    says: str,
) -> None:
    judged = judged_as(measured[key_of(behaves, declared)], declared, profile)
    assert judged.trust is not None
    told = [*judged.trust.reasons, *(f"not known: {name}" for name in judged.trust.unknown)]
    undecided = [f.reason for f in judged.verdict.findings if f.outcome is Outcome.INCONCLUSIVE]
    # Ten boards at once on whatever cores there are: samples that come in bursts may be too few. No board did that.
    crowded = outcome is Outcome.PASS and bool(undecided) and all("so the shortest has" in why for why in undecided)
    assert judged.verdict.outcome is (Outcome.INCONCLUSIVE if crowded else outcome), told
    assert says in "\n".join(told)


def judged_as(found: Measured, declared: dict[str, Any], profile: ProfileName = "standard") -> Judgement:
    return found.bench.verdict(replace(found.request, environment=Environment(**declared)), found.attempt, profile)


def test_what_was_declared_and_what_was_found_are_in_the_judgement(measured: dict[Key, Measured]) -> None:
    judged = judged_as(measured[key_of(stock_user, FORBID)], FORBID)
    assert judged.environment == Environment(cool_down_max_s=300)
    found = judged.conditions.entries()
    assert (found["governor"], found["clock_mhz"], found["under_voltage"]) == (["ondemand"], [600.0, 1800.0], "no")
    assert found["temperature_c"] == [48.312, 48.312]
    assert judged.trust is not None
    assert not any("under_voltage" in name for name in judged.trust.unknown)  # the kernel's own alarm needs no vcgencmd


def test_a_governor_is_read_back_around_each_session_and_restored(measured: dict[Key, Measured]) -> None:
    found = measured[key_of(nothing, PERFORMANCE)]
    for session in found.attempt.sessions:
        assert session.conditions.governor.is_set is True
        assert {*session.conditions.before.governor.values()} == {"performance"}
        assert {*session.conditions.after.governor.values()} == {"performance"}
    assert found.bench.fake.governors() == ["ondemand", "ondemand"]


def test_a_governor_that_somebody_set_meanwhile_is_theirs_and_stays(measured: dict[Key, Measured]) -> None:
    assert measured[key_of(governor_changed, PERFORMANCE)].bench.fake.governors() == ["powersave", "powersave"]


def test_the_soaked_state_is_recorded_with_its_throttling(measured: dict[Key, Measured]) -> None:
    found = measured[key_of(heats_up_and_throttles, SOAK)]
    soak = found.attempt.sessions[0].conditions.soak
    assert (soak.has_passed, soak.start_c, soak.end_c) == (True, 48.0, 82.0)
    assert abs(soak.slope_c_per_min or 0.0) <= (soak.slope_max_c_per_min or 0.0)
    assert list(soak.end.throttle_flags.now) == ["frequency_capped", "throttled"]
    assert judged_as(found, SOAK).conditions.entries()["throttled"] == ["frequency_capped", "throttled"]
    assert all((session.conditions.idle_before_s or 0.0) < 5 for session in found.attempt.sessions)


def test_a_record_says_that_its_conditions_were_not_the_boards_own(measured: dict[Key, Measured]) -> None:
    found = measured[key_of(nothing, FORBID)]
    judged = judged_as(found, FORBID)
    assert judged.trust is not None
    assert f"the board itself (its conditions were read under {found.bench.fake.root})" in judged.trust.unknown


def test_what_a_killed_supervisor_left_is_restored_by_whoever_comes_next(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    fake = bench.fake
    seen = []

    def kill() -> None:
        (lock,) = bench.state.glob("jobs/*/supervisor.lock")
        seen.append(fake.governors())
        os.kill(int(lock.read_text()), signal.SIGKILL)

    fake.while_session(0, kill)
    try:
        with pytest.raises(BoardError, match="the agent was killed"):
            bench.measure(bench.request(Environment(governor="performance"), time_s_min=20))
    finally:
        fake.leave()
    assert seen == [["performance", "performance"]]
    assert bench.bench.agent.call("lease", "show")["job"] is None
    assert fake.governors() == ["ondemand", "ondemand"]
