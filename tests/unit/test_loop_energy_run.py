"""A whole run with a limit on energy, through the real controller and the real judge."""

from __future__ import annotations

import csv
import io
from typing import Any

import pytest
from rich.console import Console

from edgeloop.core.campaign import Campaign
from edgeloop.core.events import Judgement, RunFinished
from edgeloop.core.measurement import Attempt, MeasureRequest
from edgeloop.core.network import Candidate
from edgeloop.core.verdict import Family, Outcome
from edgeloop.errors import LabError, Owner
from edgeloop.loop.measure_and_judge import TRIES
from edgeloop.ports import Watch
from edgeloop.reports import csv as csv_report
from edgeloop.reports import document, html, text
from edgeloop.reports.run_view import RunView
from edgeloop.testing.fakes.memory_ledger import MemoryLedger
from edgeloop.testing.fakes.simulated_adapters import SimulatedWorkshop, simulated_run, walk
from edgeloop.testing.fakes.simulated_board import Truth

TABLE = {  # (accuracy, energy of a period in mJ)
    "width 1.41 w8a8": (0.93, 52.0),
    "width 1.41 w4a8": (0.92, 44.0),
    "width 2 w8a8": (0.96, 70.0),
    "width 2 w4a8": (0.95, 60.0),
}


class Workshop(SimulatedWorkshop):
    """Keeps the requests too."""

    requests: list[MeasureRequest]

    def measure(self, request: MeasureRequest, watch: Watch) -> Attempt:
        self.requests = [*getattr(self, "requests", []), request]
        return super().measure(request, watch)


def energetic_run(*, blind: tuple[str, ...] = (), pareto: bool = False) -> tuple[RunFinished, MemoryLedger, Workshop]:
    """`blind`: candidates whose sessions the meter does not see."""

    def truth(candidate: Candidate) -> Truth:
        name = str(candidate) if str(candidate) in TABLE else "M1"
        accuracy, energy = TABLE.get(name, (0.90, 80.0))
        return Truth(2.0, accuracy, 20_000, 10_000_000, None if name in blind else energy)

    campaign = Campaign.model_validate(
        {
            "schema": 1,
            "name": "energetic",
            "targets": ["simulated"],
            "limits": {
                "limit": [
                    {"metric": "energy_per_period", "max_mj": 50},
                    {"metric": "top1", "min_fraction": 0.85, "about": "this_set"},
                ]
            },
            "reference": {"family": "ds_cnn"},
            "search": {"widths": (1.41, 2.0), "lightenings": ("w8a8", "w4a8"), "pareto": pareto},
            "budget": {"trials": 8},
            "plan": {"profile": "quick", "sessions": 3, "period_ms": 100.0},
        }
    )
    shop = Workshop(truth)
    controller, ledger = simulated_run(campaign, shop)
    return walk(controller), ledger, shop


def test_a_network_that_takes_too_much_energy_is_lightened_until_one_passes() -> None:
    finished, ledger, _ = energetic_run()
    story = RunView.of(ledger.entries())
    assert finished.exit_code == 0
    assert str(story.best.candidate) == "width 1.41 w4a8"  # type: ignore[union-attr]
    failed = [t for t in story.candidates if t.outcome is Outcome.FAIL]
    assert failed
    assert all(trial.move is not None and "energy_per_period" in trial.move.sentence for trial in failed)
    (energy, _) = story.limits
    assert energy.finding.family is Family.ENERGY
    assert energy.finding.observed == pytest.approx(44, rel=0.01)
    assert "the meter's 0.10% taken in" in energy.finding.reason


def test_every_measurement_interleaves_energy_sessions_under_the_campaigns_period() -> None:
    _, _, shop = energetic_run()
    for request in shop.requests:
        kinds = [step.kind for step in request.schedule]
        assert kinds.count("energy") == kinds.count("latency") == request.plan.sessions
        assert request.plan.period_ms == 100.0
        assert request.deadline_s >= 3600
    profiles = {request.plan.profile for request in shop.requests}
    assert profiles == {"quick", "standard"}, "confirmed under the same period"


def test_where_m1_gives_no_energy_twice_the_run_stops_as_the_labs_error_before_anything_else_is_trained() -> None:
    with pytest.raises(LabError, match=r"3 of 3 energy sessions gave none: .* no power meter \(session \d, \d, \d\)"):
        energetic_run(blind=("M1",))


def test_a_candidate_whose_energy_nobody_saw_is_taken_again_and_then_moves_nothing() -> None:
    finished, ledger, _ = energetic_run(blind=("width 1.41 w4a8",))
    judged = [
        entry.event for entry in ledger.entries() if isinstance(entry.event, Judgement) and entry.event.verdict.owner
    ]
    assert [(j.verdict.outcome, j.verdict.owner) for j in judged] == [(Outcome.ERROR, Owner.LAB)] * TRIES
    trial = next(t for t in RunView.of(ledger.entries()).candidates if t.number == judged[0].trial)
    assert trial.move is not None
    assert "says nothing of the network" in trial.move.sentence
    assert finished.exit_code == 1, "what was measured failed, and nothing else passed"


def test_energy_is_an_axis_of_the_front_where_a_limit_is_about_it() -> None:
    finished, _, _ = energetic_run(pareto=True)
    assert finished.front is not None
    energy = finished.front.axes[-1]
    assert (energy.name, energy.unit, energy.better) == ("energy_per_period", "mJ", "lower")


def test_reports_tell_the_energy_of_every_trial_with_its_interval() -> None:
    _, ledger, _ = energetic_run()
    entries = ledger.entries()
    rows = list(csv.DictReader(io.StringIO(csv_report.text(entries))))
    passed = next(row for row in rows if row["lightening"] == "w4a8" and row["passed"] == "True")
    assert passed["energy_per"] == "period"
    assert float(passed["energy_per_period_low_mj"]) < 44 < float(passed["energy_per_period_high_mj"])
    assert float(passed["energy_above_idle_mj"]) == pytest.approx(44 / 3, rel=0.02)
    assert float(passed["power_active_mw"]) == pytest.approx(440, rel=0.02)
    assert "mJ/period" in html.text(entries)
    assert "power meter: simulated, 0.1 %" in html.text(entries)
    told: dict[str, Any] = document.run(entries)["trials"][-1]["measurements"][0]["energy"]
    assert told["per_period_mj"] == pytest.approx(44, rel=0.02)
    for terminal, words in ((True, "mJ/period"), (False, "mJ a period")):
        out = io.StringIO()
        Console(file=out, force_terminal=terminal, width=200, color_system=None).print(text.run_report(entries))
        assert words in out.getvalue()
