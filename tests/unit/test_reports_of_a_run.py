"""Reports of a run, made from ledger entries: text, HTML, CSV, JUnit."""

import csv
import io
import json
import re
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Literal
from xml.etree import ElementTree as ET

import pytest
from rich.console import Console

from edgeloop.core.campaign import Search
from edgeloop.core.conditions import ConditionsDigest
from edgeloop.core.events import (
    ArtifactBuilt,
    Entry,
    Event,
    Judgement,
    NetworkTrained,
    RunFinished,
    RunStarted,
    SearchMoved,
    Trial,
    TrialAsked,
)
from edgeloop.core.lightening import Lightening
from edgeloop.core.limits import parse_limits
from edgeloop.core.measurement import EnergySummary, Interval, Trust
from edgeloop.core.network import Candidate, NetworkSpec
from edgeloop.core.plan import Environment, Plan
from edgeloop.core.verdict import Outcome, Verdict
from edgeloop.errors import Owner
from edgeloop.reports import csv as csv_report
from edgeloop.reports import document as document_report
from edgeloop.reports import html as html_report
from edgeloop.reports import junit as junit_report
from edgeloop.reports import text as text_report
from edgeloop.reports.chart import Line, Mark, scatter
from edgeloop.reports.run_view import RunView
from edgeloop.search.size_model import degree, predicted_bytes
from edgeloop.search.space import SearchSpace
from edgeloop.search.strategies import PatentStrategy
from edgeloop.testing.fakes.simulated_board import SimulatedBoard, Truth, simulated_sizes

M1 = NetworkSpec(family="ds_cnn")
RUNG_SPEED = {"fp32": 1.0, "fp16": 1.02, "w8a16": 1.3, "w8a8": 0.5, "w4a8:50": 0.8, "w4a8": 0.9}
RUNG_LOSS = {"fp32": 0.0, "fp16": 0.0, "w8a16": 0.002, "w8a8": 0.006, "w4a8:50": 0.01, "w4a8": 0.02}
LIMITS = ("latency.p90_ms=3", "top1=0.95", "size_bytes=19000")


def truth(candidate: Candidate) -> Truth:
    sizes = simulated_sizes(candidate.network)
    return Truth(
        latency_ms=sizes.macs / 1e5 * RUNG_SPEED[candidate.lightening] / candidate.threads**0.7,
        accuracy=1 - 0.12 * (sizes.parameters / 1000) ** -0.7 - RUNG_LOSS[candidate.lightening],
        deployed_bytes=round(1.1 * predicted_bytes(sizes, Lightening.parse(candidate.lightening))),
        peak_rss_bytes=30_000_000 + sizes.parameters * 8,
    )


def events_of(trial: Trial) -> list[Event]:
    accuracy = truth(trial.candidate).accuracy
    told: list[Event] = [
        TrialAsked(
            trial=trial.number,
            role=trial.role,
            candidate=trial.candidate,
            sizes=trial.sizes,
            degree=degree(trial.sizes, Lightening.parse(trial.candidate.lightening)),
            evaluation=trial.evaluation,
            predicted_bytes=trial.predicted_bytes,
            why=trial.why,
        ),
        NetworkTrained(
            trial=trial.number,
            key="k",
            parent=None,
            seconds=1,
            epochs=3,
            validation={"top1": accuracy + 0.004},
            lightened=None if trial.candidate.lightening == "fp32" else {"top1": accuracy + 0.001},
        ),
    ]
    if trial.build is not None:
        told.append(trial.build.model_copy(update={"converted": {"top1": accuracy}}))
    told += trial.judgements
    if trial.error is not None:
        told.append(trial.error)
    return told


def on_test_data(judged: Judgement, **changes: object) -> Judgement:
    return judged.model_copy(update={"split": "test", "job_key": "t", **changes})


def a_run(
    limits: Sequence[str] = LIMITS, faults: dict[int, Outcome] | None = None, *, emulated: bool = False, trials: int = 9
) -> list[Entry]:
    """A run against the simulated board; `faults` by the number of the trial."""
    told: list[Event] = [
        RunStarted(run_id="r", campaign_name="demo", campaign_key="c", versions={"edgeloop": "0.1.0"}, targets=("pi4",))
    ]
    the_limits = parse_limits(limits)
    board = SimulatedBoard(the_limits, truth)
    strategy = PatentStrategy(
        SearchSpace(
            search=Search(threads=(1, 2)),
            m1=M1,
            m1_sizes=simulated_sizes(M1),
            m1_lightening="fp32",
            m1_bytes=14_000,
            larger="factory",
            teacher="none",
            limits=the_limits,
            sizes_of=simulated_sizes,
        )
    )
    reference = board.measure(0, Candidate(network=M1, lightening="fp32"), "the reference network M1", strategy)
    told += events_of(reference.model_copy(update={"role": "reference"}))
    finished: RunFinished | None = None
    number = 0
    while finished is None:
        asked = strategy.ask()
        if asked is None or number == trials:
            finished = RunFinished(exit_code=1, best=number, sentence="none passed; nothing is left to ask")
            break
        number += 1
        fault = (faults or {}).get(number)
        board.faults = {asked[0].key: fault} if fault else {}
        trial = board.measure(number, *asked, strategy)
        direction, sentence = strategy.tell(trial)
        told += events_of(trial)
        if trial.outcome is Outcome.PASS:
            told.append(on_test_data(trial.judgements[0]))
            finished = RunFinished(exit_code=0, best=number, sentence=f"trial {number}, {asked[0]}, passed every limit")
        told.append(SearchMoved(trial=number, direction=direction, sentence=sentence))
    told.append(finished)
    return entries([_as_measured(event, emulated=emulated) for event in told])


def _as_measured(event: Event, *, emulated: bool) -> Event:
    if not isinstance(event, Judgement):
        return event
    return event.model_copy(
        update={
            "conditions": ConditionsDigest(clock_mhz=(1500.0, 1800.0), governor=("ondemand",), under_voltage="no"),
            "environment": Environment(throttling="soak", soak_max_s=900, foreign_load_max_pct=5),
            "emulated": emulated,
            "trust": Trust(valid=True, unknown=("temperature",)),
        }
    )


def entries(told: Sequence[Event]) -> list[Entry]:
    return [
        Entry(seq=n, utc=f"2026-11-24T10:00:{n % 60:02d}Z", trials_spent=n, wall_s_spent=n * 7.0, event=event)
        for n, event in enumerate(told)
    ]


def printed(report: object, *, terminal: bool, width: int = 200) -> str:
    out = io.StringIO()
    Console(file=out, force_terminal=terminal, width=width, color_system=None, no_color=True).print(report)
    return out.getvalue()


PASSED = a_run()
FAILED = a_run(["latency.p90_ms=1", "top1=0.99"], trials=4)


@pytest.mark.parametrize("terminal", [True, False])
def test_the_verdict_and_the_limits_come_before_the_trials_and_the_moves(terminal: bool) -> None:
    told = printed(text_report.run_report(PASSED), terminal=terminal)
    places = [told.index(words) for words in ("PASSED", "latency p90 under 3 ms", "width 1 fp32", "start: ")]
    assert places == sorted(places)


def test_a_terminal_gets_tables_and_a_pipe_gets_plain_lines() -> None:
    table = printed(text_report.run_report(PASSED), terminal=True)
    assert re.search(r"^1 +width [\d.]+ w8a8 +[\d,]+ +0\.75 ", table, re.MULTILINE)
    plain = printed(text_report.run_report(PASSED), terminal=False, width=400)
    assert not set(plain) & set("│─┃━╭╰\x1b")
    assert re.search(
        r"^PASS L1 latency p90 under 3 ms on simulated: measured .* ms, bound 3 ms, gap \+", plain, re.MULTILINE
    )
    assert re.search(r"^M1 \(width 1 fp32\) on simulated: reference; .* parameters, .* MACs, ", plain, re.MULTILINE)
    assert re.search(r"^trial 1: [a-z, ]+: .*latency p90 .* is over 3 ms", plain, re.MULTILINE)


def test_a_failed_run_shows_the_gap_and_how_near_any_trial_came() -> None:
    told = printed(text_report.run_report(FAILED), terminal=False, width=400)
    assert told.startswith("NOT PASSED")
    assert re.search(r"^FAIL L1 .*gap -.*\(-\d.*%\), closest of all .* ms \(trial \d\)", told, re.MULTILINE)


def test_an_inconclusive_limit_says_how_many_more_sessions_would_decide() -> None:
    run = a_run(["latency.p90_ms=3"], {1: Outcome.INCONCLUSIVE}, trials=1)
    run = [entry.model_copy(update={"event": _with_more(entry.event)}) for entry in run]
    for told in (
        printed(text_report.run_report(run), terminal=True),
        printed(text_report.run_report(run), terminal=False, width=400),
        html_report.text(run),
        junit_report.text(run),
    ):
        assert "needs about 7 more sessions" in " ".join(told.split())


def _with_more(event: Event) -> Event:
    if not isinstance(event, Judgement):
        return event
    findings = tuple(f.model_copy(update={"more_sessions": 7}) for f in event.verdict.findings)
    return event.model_copy(update={"verdict": event.verdict.model_copy(update={"findings": findings})})


DECLARED = "throttling soak (flat within 900 s); under-voltage forbid; load of others 5 % at most"


def test_what_was_declared_stands_beside_what_was_found() -> None:
    page = " ".join(html_report.text(PASSED).split())
    assert f"governor as-found; clock free; {DECLARED}<br>kept" in page
    assert "clock_mhz: 1500 to 1800<br>governor: ondemand<br>under_voltage: no<br>" in page
    document = document_report.run(PASSED)
    measured = next(trial["measurements"][0] for trial in document["trials"] if trial["measurements"])
    assert measured["environment"]["throttling"] == "soak"
    judged = next(entry.event for entry in PASSED if isinstance(entry.event, Judgement))
    built = next(entry.event for entry in PASSED if isinstance(entry.event, ArtifactBuilt))
    told = printed(text_report.measure_report(judged, built.artifact), terminal=False, width=400)
    assert f"declared: governor as-found; clock free; {DECLARED}" in told
    assert "found: clock_mhz 1500 to 1800; governor ondemand; under_voltage no" in told


def test_an_emulated_board_is_marked_everywhere() -> None:
    run = a_run(emulated=True)
    assert "EMULATED" in printed(text_report.run_report(run), terminal=True)
    assert "EMULATED" in printed(text_report.run_report(run), terminal=False)
    assert "times mean nothing" in html_report.text(run)
    assert "(emulated)" in junit_report.text(run)
    assert {row["emulated"] for row in csv.DictReader(io.StringIO(csv_report.text(run)))} == {"True"}
    assert "EMULATED" not in printed(text_report.run_report(PASSED), terminal=False)


def test_a_run_that_was_killed_is_reported_as_not_finished() -> None:
    for stop in (1, 2, 3, 4, 5, len(PASSED) // 2, len(PASSED) - 2, len(PASSED) - 1):
        told = printed(text_report.run_report(PASSED[:stop]), terminal=False)
        assert told.startswith("NOT FINISHED")
        assert "NOT FINISHED" in html_report.text(PASSED[:stop])
        suite = ET.fromstring(junit_report.text(PASSED[:stop]))
        assert suite.find(".//error") is not None or suite.find(".//failure") is not None


@pytest.mark.parametrize("fault", [Outcome.ERROR, Outcome.INVALID])
def test_what_was_not_measured_is_told_with_its_reason_and_is_no_dot_that_passes(fault: Outcome) -> None:
    run = a_run(faults={1: fault})
    reason = "the simulated board is away" if fault is Outcome.ERROR else "throttled at 85 C"
    assert reason in printed(text_report.run_report(run), terminal=False, width=400)
    assert reason in html_report.text(run)
    (first,) = (r for r in csv.DictReader(io.StringIO(csv_report.text(run))) if r["trial"] == "1")
    assert (first["outcome"], first["passed"]) == (fault.value, "False")


class Page(HTMLParser):
    """Collects what a page refers to, and whether its elements close."""

    VOID = frozenset({"meta", "br", "link", "img", "input", "hr"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.references: list[str] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in self.VOID:
            self.open.append(tag)
        self.references += [value or "" for name, value in attrs if name in {"src", "href", "xlink:href", "data"}]

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def page_of(run: Sequence[Entry]) -> tuple[str, Page]:
    source, page = html_report.text(run), Page()
    page.feed(source)
    assert page.open == []
    return source, page


@pytest.mark.parametrize("run", [PASSED, FAILED, PASSED[:1]], ids=["passed", "failed", "only started"])
def test_the_page_stands_alone(run: list[Entry]) -> None:
    source, page = page_of(run)
    assert page.references == []
    assert not {"script", "link", "img", "iframe"} & set(page.tags)
    assert "url(" not in source
    assert "@import" not in source
    assert len(source.encode()) < 3_000_000
    assert "prefers-color-scheme: dark" in source
    assert "@media print" in source


def test_the_page_draws_every_measured_trial_twice_with_a_tooltip_and_the_limits_as_lines() -> None:
    source, _ = page_of(PASSED)
    measured = {entry.event.trial for entry in PASSED if isinstance(entry.event, Judgement)}
    charts = re.findall(r'<svg class="chart".*?</svg>', source, re.DOTALL)
    assert len(charts) == 2
    for chart in charts:
        assert chart.count('<g class="mark') == len(measured)
        assert chart.count("<title>") == len(measured) + 2  # and both limits
        assert '<g class="mark reference"><title>M1: width 1 fp32' in chart
        assert '<g class="mark pass"' in chart
        assert '<g class="mark fail"' in chart
    assert "L1: 3 ms" in charts[0]
    assert "L3: 19,000 bytes" in charts[1]


def test_the_page_shows_the_chain_the_moves_the_conditions_the_versions_and_the_notice() -> None:
    source, _ = page_of(PASSED)
    for words in ("fake-quantized", "converted, on host", "on board, test data", "lighten", "1500 to 1800"):
        assert words in source
    for words in ("edgeloop 0.1.0", "temperature", "JP 2025-075101 A", "reconstruction"):
        assert words in source


def test_names_from_outside_are_escaped() -> None:
    run = [
        entry.model_copy(update={"event": entry.event.model_copy(update={"campaign_name": "<script>x</script>&"})})
        if isinstance(entry.event, RunStarted)
        else entry
        for entry in a_run(faults={1: Outcome.INVALID})
    ]
    source, page = page_of(run)
    assert "script" not in page.tags
    assert "&lt;script&gt;" in source
    assert ET.fromstring(junit_report.text(run)).find("testsuite") is not None


def test_writing_replaces_the_page_whole_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text("old")
    html_report.write(PASSED, path)
    assert path.read_text().startswith("<!doctype html>")
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]


def test_csv_has_one_row_a_trial_with_units_in_the_names() -> None:
    rows = list(csv.DictReader(io.StringIO(csv_report.text(PASSED))))
    asked = [entry.event for entry in PASSED if isinstance(entry.event, TrialAsked)]
    assert [int(row["trial"]) for row in rows] == [event.trial for event in asked]
    assert tuple(rows[0]) == csv_report.columns()
    last = rows[-1]
    assert last["outcome"] == "PASS"
    assert last["passed"] == "True"
    assert float(last["latency_p90_low_ns"]) < float(last["latency_p90_ns"]) < float(last["latency_p90_high_ns"])
    assert rows[1]["direction"] in {"lower_degree", "raise_degree", "smaller", "larger", "other_engine"}


def test_csv_cells_can_not_begin_a_formula() -> None:
    run = [
        entry.model_copy(update={"event": entry.event.model_copy(update={"why": "=1+1"})})
        if isinstance(entry.event, TrialAsked)
        else entry
        for entry in PASSED
    ]
    assert {row["why"] for row in csv.DictReader(io.StringIO(csv_report.text(run)))} == {"'=1+1"}


def cases(run: Sequence[Entry]) -> dict[str, str]:
    """JUnit cases by name: `passed`, or the element that says why not."""
    suite = ET.fromstring(junit_report.text(run)).find("testsuite")
    assert suite is not None
    found = {case.attrib["name"]: (case[0].tag if len(case) else "passed") for case in suite.iter("testcase")}
    kinds = list(found.values())
    assert (suite.attrib["tests"], suite.attrib["failures"], suite.attrib["errors"]) == (
        str(len(kinds)),
        str(kinds.count("failure")),
        str(kinds.count("error")),
    )
    return found


def with_requirement(event: Event) -> Event:
    """The same, with limits that stand for requirements."""
    if not isinstance(event, Judgement):
        return event
    findings = tuple(
        f.model_copy(update={"requirement": f"REQ-{n}"}) if n < 3 else f
        for n, f in enumerate(event.verdict.findings, start=1)
    )
    return event.model_copy(update={"verdict": event.verdict.model_copy(update={"findings": findings})})


def test_every_report_names_the_requirement_that_a_limit_stands_for() -> None:
    run = [entry.model_copy(update={"event": with_requirement(entry.event)}) for entry in PASSED]
    assert "PASS L1 [REQ-1] latency p90 under 3 ms on" in printed(
        text_report.run_report(run), terminal=False, width=400
    )
    assert "L2 [REQ-2] top1 over 0.95" in printed(text_report.run_report(run), terminal=True)
    assert "L1 [REQ-1]: latency p90 under 3 ms" in html_report.text(run)
    assert "L3: deployed_size" in html_report.text(run)
    rows = list(csv.DictReader(io.StringIO(csv_report.text(run))))
    assert rows[-1]["requirements"] == "REQ-1 PASS; REQ-2 PASS"
    assert rows[1]["requirements"] == "REQ-1 FAIL; REQ-2 PASS"
    assert "requirements" not in csv_report.text(PASSED).splitlines()[0]
    findings = document_report.run(run)["trials"][-1]["measurements"][0]["findings"]
    assert [finding["requirement"] for finding in findings] == ["REQ-1", "REQ-2", None]
    suite = ET.fromstring(junit_report.text(run))
    properties = [(p.attrib["name"], p.attrib["value"]) for p in suite.iter("property")]
    assert properties == [("requirement", "REQ-1"), ("requirement", "REQ-2")]
    assert set(cases(PASSED).values()) == {"passed"}


def test_findings_of_ledgers_from_before_they_had_fields_are_told_alike() -> None:
    old = []
    for entry in PASSED:
        line = json.loads(entry.model_dump_json())
        for finding in line["event"].get("verdict", {}).get("findings", ()):
            for name in ("metric", "statistic", "bound", "requirement"):
                del finding[name]
        old.append(Entry.model_validate(line))
    assert html_report.text(old) == html_report.text(PASSED)
    last = next(entry.event for entry in reversed(old) if isinstance(entry.event, Judgement))
    assert [(f.metric, f.statistic, f.label) for f in last.verdict.findings] == [
        ("latency", "p90", "latency p90"),
        ("top1", None, "top1"),
        ("deployed_size", None, "deployed_size"),
    ]


@pytest.mark.parametrize("outcome", [Outcome.PASS, Outcome.FAIL])
def test_a_trials_row_is_of_one_judgement_and_the_look_at_test_data_stands_beside_it(outcome: Outcome) -> None:
    told = [e.event for e in PASSED if not (isinstance(e.event, Judgement) and e.event.split == "test")]
    last = next(event for event in reversed(told) if isinstance(event, Judgement))
    assert last.summary is not None
    worse = tuple(metric.model_copy(update={"value": 0.5}) for metric in last.summary.metrics)
    look = on_test_data(
        last,
        plan=Plan.of("qualification"),
        summary=last.summary.model_copy(update={"metrics": worse}),
        verdict=last.verdict.model_copy(update={"outcome": outcome}),
    )
    run = entries([*told[:-2], look, *told[-2:]])
    row = RunView.of(run).rows[-1]
    assert (row.outcome, row.verdict) == (Outcome.PASS, f"PASS standard; test data {outcome.value}")
    assert row.accuracy is not None
    assert row.accuracy.value > 0.95, "figures are those of the judgement that the row names"
    for report in (
        printed(text_report.run_report(run), terminal=True),
        printed(text_report.run_report(run), terminal=False, width=400),
        html_report.text(run),
    ):
        assert f"standard; test data {outcome.value}" in report
    cells = list(csv.DictReader(io.StringIO(csv_report.text(run))))[-1]
    assert (cells["plan"], cells["outcome"], cells["test_outcome"]) == ("standard", "PASS", outcome.value)
    assert float(cells["metric_value"]) > 0.95


def test_junit_has_a_case_for_each_limit() -> None:
    assert cases(PASSED) == {
        "L1 latency p90 under 3 ms": "passed",
        "L2 top1 over 0.95": "passed",
        "L3 deployed_size under 19000 bytes": "passed",
    }
    assert set(cases(FAILED).values()) == {"failure"}


@pytest.mark.parametrize("outcome", [Outcome.INCONCLUSIVE, Outcome.INVALID, Outcome.ERROR])
def test_junit_never_passes_what_was_not_decided(outcome: Outcome) -> None:
    judged = next(e.event for e in reversed(PASSED) if isinstance(e.event, Judgement))
    undecided = tuple(
        f.model_copy(update={"outcome": outcome if outcome is Outcome.INCONCLUSIVE else f.outcome})
        for f in judged.verdict.findings
    )
    verdict = Verdict(outcome=outcome, findings=undecided, reasons=("why",), owner=Owner.BOARD)
    told = [e.event for e in PASSED if not (isinstance(e.event, Judgement) and e.event.split == "test")]
    last = told.pop()
    told += [on_test_data(judged, verdict=verdict), last]
    assert set(cases(entries(told)).values()) == {"error"}


def test_junit_passes_nothing_under_a_quick_plan() -> None:
    told = [
        e.event.model_copy(update={"plan": Plan.of("quick")}) if isinstance(e.event, Judgement) else e.event
        for e in PASSED
        if not (isinstance(e.event, Judgement) and e.event.split == "test")
    ]
    assert set(cases(entries(told)).values()) == {"error"}


def test_junit_holds_no_character_that_xml_can_not() -> None:
    told = [
        e.event.model_copy(update={"sentence": "bell \x07 and \x1b[31m"})
        if isinstance(e.event, RunFinished)
        else e.event
        for e in (PASSED[0], PASSED[-1])
    ]
    told[-1] = told[-1].model_copy(update={"exit_code": 3, "best": None})
    assert cases(entries(told)) == {"run": "error"}


@pytest.mark.parametrize("terminal", [True, False])
def test_a_measurement_is_told_with_its_intervals_conditions_and_findings(terminal: bool) -> None:
    built = next(e.event for e in PASSED if isinstance(e.event, ArtifactBuilt))
    judged = next(e.event for e in PASSED if isinstance(e.event, Judgement))
    told = printed(text_report.measure_report(judged, built.artifact), terminal=terminal)
    for words in (
        "FAIL",
        "latency p90",
        "95% interval",
        "8 sessions",
        "MiB at the peak",
        "top1",
        "not known",
        "bound 3 ms",
    ):
        assert words in told
    without = judged.model_copy(update={"verdict": Verdict(outcome=Outcome.INCONCLUSIVE)})
    assert "INCONCLUSIVE" not in printed(
        text_report.measure_report(without, built.artifact, limits_given=False), terminal=terminal
    )


def test_a_chart_tells_verdicts_by_shape_and_takes_a_single_point() -> None:
    kinds = ("pass", "fail", "open", "void", "reference")
    drawings = [scatter([Mark(1.0, 0.9, "1", kind, kind)], [], "ms", "top1", str) for kind in kinds]
    shapes = {re.sub(r"[\d.]+|pass|fail|open|void|reference", "", drawing) for drawing in drawings}
    assert len(shapes) == len(kinds)
    assert scatter([], [Line("x", 1.0, "L1")], "ms", "top1", str) == ""


def test_a_chart_over_two_decades_has_a_logarithmic_axis() -> None:
    marks = [Mark(x, 0.9, str(x), "t", "pass") for x in (1.0, 10.0, 100.0)]
    places = [float(x) for x in re.findall(r'circle cx="([\d.]+)"', scatter(marks, [], "ms", "top1", str))]
    assert places[1] - places[0] == pytest.approx(places[2] - places[1], abs=0.2)


def test_whiskers_show_intervals_in_both_directions() -> None:
    mark = Mark(1.0, 0.9, "1", "t", "pass", x_interval=(0.9, 1.1), y_interval=(0.88, 0.92))
    assert scatter([mark], [], "ms", "top1", str).count('class="whisker"') == 2


@pytest.mark.parametrize(("per", "told"), [("period", "energy a period"), ("inference", "energy an inference")])
def test_a_measurement_tells_its_energy_powers_meter_and_what_was_lost(
    per: Literal["period", "inference"], told: str
) -> None:
    built = next(e.event for e in PASSED if isinstance(e.event, ArtifactBuilt))
    judged = next(e.event for e in PASSED if isinstance(e.event, Judgement))
    energy = EnergySummary(
        per=per,
        per_period_mj=40.0,
        above_idle_mj=-0.2,
        idle_mw=2000.0,
        active_mw=2002.0,
        confidence=0.95,
        interval={"per_period": Interval(low=39.0, high=41.0), "above_idle": Interval(low=-1.0, high=0.6)},
        meter="meter stream",
        accuracy_pct=1.0,
        clock_uncertainty_ms=12.0,
        sessions=7,
        samples=700,
        problems=("session 4: no reading for 0.7 s of the idle window of 2 s",),
    )
    assert judged.summary is not None
    measured = judged.model_copy(update={"summary": judged.summary.model_copy(update={"energy": energy})})
    lines = printed(text_report.measure_report(measured, built.artifact), terminal=False)
    for words in (
        f"{told}: 40 [39, 41] mJ, 95% interval, idle time included",
        "energy above idle: -0.2 [-1, 0.6] mJ a",
        "power: 2000 mW idle, 2002 mW active",
        "power meter: meter stream, accuracy 1 %, clocks to 12 ms: 7 sessions, 700 readings",
        "no energy: session 4: no reading for 0.7 s",
    ):
        assert words in lines
    nothing = energy.model_copy(update={"per_period_mj": None, "above_idle_mj": None, "idle_mw": None, "sessions": 0})
    measured = judged.model_copy(update={"summary": judged.summary.model_copy(update={"energy": nothing})})
    lines = printed(text_report.measure_report(measured, built.artifact), terminal=False)
    assert told not in lines
    assert "no energy: session 4" in lines
