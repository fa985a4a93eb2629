"""What tuning measures next, what it makes of times, and what its database keeps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgeloop.builders.tvm.jobs import TimedSchedules
from edgeloop.builders.tvm.schedule import TileChoice
from edgeloop.builders.tvm.tuning import medians_ns, plan_candidates
from edgeloop.builders.tvm.tuning_database import TimingRow, TuningDatabase
from edgeloop.errors import HarnessError

CHOICES = [TileChoice(lanes=4, channels=4, positions=n, padding="copied") for n in range(1, 7)]


def row(*median_ns: float | None, workload: str = "a") -> TimingRow:
    chosen = tuple(CHOICES[: len(median_ns)])
    return TimingRow(workload=workload, function="f", choices=chosen, median_ns=median_ns, library="0" * 64)


def test_trials_are_shared_out_evenly_and_what_one_function_leaves_goes_to_the_others() -> None:
    space = {"few": CHOICES[:1], "more": CHOICES, "most": CHOICES}
    asked = plan_candidates(space, {}, 7, 100)
    assert [workload for workload, _ in asked].count("few") == 1
    assert [choice for workload, choice in asked if workload == "more"] == CHOICES[:3]
    assert [choice for workload, choice in asked if workload == "most"] == CHOICES[:3]


def test_every_function_is_tried_at_least_with_the_rules_choice() -> None:
    assert plan_candidates({"a": CHOICES, "b": CHOICES}, {}, 1, 100) == [("a", CHOICES[0]), ("b", CHOICES[0])]


def test_what_was_measured_is_not_measured_again() -> None:
    known = {"a": TimedSchedules(best=CHOICES[2], choices=tuple(CHOICES[:3]))}
    assert plan_candidates({"a": CHOICES}, known, 3, 100) == []


def test_the_best_known_goes_beside_what_is_new() -> None:
    known = {"a": TimedSchedules(best=CHOICES[2], choices=tuple(CHOICES[:3]))}
    assert plan_candidates({"a": CHOICES}, known, 5, 100) == [("a", CHOICES[2]), ("a", CHOICES[3]), ("a", CHOICES[4])]


def test_a_library_takes_first_choices_of_all_functions_before_second_ones() -> None:
    asked = plan_candidates({"a": CHOICES, "b": CHOICES}, {}, 100, 3)
    assert sorted(asked, key=str) == sorted([("a", CHOICES[0]), ("b", CHOICES[0]), ("a", CHOICES[1])], key=str)


@pytest.mark.parametrize(
    ("times", "place"),
    [
        ((100.0, 90.0, 80.0), 2),
        ((100.0, 98.0, 99.0), 0),
        ((100.0, None, 80.0), 2),
        ((None, 300.0, None), 1),
        ((None, None), 0),
    ],
    ids=["faster", "noise", "one crashed", "the first crashed", "all crashed"],
)
def test_another_choice_is_taken_where_it_is_clearly_faster(times: tuple[float | None, ...], place: int) -> None:
    assert row(*times).best == CHOICES[place]


def test_a_function_that_was_lost_in_a_round_has_no_time() -> None:
    times = np.array([[[5, 7, 9], [7, 7, -1]], [[5, 7, 9], [-1, -1, -1]]])
    assert medians_ns(times) == [7.0, None]


def test_the_database_goes_on_from_the_best_of_each_session(tmp_path: Path) -> None:
    database = TuningDatabase(tmp_path / "deep" / "board.jsonl")
    assert database.read() == {}
    database.add([row(100.0, 50.0), row(9.0, workload="b")])
    later = TimingRow(
        workload="a", function="g", choices=(CHOICES[1], CHOICES[5]), median_ns=(70.0, 60.0), library="1" * 64
    )
    database.add([later])
    assert database.read() == {
        "a": TimedSchedules(best=CHOICES[5], choices=(CHOICES[0], CHOICES[1], CHOICES[5])),
        "b": TimedSchedules(best=CHOICES[0], choices=(CHOICES[0],)),
    }


def test_a_row_that_was_half_written_is_dropped_and_a_damaged_one_is_named(tmp_path: Path) -> None:
    path = tmp_path / "board.jsonl"
    database = TuningDatabase(path)
    database.add([row(100.0, 50.0)])
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:40])
    assert list(database.read()) == ["a"]
    assert path.read_bytes() == whole
    path.write_bytes(b"{}\n" + whole)
    with pytest.raises(HarnessError, match="line 1 is no row of a tuning database"):
        database.read()
