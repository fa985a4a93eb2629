"""A latency session: floors, samples cycled, warm-up, and what the loop adds to what it measures."""

from __future__ import annotations

import array
import random
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeloop_agent import intervals, timing, wire

DATA = Path(__file__).parent.parent / "data"


def room(runs: int = 8) -> array.array[int]:
    return array.array("q", [0]) * runs


class FakeTime:
    """perf_counter_ns and sleep that move together."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0
        monkeypatch.setattr(time, "perf_counter_ns", lambda: self.now)
        monkeypatch.setattr(time, "sleep", self.sleep)

    def sleep(self, seconds: float) -> None:
        self.now += round(seconds * 1e9)


class FakeEngine:
    """Each call takes its own time, so that an interval tells what was in it."""

    version = "fake 1"

    def __init__(self, clock: FakeTime, invoke_ns: list[int]) -> None:
        self._clock, self._invoke_ns = clock, invoke_ns
        self.given: list[Any] = []

    def setters(self) -> list[Any]:
        return [(self._put, 0)]

    def getters(self) -> list[Any]:
        return [(self._get, 1)]

    def invoker(self) -> Any:
        return self._invoke

    def _put(self, _index: int, value: Any) -> None:
        self.given.append(value)
        self._clock.now += 10_000_000

    def _get(self, _index: int) -> int:
        self._clock.now += 100_000_000
        return 0

    def _invoke(self) -> None:
        self._clock.now += self._invoke_ns.pop(0) if len(self._invoke_ns) > 1 else self._invoke_ns[0]


@pytest.mark.parametrize(("boundary", "expected"), [("invoke", 1_000_000), ("copy_in_out", 111_000_000)])
def test_the_interval_holds_what_its_name_says(monkeypatch: pytest.MonkeyPatch, boundary: str, expected: int) -> None:
    engine = FakeEngine(FakeTime(monkeypatch), [1_000_000])
    start, end = intervals.of_model(engine, [["a"], ["b"]], boundary).once(1)  # type: ignore[arg-type]
    assert end - start == expected
    assert engine.given == ["b"]


def test_both_floors_must_be_met_and_samples_are_cycled(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = FakeTime(monkeypatch)
    engine = FakeEngine(clock, [5_000_000])
    once = intervals.of_model(engine, [["a"], ["b"], ["c"]], "invoke").once  # type: ignore[arg-type]
    loop = timing.Loop(once, 3, None, room())
    by_time = loop.run(lambda count, now: now >= 200_000_000 and count >= 2)
    assert list(loop.store[by_time]) == [5_000_000] * 14  # 15 ms each
    assert engine.given[:4] == ["a", "b", "c", "a"]
    by_runs = loop.run(lambda count, now: now >= 0 and count >= 10_000)
    assert list(loop.store[by_runs]) == [5_000_000] * 10_000  # it grew
    assert by_runs.start == 14


def test_runs_start_one_period_after_the_other_and_the_sleep_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = FakeTime(monkeypatch)
    starts: list[int] = []

    def once(_index: int) -> tuple[int, int]:
        starts.append(clock.now)
        clock.now += 230_000_000 if len(starts) == 3 else 30_000_000
        return starts[-1], clock.now

    loop = timing.Loop(once, 1, 100.0, room())
    stored = loop.store[loop.run(lambda count, now: now > 0 and count == 6)]
    assert [start // 1_000_000 for start in starts] == [0, 100, 200, 430, 530, 630]  # one late run moves the rest
    assert [taken // 1_000_000 for taken in stored] == [30, 30, 230, 30, 30, 30]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([100] * 30, True),
        ([1000 - 10 * i for i in range(60)], False),
        ([1000] * 20 + [100] * 60, True),
        ([100] * 23, False),
        ([100] * 50 + [100, 130] * 20, True),
    ],
)
def test_warm_up_is_over_when_the_last_third_has_no_trend(values: list[int], expected: bool) -> None:
    store = array.array("q", [*values, 0, 0])
    assert timing.has_settled(store, len(values)) is expected


def test_noise_without_a_trend_settles() -> None:
    source = random.Random(3)
    settled = sum(
        timing.has_settled(array.array("q", [int(source.gauss(1000, 200)) for _ in range(300)]), 300)
        for _ in range(100)
    )
    assert settled >= 95


@pytest.mark.parametrize(
    ("invoke_ns", "runs_min", "expected_s"),
    [
        ([1_000_000], 1, (0.5, 0.6)),
        ([round(50_000_000 * 0.97**i) + 1 for i in range(1000)], 1, (4.9, 5.2)),
        ([1_000_000], 1000, (10.5, 11.5)),
    ],
)
def test_warm_up_has_a_floor_a_cap_and_a_least_number_of_runs(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    invoke_ns: list[int],
    runs_min: int,
    expected_s: tuple[float, float],
) -> None:
    clock = FakeTime(monkeypatch)
    monkeypatch.setattr(timing.conditions, "calibration_ns", lambda: 7)
    plan = wire.SessionPlan(runs_min, 0.5, 5.0, 5, 0.1, "invoke", None, 0.0, 60.0)
    timed = intervals.of_model(FakeEngine(clock, invoke_ns), [["a"]], "invoke")  # type: ignore[arg-type]
    said = timing.time_latency(timed, plan, room(), tmp_path)
    opened, closed = said["timed_window_monotonic_ns"]
    assert expected_s[0] <= opened / 1e9 <= expected_s[1] + 0.1
    assert said["warmups"] >= runs_min
    assert said["runs"] >= 5
    assert closed - opened >= 0.1e9
    assert said["calibration_ns"] == [7, 7]
    stored = np.load(tmp_path / "latency.npy", allow_pickle=False)
    assert stored.dtype == np.int64
    assert len(stored) == said["runs"]


class Nothing:
    """An engine that does nothing: what is left is the loop's own."""

    version = "nothing 1"

    def setters(self) -> list[Any]:
        return [(lambda index, value: None, 0)]

    def getters(self) -> list[Any]:
        return [(lambda index: None, 1)]

    def invoker(self) -> Any:
        return lambda: None


@pytest.mark.parametrize("boundary", ["invoke", "copy_in_out"])
def test_the_loop_adds_less_than_a_microsecond(boundary: str) -> None:
    once = intervals.of_model(Nothing(), [["a"]], boundary).once  # type: ignore[arg-type]
    loop = timing.Loop(once, 1, None, room(20_000))
    medians = [statistics.median(loop.store[loop.run(lambda count, now: count >= 5000 and now > 0)]) for _ in range(3)]
    assert min(medians) < 1000


def test_the_median_of_a_real_model_is_that_of_a_bare_loop() -> None:
    from edgeloop_agent.engines import load_engine
    from edgeloop_agent.engines.base import ModelFile
    from edgeloop_agent.samples import random_sample

    engine = load_engine("litert")
    engine.load(ModelFile(str(DATA / "tiny_float.tflite"), 1))
    once = intervals.of_model(engine.in_process_model(), [random_sample(engine.inputs(), 0)], "invoke").once
    loop = timing.Loop(once, 1, None, room(20_000))
    invoke, now = engine.in_process_model().invoker(), time.perf_counter_ns

    def bare(count: int) -> float:
        taken = [0] * count
        for index in range(count):
            start = now()
            invoke()
            taken[index] = now() - start
        return statistics.median(taken)

    bare(500)
    differences = []
    for _ in range(9):
        ours = statistics.median(loop.store[loop.run(lambda count, moment: count >= 500 and moment > 0)])
        plain = bare(500)
        differences.append(ours - plain - max(1000, 0.01 * plain))
    assert statistics.median(differences) < 0


def test_room_for_latencies_follows_the_plan_and_is_bounded() -> None:
    def size(seconds: float) -> int:
        return len(timing.store_for(wire.SessionPlan(1, 0.0, 5.0, 1, seconds, "invoke", None, 0.0, 60.0)))

    assert size(2.0) == 350_000
    assert size(3600.0) == 2_097_152
