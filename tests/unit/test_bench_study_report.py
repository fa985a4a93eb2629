"""The study's page: pairing, correction, budgets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("matplotlib")
pytest.importorskip("torch")
import study_report
import study_run
from hypothesis import given
from hypothesis import strategies as st

from edgeloop.errors import DataError


def test_holm_multiplies_the_smallest_by_all_and_never_falls() -> None:
    assert study_report.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert study_report.holm([0.5, 0.9]) == [1.0, 1.0]
    assert study_report.holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_is_at_least_the_plain_value_at_most_bonferronis_and_keeps_the_order(p: list[float]) -> None:
    adjusted = study_report.holm(p)
    for plain, corrected in zip(p, adjusted, strict=True):
        assert plain <= corrected <= min(1.0, len(p) * plain) + 1e-12
    order = np.argsort(p, kind="stable")
    assert list(np.array(adjusted)[order]) == sorted(adjusted)


def line(arm: str, seed: int, top1: float, bytes_: int = 1000, validation: float = 0.9) -> dict[str, Any]:
    return {
        "arm": arm,
        "seed": seed,
        "test_top1": top1,
        "validation_top1": validation,
        "bytes": bytes_,
        "lightening": "w8a8",
        "agreement": 1.0,
    }


def cells_of(*lines: dict[str, Any]) -> dict[tuple[str, float, str], dict[int, dict[str, Any]]]:
    cells: dict[tuple[str, float, str], dict[int, dict[str, Any]]] = {}
    for one in lines:
        cells.setdefault(("mnist5k", 1.0, one["arm"]), {})[one["seed"]] = one
    return cells


def test_differences_are_paired_by_seed_and_need_five() -> None:
    plain = [line("m1-ptq", seed, 0.90 + seed / 100) for seed in range(1, 7)]
    better = [line("m1-qat", seed, 0.91 + seed / 100) for seed in range(1, 6)]
    (found,) = study_report.differences(cells_of(*plain, *better), "mnist5k")
    assert found.points == pytest.approx([1.0] * 5)
    assert (found.mean, found.half) == pytest.approx((1.0, 0.0))
    assert study_report.differences(cells_of(*plain, *better[:4]), "mnist5k") == []


def test_an_arm_outside_its_budget_is_in_no_comparison() -> None:
    baseline = [line("m1-qat", seed, 0.90 + seed / 1000) for seed in range(1, 6)]
    for bytes_, counted in ((1019, 1), (1021, 0)):
        arm = [line("m3-none", seed, 0.91, bytes_) for seed in range(1, 6)]
        assert len(study_report.differences(cells_of(*baseline, *arm), "mnist5k")) == counted


def test_the_best_arm_is_chosen_by_validation_and_no_difference_has_p_1() -> None:
    same = study_report.Difference("mnist5k", 1.0, "a", "b", "", (0.0,) * 5)
    assert (same.p, same.half) == (1.0, 0.0)
    low, high = line("m3-none", 1, 0.99, validation=0.80), line("m3-m2", 1, 0.70, validation=0.81)
    cells = study_report.with_best(cells_of(low, high))
    assert cells["mnist5k", 1.0, study_report.BEST][1]["arm"] == "m3-m2"


@pytest.mark.parametrize(
    ("points", "first", "second"),
    [
        ((1.2, 1.3, 1.4, 1.3, 1.2), "reached", "reached"),
        ((0.9, 0.9, 0.9, 1.0, 0.9), "open", "missed"),  # the first has two more widths to come
        ((2.2, 0.8, 2.1, 0.1, 0.9), "reached", "missed"),  # p 0.039: the second try asks for half of 0.05
        ((3.0, 3.0, 3.0, -3.0, -1.0), "open", "missed"),
    ],
)
def test_the_second_try_at_the_goal_asks_for_more(points: tuple[float, ...], first: str, second: str) -> None:
    tries = [study_report.Difference(data, 1.0, "m3-none", "m1-qat-m2", "", points) for data in study_report.TRIES]
    told = study_report.goals(tries, {})
    assert f"**{first}**" in told[0]
    assert f"**{second}**" in told[1]


def test_a_torn_result_is_named_by_its_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(study_run, "RESULTS", tmp_path / "results.jsonl")
    assert study_run.done() == set()
    whole = '{"data": "fashion", "m1_width": 1.0, "seed": 2, "arm": "m1-qat"}\n'
    study_run.RESULTS.write_text(whole)
    assert study_run.done() == {("fashion", 1.0, 2, "m1-qat")}
    study_run.RESULTS.write_text(whole + whole[:20])
    with pytest.raises(DataError, match=r"results\.jsonl:2: not a whole result"):
        study_run.done()
