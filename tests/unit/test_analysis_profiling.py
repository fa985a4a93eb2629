"""From a profile's raw times to shares: medians over rounds, and operators that a runtime takes for one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from factories import make_artifact, make_session

from edgeloop.analysis.judge_job import judge_attempts
from edgeloop.analysis.profiling import summarise_profile
from edgeloop.analysis.subject_data import subject_data, summarise_subject
from edgeloop.core.board import Board, BoardModel
from edgeloop.core.conditions import SessionConditions, read_conditions
from edgeloop.core.limits import LimitSet
from edgeloop.core.measurement import Attempt, MeasureRequest, ScheduleStep, Session, Subject
from edgeloop.core.plan import Environment, Plan
from edgeloop.core.profile import MemoryPass, Operator, OperatorOutput, Parts, ProfileSamples

OUTPUT = (OperatorOutput(dtype="float32", shape=(1, 2)),)
MEMORY = MemoryPass(
    phases=(),
    polled=0,
    rss_min_bytes=None,
    rss_max_bytes=None,
    model_mapped_bytes=None,
    model_resident_bytes=None,
    activation_bytes=None,
    activation_note="no",
)


def operator(index: int, name: str, folded_into: tuple[int, ...] | None = None) -> Operator:
    return Operator(index=index, operator=name, outputs=OUTPUT, folded_into=folded_into)


def samples(
    parts: dict[tuple[int, ...], list[float]], operators: tuple[Operator, ...], whole: list[float]
) -> ProfileSamples:
    """Each part's median in each round; every round has three times around it."""

    def around(median: float) -> Any:
        return np.array([median - 1, median, median + 100], np.int64)

    rounds = tuple((around(whole[i]), *(around(medians[i]) for medians in parts.values())) for i in range(len(whole)))
    cut = Parts(path="/p.zip", sha256="0" * 64, operators=operators, parts=tuple(parts))
    return ProfileSamples(cut, rounds, outputs_equal=True, memory=MEMORY)


def test_a_time_is_the_median_over_rounds_and_shares_are_of_the_sum() -> None:
    found = summarise_profile(
        samples(
            {(0,): [100, 900, 110], (1,): [300, 330, 310]},
            (operator(0, "CONV_2D"), operator(1, "MEAN")),
            [350, 9000, 400],
        )
    )
    assert [time.p50_ns for time in found.operators] == [110, 310]
    assert [time.runs for time in found.operators] == [9, 9]
    assert found.sum_ns == 420
    assert found.whole_ns == 400
    assert [time.share for time in found.operators] == pytest.approx([110 / 420, 310 / 420])
    assert "All operators come to 0.42 us, the whole to 0.4 us, 1.05 times" in found.how


@pytest.mark.parametrize(("together", "pad", "conv"), [(205, 0, 205), (295, 100, 200)])
def test_padding_that_costs_nothing_before_its_convolution_has_no_time_of_its_own(
    together: float, pad: float, conv: float
) -> None:
    operators = (operator(0, "PAD"), operator(1, "CONV_2D"))
    found = summarise_profile(samples({(0,): [100], (1,): [200], (0, 1): [together]}, operators, [250]))
    assert [time.p50_ns for time in found.operators] == [pad, conv]
    assert [time.timed_with for time in found.operators] == [(1,) if pad == 0 else (), ()]


def test_what_works_on_constants_alone_is_timed_with_its_users() -> None:
    operators = (operator(0, "DEQUANTIZE", (1,)), operator(1, "CONV_2D"))
    found = summarise_profile(samples({(1,): [200]}, operators, [250]))
    assert [(time.p50_ns, time.timed_with) for time in found.operators] == [(0, (1,)), (200, ())]
    assert found.operators[1].share == 1


def session(index: int, kind: Any, outcome: Any = "ok", **more: Any) -> Session:
    times = np.array([10, 11, 12] if kind == "latency" else [], np.int64)
    plain = {"index": index, "label": "a", "kind": kind, "outcome": outcome, "detail": "it broke"}
    figures = {"load_ns": 5, "first_ns": 6, "peak_rss_bytes": 7, "runtime_rss_bytes": 8}
    return make_session(**plain, **figures, latencies_ns=times, warmups_ns=times, boot_id="boot", **more)


def test_a_profile_that_broke_is_said_and_breaks_nothing_else() -> None:
    artifact = make_artifact(sha256="0" * 64, deployed_bytes=1)
    sessions = [session(0, "latency"), session(1, "latency"), session(2, "profile", "crashed")]
    observed = subject_data(Subject("a", artifact), "litert 2", sessions)
    assert observed.crashes == ()
    summary = summarise_subject(observed, 0.95)
    assert summary.profile is None
    assert summary.profile_problem == "the profile session crashed: it broke"
    assert summary.latency is not None
    assert summary.latency.sessions == 2


def test_what_happened_in_a_profile_session_invalidates_nothing(tmp_path: Path) -> None:
    swapped = read_conditions({"before": {"swap_in_pages": 0}, "after": {"swap_in_pages": 9999}})
    artifact = make_artifact(sha256="0" * 64, deployed_bytes=1)
    subject = Subject("a", artifact)
    plan = Plan.of("quick", sessions=2)
    schedule = (ScheduleStep(0, "a", "latency"), ScheduleStep(1, "a", "latency"), ScheduleStep(2, "a", "profile"))
    request = MeasureRequest("k", (subject,), schedule, plan, Environment(), tmp_path)
    board = Board(name="here", model=BoardModel.model_validate({"schema": 1, "name": "local"}), kind="local")

    def valid(where: int) -> bool:
        sessions = tuple(
            replace(session(step.index, step.kind), conditions=swapped if step.index == where else SessionConditions())
            for step in schedule
        )
        attempt = Attempt(
            "j", "here", "local", emulated=False, engine_versions={}, sessions=sessions, outputs={}, facts={}
        )
        observed = subject_data(subject, "litert 2", sessions)
        judged = judge_attempts(
            request,
            board,
            [attempt],
            LimitSet(),
            observed,
            None,
            trial=0,
            split="validation",
            look=1,
            looks=1,
            seconds=1.0,
        )
        assert judged.trust is not None
        return judged.trust.valid

    assert valid(2)
    assert not valid(1)
