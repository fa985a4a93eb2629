"""One row for each metric: a row that is added here is limited, judged, told in every report and taken on the command
line, and no other file knows of it."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from factories import make_artifact, make_session
from rich.console import Console
from typer.testing import CliRunner

from edgeloop.analysis.comparison import compare
from edgeloop.analysis.judge_job import judge_attempts
from edgeloop.analysis.plans import undecidable
from edgeloop.analysis.subject_data import SubjectData, subject_data
from edgeloop.cli import app
from edgeloop.core.board import Board, BoardModel
from edgeloop.core.events import ArtifactBuilt, Entry, Event, Judgement, TrialAsked
from edgeloop.core.limits import BOUNDS, LimitSet, parse_limits
from edgeloop.core.measurement import Attempt, MeasureRequest, Session, Subject
from edgeloop.core.metric import Estimator, Metric, reading
from edgeloop.core.metrics import METRICS, metric_named, metric_spelled
from edgeloop.core.network import Candidate, NetworkSpec
from edgeloop.core.plan import Environment, Plan
from edgeloop.core.verdict import Family, Outcome
from edgeloop.reports import comparison as comparison_report
from edgeloop.reports import csv as csv_report
from edgeloop.reports import document, html, junit, text
from edgeloop.testing.fakes.simulated_board import simulated_sizes

TINY = Path(__file__).resolve().parents[1] / "data" / "tiny_float.tflite"
ARTIFACT = make_artifact(deployed_bytes=1000)
SUBJECT = Subject("candidate", ARTIFACT)
PLAN = Plan.of("standard", sessions=3)


@pytest.fixture
def page_faults(monkeypatch: pytest.MonkeyPatch) -> Metric:
    """The one row."""
    row = reading("page_faults", "page faults", key="page_faults", family=Family.MEMORY, unit="faults", short="faults")
    monkeypatch.setitem(METRICS, row.name, row)
    return row


def session(index: int, faults: int | None, label: str = "candidate") -> Session:
    return make_session(
        index=index,
        label=label,
        latencies_ns=np.full(300, 2_000_000 + 1000 * index, np.int64),
        peak_rss_bytes=50 << 20,
        runtime_rss_bytes=30 << 20,
        readings={} if faults is None else {"page_faults": faults},
    )


def seen(*faults: int | None, label: str = "candidate") -> SubjectData:
    return subject_data(
        Subject(label, ARTIFACT), "litert 2.3.0", [session(at, n, label) for at, n in enumerate(faults)]
    )


def judged(limits: LimitSet, *faults: int | None, split: Any = "validation") -> Judgement:
    request = MeasureRequest(
        key="k", subjects=(SUBJECT,), schedule=(), plan=PLAN, environment=Environment(), folder=Path("/nowhere")
    )
    subject = seen(*faults)
    attempt = Attempt(
        job_id="j",
        target="pi4",
        board_model="pi4",
        emulated=False,
        engine_versions={},
        sessions=subject.sessions,
        outputs={},
        facts={},
    )
    board = Board(name="pi4", model=BoardModel(schema=1, name="pi4"), kind="local")
    return judge_attempts(
        request, board, [attempt], limits, subject, None, trial=1, split=split, look=1, looks=1, seconds=1.0
    )


def a_run(judgement: Judgement) -> list[Entry]:
    """A run of one candidate, as its ledger is read back."""
    network = NetworkSpec(family="ds_cnn")
    events: list[Event] = [
        TrialAsked(
            trial=1,
            role="candidate",
            candidate=Candidate(network=network, lightening="w8a8"),
            sizes=simulated_sizes(network),
            degree=0.75,
            evaluation=0.5,
            predicted_bytes=1000,
            why="why",
        ),
        ArtifactBuilt(trial=1, key="k", artifact=ARTIFACT, seconds=1.0),
        judgement,
    ]
    entries = [
        Entry(seq=n, utc="2026-01-01T00:00:00Z", trials_spent=1, wall_s_spent=1.0, event=event)
        for n, event in enumerate(events)
    ]
    return [Entry.model_validate_json(entry.model_dump_json()) for entry in entries]


def printed(report: Any, *, terminal: bool = False) -> str:
    out = io.StringIO()
    Console(file=out, force_terminal=terminal, width=300, color_system=None, no_color=True).print(report)
    return out.getvalue()


LIMITS = ["page_faults=100", "latency.p90_ms=12"]


def test_a_new_metric_is_limited_and_judged(page_faults: Metric) -> None:
    limits = parse_limits(LIMITS)
    assert str(limits.limit[0]) == "page_faults under 100 faults"
    assert (limits.limit[0].max_value, limits.limit[0].family) == (100.0, Family.MEMORY)
    assert undecidable(limits, PLAN, None, has_reference=False, has_labels=False) == []
    for worst, outcome in ((99, Outcome.PASS), (100, Outcome.FAIL), (120, Outcome.FAIL)):
        finding, _ = judged(limits, 80, worst, 90).verdict.findings
        assert finding.outcome is outcome, "the worst session counts, and equal is no pass"
        assert finding.reason == f"{worst} faults in the worst session, limit 100 faults"
        assert (finding.metric, finding.bound, finding.unit) == ("page_faults", "max_value", "faults")
    finding, _ = judged(limits, None, None, None).verdict.findings
    assert (finding.outcome, finding.reason) == (Outcome.ERROR, "page_faults was not read in any session")


def test_a_new_metric_is_told_of_one_measurement(page_faults: Metric) -> None:
    judgement = judged(parse_limits(LIMITS), 80, 120, 90)
    assert "\npage faults: 120 faults\n" in printed(text.measure_report(judgement, ARTIFACT))
    told = document.measurement(judgement, ARTIFACT)
    assert told["page_faults"] == 120
    assert told["findings"][0]["metric"] == "page_faults"


def test_a_new_metric_is_told_of_a_run_in_text_html_csv_json_and_junit(page_faults: Metric) -> None:
    run = a_run(judged(parse_limits(LIMITS), 80, 120, 90))
    plain = printed(text.run_report(run))
    assert "FAIL L1 page_faults under 100 faults on pi4: measured 120 faults" in plain
    assert "; page faults 120 faults" in plain
    table = printed(text.run_report(run), terminal=True)
    assert "page faults, faults" in table
    page = html.text(run)
    assert '<th class="n">page faults, faults</th>' in page
    assert '<td class="n">120</td>' in page
    (row,) = csv.DictReader(io.StringIO(csv_report.text(run)))
    assert row["page_faults"] == "120"
    assert document.run(run)["trials"][0]["measurements"][0]["page_faults"] == 120
    assert 'name="L1 page_faults under 100 faults"' in junit.text(run)


def test_a_new_metric_stands_where_two_models_are_compared(page_faults: Metric) -> None:
    difference = compare(seen(80, 120, 90, label="a"), seen(80, 70, 60, label="b"), 0.95)
    assert difference.readings["page_faults"] == -40
    judgement = judged(parse_limits(LIMITS), 80, 120, 90)
    beside = judgement.model_copy(update={"reference": judgement.summary})
    report = comparison_report.report(beside, difference, ARTIFACT, ARTIFACT, limits_given=False)
    assert "page faults: A 120 faults, B 120 faults; -40 faults" in printed(report)
    told = document.comparison(beside, difference, ARTIFACT, ARTIFACT, limits_given=False)
    assert told["difference"]["page_faults"] == -40


@pytest.mark.parametrize("word", ["page_faults=100", "faults=100"])
def test_a_new_metric_is_taken_on_the_command_line(page_faults: Metric, word: str) -> None:
    command = ["measure", str(TINY), "--target", "local", "--limit", word, "--dry-run", "--json"]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["undecidable"] == []


def test_what_no_session_brought_is_in_no_table(page_faults: Metric) -> None:
    run = a_run(judged(parse_limits(["latency.p90_ms=12"]), None, None, None))
    assert "page faults" not in printed(text.run_report(run), terminal=True)
    assert "page faults" not in html.text(run)


def test_every_row_is_whole() -> None:
    for name, row in METRICS.items():
        assert row.name == name
        assert set(row.bounds) <= set(BOUNDS)
        assert bool(row.bounds) <= (row.family is not None), "what a limit is about moves the search"
        assert (row.estimator is Estimator.READING) == bool(row.key)
        assert metric_spelled(row.short or name).bounds == metric_named(name).bounds
    columns = [column.name for row in METRICS.values() for column in row.columns]
    assert len(columns) == len(set(columns))
    for family in set(Family) - {Family.ACCURACY, Family.SIZE}:
        assert sum(row.cost is not None for row in METRICS.values() if row.family is family) == 1


def test_a_name_without_a_row_is_a_score_of_the_task() -> None:
    row = metric_named("f1")
    assert (row.family, row.estimator) == (Family.ACCURACY, Estimator.SCORE)
    # A figure that no limit may be about takes no name away from a task's own metric.
    assert metric_named("overhead").estimator is Estimator.SCORE
