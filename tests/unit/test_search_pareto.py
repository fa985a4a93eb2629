"""The front: dominance, ties, and what a Pareto run comes to."""

from __future__ import annotations

import io
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from edgeloop.core.campaign import Campaign
from edgeloop.core.events import FrontAxis, Judgement, RunFinished
from edgeloop.core.network import Candidate
from edgeloop.core.verdict import Outcome
from edgeloop.reports import csv as csv_report
from edgeloop.reports import document, html, text
from edgeloop.reports.front import front_rows
from edgeloop.reports.run_view import RunView
from edgeloop.search.pareto import dominates
from edgeloop.testing.fakes.memory_ledger import MemoryLedger
from edgeloop.testing.fakes.simulated_adapters import SimulatedWorkshop, simulated_run, walk
from edgeloop.testing.fakes.simulated_board import Truth

AXES = (
    FrontAxis(name="top1", unit="", better="higher"),
    FrontAxis(name="latency p90", unit="ms", better="lower"),
    FrontAxis(name="deployed_size", unit="bytes", better="lower"),
)
places = st.tuples(*[st.integers(0, 3).map(float)] * 3)


@pytest.mark.parametrize(
    ("one", "other", "beats"),
    [
        ((0.9, 1.0, 10.0), (0.8, 2.0, 20.0), True),
        ((0.9, 1.0, 10.0), (0.9, 1.0, 20.0), True),
        ((0.9, 1.0, 10.0), (0.9, 1.0, 10.0), False),
        ((0.9, 1.0, 10.0), (0.8, 0.9, 20.0), False),
        ((0.8, 1.0, 10.0), (0.9, 1.0, 10.0), False),
    ],
)
def test_no_worse_everywhere_and_better_somewhere_dominates(one: Any, other: Any, beats: bool) -> None:
    assert dominates(one, other, AXES) is beats


@given(a=places, b=places, c=places)
def test_dominance_is_a_strict_order(a: Any, b: Any, c: Any) -> None:
    assert not dominates(a, a, AXES)
    assert not (dominates(a, b, AXES) and dominates(b, a, AXES))
    if dominates(a, b, AXES) and dominates(b, c, AXES):
        assert dominates(a, c, AXES)


TABLE = {  # (latency in ms, accuracy, bytes)
    "width 1.41 fp32": (5.0, 0.95, 40_000),
    "width 1.41 w8a8": (2.0, 0.93, 15_000),
    "width 1.41 w4a8": (3.0, 0.90, 9_000),
    "width 2 fp32": (8.0, 0.97, 70_000),
    "width 2 w8a8": (4.0, 0.95, 25_000),
    "width 2 w4a8": (6.0, 0.92, 16_000),
}
FRONT = ["width 2 w8a8", "width 1.41 w8a8", "width 1.41 w4a8"]
"""Of those under 7 ms: from the most accurate."""


def truth(candidate: Candidate) -> Truth:
    latency, accuracy, size = TABLE.get(str(candidate), (5.0, 0.9, 20_000))
    return Truth(latency, accuracy, size, 10_000_000)


def pareto_run(
    faults: dict[str, Any] | None = None,
    *,
    trials: int = 20,
    max_ms: float = 7.0,
    workshop: SimulatedWorkshop | None = None,
) -> tuple[RunFinished, MemoryLedger]:
    campaign = Campaign.model_validate(
        {
            "schema": 1,
            "name": "front",
            "targets": ["simulated"],
            "limits": {
                "limit": [
                    {"metric": "latency", "statistic": "p90", "max_ms": max_ms},
                    {"metric": "top1", "min_fraction": 0.85, "about": "this_set"},
                ]
            },
            "reference": {"family": "ds_cnn"},
            "search": {"widths": (1.41, 2.0), "lightenings": ("fp32", "w8a8", "w4a8"), "pareto": True},
            "budget": {"trials": trials},
        }
    )
    shop = workshop or SimulatedWorkshop(truth, faults or {}, undecided_ms=max_ms)
    controller, ledger = simulated_run(campaign, shop)
    return walk(controller), ledger


def names(finished: RunFinished, ledger: MemoryLedger) -> list[str]:
    trials = {trial.number: str(trial.candidate) for trial in RunView.of(ledger.entries()).trials}
    return [trials[member.trial] for member in finished.front.members] if finished.front else []


def test_a_run_goes_on_after_a_pass_and_returns_what_nothing_beats() -> None:
    finished, ledger = pareto_run()
    assert finished.exit_code == 0
    assert names(finished, ledger) == FRONT
    assert finished.front is not None
    assert [axis.name for axis in finished.front.axes] == ["top1", "latency p90", "deployed_size"]
    assert finished.front.members[0].values == (0.95, pytest.approx(4.0, rel=0.01), 25_000)


def test_networks_of_the_front_share_the_error_of_their_looks_at_test_data() -> None:
    _, ledger = pareto_run()
    looks = [e.event for e in ledger.entries() if isinstance(e.event, Judgement) and e.event.split == "test"]
    assert len(looks) == 3
    for judged in looks:
        latency = judged.verdict.findings[0]
        assert f"{1 - 0.05 / 3:.4g} bounds" in latency.reason


def test_a_budget_that_ends_leaves_the_front_of_what_was_tried() -> None:
    finished, ledger = pareto_run(trials=2)
    assert finished.exit_code == 0
    assert "the budget of 2 trials is used up" in finished.sentence
    assert len(names(finished, ledger)) <= 2


def test_what_was_not_measured_is_not_on_the_front() -> None:
    finished, ledger = pareto_run({FRONT[0]: Outcome.INVALID, FRONT[1]: Outcome.ERROR})
    assert set(names(finished, ledger)).isdisjoint(FRONT[:2])
    assert FRONT[2] in names(finished, ledger)


def test_where_nothing_passes_the_nearest_misses_are_named_and_infeasible_is_said() -> None:
    finished, _ = pareto_run(max_ms=1.0)
    assert finished.exit_code == 1
    assert finished.front is None
    assert "the limits are infeasible in this search: its 6 candidates were all measured, and each failed" in (
        finished.sentence
    )
    assert finished.sentence.count("latency p90") == 3, "the three nearest misses"


def test_infeasible_is_not_said_where_something_was_undecided_or_lost() -> None:
    finished, _ = pareto_run({FRONT[0]: Outcome.INVALID, FRONT[1]: Outcome.INCONCLUSIVE}, max_ms=1.0)
    assert finished.exit_code == 1
    assert "of 6 candidates 4 failed, 1 undecided and 1 not measured" in finished.sentence
    assert "so it is not known to be infeasible" in finished.sentence


class OnTestData(SimulatedWorkshop):
    """A board on which some candidates are slow once they are measured for the third time: on test data."""

    slow: frozenset[str] = frozenset()

    def measure(self, request: Any, watch: Any) -> Any:
        attempt = super().measure(request, watch)
        name = self.measurements[-1][0]
        if name in self.slow and sum(m[0] == name for m in self.measurements) > 2:
            for session in attempt.sessions:
                session.latencies_ns[:] *= 10
        return attempt


@pytest.mark.parametrize(("slow", "exit_code"), [(FRONT[:1], 0), (FRONT, 1)])
def test_a_network_that_fails_its_look_is_named_not_put_out_and_nobody_takes_its_place(
    slow: list[str], exit_code: int
) -> None:
    workshop = OnTestData(truth)
    workshop.slow = frozenset(slow)
    finished, ledger = pareto_run(workshop=workshop)
    assert finished.exit_code == exit_code
    assert names(finished, ledger) == FRONT
    assert finished.front is not None
    failed = [m.trial for m in finished.front.members if m.outcome is Outcome.FAIL]
    assert len(failed) == len(slow)
    assert all(f"trial {number} is FAIL" in finished.sentence for number in failed)
    assert finished.best not in failed or exit_code == 1


def test_every_report_tells_the_front() -> None:
    finished, ledger = pareto_run()
    entries = ledger.entries()
    for terminal in (True, False):
        out = io.StringIO()
        Console(file=out, force_terminal=terminal, width=200, color_system=None).print(text.run_report(entries))
        assert all(name in out.getvalue() for name in FRONT)
        assert ("latency p90 (lower is better)" if terminal else "front: trial") in out.getvalue()
    page = html.text(entries)
    assert page.count("<figcaption>the front: top1 against") == 2
    assert "test data, looked at once" in page
    column = [line.split(",") for line in csv_report.text(entries).splitlines()]
    at = column[0].index("front")
    assert [row[at] for row in column[1:]].count("PASS") == 3
    told = document.run(entries)["finished"]["front"]
    assert [member["trial"] for member in told["members"]] == [m.trial for m in finished.front.members]  # type: ignore[union-attr]
    assert front_rows(RunView.of(entries[:-1])) == []
