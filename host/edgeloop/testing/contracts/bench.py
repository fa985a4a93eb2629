"""The rules for every Bench. Subclass BenchContract, give it three fixtures, and run it with pytest.

class TestMyBench(BenchContract):
    @pytest.fixture(scope="class")
    @classmethod
    def bench(cls):
        ...
    @pytest.fixture(scope="class")
    @classmethod
    def request_in(cls):
        ...  # a function: folder -> MeasureRequest with a latency session, an evaluate session, and a latency session
    @pytest.fixture(scope="class")
    @classmethod
    def refusal_in(cls):
        ...  # the same of a model that the engine refuses
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from edgeloop.core.measurement import Attempt, MeasureRequest
from edgeloop.errors import ModelError
from edgeloop.ports import Bench, Progress

RequestIn = Callable[[Path], MeasureRequest]


@dataclass(frozen=True, slots=True)
class Measurement:
    """One call of `measure`: what was asked for, what came back, and the news on the way."""

    request: MeasureRequest
    attempt: Attempt
    news: tuple[Progress, ...]


def measure(bench: Bench, request: MeasureRequest) -> Measurement:
    news: list[Progress] = []
    attempt = bench.measure(request, news.append)
    return Measurement(request, attempt, tuple(news))


class BenchContract:
    """Rules of the Bench port. The board is asked for one measurement, which the rules share."""

    @pytest.fixture(scope="class")
    @classmethod
    def first(cls, bench: Bench, request_in: RequestIn, tmp_path_factory: pytest.TempPathFactory) -> Measurement:
        return measure(bench, request_in(tmp_path_factory.mktemp("bench") / "samples"))

    def test_there_is_one_session_for_each_step_in_the_order_of_the_schedule(self, first: Measurement) -> None:
        steps = [(step.index, step.label, step.kind) for step in first.request.schedule]
        assert [kind for _, _, kind in steps] == ["latency", "evaluate", "latency"], "request_in gives other steps"
        assert [(session.index, session.label, session.kind) for session in first.attempt.sessions] == steps
        assert [session.outcome for session in first.attempt.sessions] == ["ok"] * len(steps)

    def test_a_latency_session_has_its_times_raw_and_no_fewer_than_asked_for(self, first: Measurement) -> None:
        for session in first.attempt.sessions:
            if session.kind == "latency":
                assert session.latencies_ns.dtype == np.int64
                assert len(session.latencies_ns) >= first.request.plan.runs_min
                assert (session.latencies_ns > 0).all()

    def test_an_evaluation_gives_its_outputs_by_name_the_sample_first(self, first: Measurement) -> None:
        (subject,) = first.request.subjects
        outputs = first.attempt.outputs[subject.label]
        assert outputs
        assert len({len(array) for array in outputs.values()}) == 1
        if subject.artifact.outputs:
            assert list(outputs) == [spec.name for spec in subject.artifact.outputs]

    def test_an_attempt_names_its_board_and_ran_in_one_boot(self, bench: Bench, first: Measurement) -> None:
        assert first.attempt.target == bench.board.name
        assert first.attempt.board_model == bench.board.model.name
        assert first.attempt.emulated == bench.board.emulated
        assert len({session.boot_id for session in first.attempt.sessions}) == 1

    def test_news_never_says_that_more_is_done_than_there_is(self, first: Measurement) -> None:
        assert all(0 <= progress.done <= max(progress.total, 0) for progress in first.news)
        assert all(progress.text for progress in first.news)

    def test_a_job_that_is_complete_in_its_folder_is_not_measured_again(self, bench: Bench, first: Measurement) -> None:
        again = measure(bench, first.request).attempt
        for session, other in zip(first.attempt.sessions, again.sessions, strict=True):
            assert session.latencies_ns.tolist() == other.latencies_ns.tolist()
            assert session.conditions == other.conditions
        for label, outputs in first.attempt.outputs.items():
            for name, array in outputs.items():
                np.testing.assert_array_equal(array, again.outputs[label][name])

    def test_a_model_that_the_engine_refuses_is_a_fault_of_the_model(
        self, bench: Bench, refusal_in: RequestIn, tmp_path: Path
    ) -> None:
        with pytest.raises(ModelError):
            measure(bench, refusal_in(tmp_path / "samples"))

    def test_a_board_describes_itself_the_same_way_twice(self, bench: Bench) -> None:
        assert bench.facts() == bench.facts()

    def test_closing_twice_does_no_harm(self, bench: Bench) -> None:
        bench.close()
        bench.close()
