"""Which trainings make a candidate."""

from __future__ import annotations

import pytest

from edgeloop.core.events import NetworkTrained, Trial
from edgeloop.core.network import Candidate, NetworkSpec, Teacher
from edgeloop.loop.training_phases import TrainingPhase, phases
from edgeloop.testing.fakes.simulated_board import simulated_sizes

M1 = NetworkSpec(family="ds_cnn")
M2 = M1.in_size(2.0, 0)


def made(teacher: Teacher, lightening: str = "w8a8", network: NetworkSpec = M2) -> list[TrainingPhase]:
    return phases(Candidate(network=network, lightening=lightening, teacher=teacher), M1, [], fine_tunes=False)


def trial(number: int, lightening: str, key: str, engine: str = "litert") -> Trial:
    candidate = Candidate.model_validate({"network": M2, "lightening": lightening, "engine": engine})
    trained = NetworkTrained(trial=number, key=key, parent=None, seconds=1, epochs=1, validation={}, lightened=None)
    return Trial(
        number=number,
        role="candidate",
        candidate=candidate,
        sizes=simulated_sizes(M2),
        degree=0.5,
        evaluation=None,
        predicted_bytes=None,
        why="",
        training=trained,
    )


def test_a_widened_network_starts_from_m1_which_is_trained_once() -> None:
    widened = M2.model_copy(update={"widened_from": 1.0})
    for teacher, last in (("none", "M3 as w8a8"), ("m1", "M3 as w8a8, taught by M1")):
        found = made(teacher, network=widened)  # type: ignore[arg-type]
        assert [str(phase) for phase in found] == ["M1 trained on labels", "M1 widened to M2, trained on labels", last]
        assert (found[1].widens, found[1].parent, found[2].parent, found[2].widens) == ("m1", None, "m2", None)
    assert [phase.gives for phase in made("none", "fp32", widened)] == ["m1", "m2"]


def test_a_pruned_rung_goes_on_from_no_network_of_other_shapes() -> None:
    judged = [trial(1, "w8a8", "k1"), trial(2, "w4a8-p25", "k2")]
    candidate = Candidate(network=M2, lightening="w8a8-p25")
    assert phases(candidate, M1, judged, fine_tunes=True)[-1].goes_on_from == "k2"
    candidate = Candidate(network=M2, lightening="w8a8-p50")
    assert phases(candidate, M1, judged, fine_tunes=True)[-1].goes_on_from is None
    candidate = Candidate(network=M2, lightening="w4a8:50")
    assert phases(candidate, M1, judged, fine_tunes=True)[-1].goes_on_from == "k1"


@pytest.mark.parametrize(
    ("teacher", "what"),
    [
        ("none", ["M2 trained on labels", "M3 as w8a8"]),
        ("m2", ["M2 trained on labels", "M3 as w8a8, taught by M2"]),
        ("m1", ["M2 trained on labels", "M1 trained on labels", "M3 as w8a8, taught by M1"]),
        (
            "m1-distilled",
            [
                "M2 trained on labels",
                "M1 trained on labels",
                "M2 distilled into M1",
                "M3 as w8a8, taught by M1 distilled from M2",
            ],
        ),
    ],
)
def test_each_teacher_is_trained_before_it_teaches(teacher: Teacher, what: list[str]) -> None:
    found = made(teacher)
    assert [str(phase) for phase in found] == what
    assert found[-1].parent == "m2"


def test_distilling_into_m1_starts_from_m1_and_is_taught_by_m2() -> None:
    distilled = made("m1-distilled")[2]
    assert (distilled.network, distilled.parent, distilled.teacher) == (M1, "m1", "m2")


def test_a_float_candidate_is_one_training() -> None:
    assert [p.gives for p in made("m1-distilled", "fp32")] == ["m2"]


def test_where_m1_itself_is_lightened_it_is_its_own_teacher() -> None:
    found = made("m1-distilled", network=M1)
    assert [(p.gives, p.parent, p.teacher) for p in found] == [("m1", None, None), ("m3", "m1", "m1")]


def test_a_fine_tune_goes_on_from_the_rung_that_was_judged_last() -> None:
    judged = [trial(1, "w8a8", "k8"), trial(2, "w4a8", "k4")]
    candidate = Candidate(network=M2, lightening="w8a16")
    assert phases(candidate, M1, judged, fine_tunes=True)[-1].goes_on_from == "k4"
    assert phases(candidate, M1, judged, fine_tunes=False)[-1].goes_on_from is None


def test_another_engine_takes_the_very_training_that_was_made() -> None:
    judged = [trial(1, "w8a8", "k8"), trial(2, "w4a8", "k4")]
    first = phases(Candidate(network=M2, lightening="w8a8"), M1, [], fine_tunes=True)[-1]
    again = Candidate(network=M2, lightening="w8a8", engine="tflite-runtime")
    assert phases(again, M1, judged, fine_tunes=True)[-1] == first
