"""Files that an earlier version wrote are read as that version read them, and a run of it goes on."""

from __future__ import annotations

import csv
import json
import re
import xml.etree.ElementTree as ET
from collections import Counter
from pathlib import Path
from typing import Any

import earlier_version
import numpy as np
import pytest
from campaigns import run
from earlier_version import FOLDER, cut_before_last, lay_out, ledger_events

import edgeloop
from edgeloop.records.samples import AttemptFolder

FINISHED = FOLDER / "finished"
LAST_TRIAL = "2"
"""The one that was looked at on test data: which look a report shows of it is the report's to say."""
SAME_COLUMNS = ("trial", "role", "target", "candidate", "width", "lightening", "parameters", "macs", "predicted_bytes")
SAME_COLUMNS += ("deployed_bytes", "outcome", "passed", "why", "direction", "move")


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Every report of the finished run, as the command makes it today."""
    folder = tmp_path_factory.mktemp("reports")
    place = lay_out("finished", folder)
    words = ("--html", folder / "r.html", "--junit", folder / "r.xml", "--csv", folder / "r.csv")
    texts = {"text": run("report", place / "run", *words, cwd=folder).stdout}
    texts["json"] = run("report", place / "run", "--json", cwd=folder).stdout
    return {**texts, **{kind: (folder / f"r.{kind}").read_text() for kind in ("html", "xml", "csv")}}


def part_of(earlier: Any, now: Any, place: str = "") -> list[str]:
    """Places at which what an earlier version wrote is not there any more; more may be there."""
    if isinstance(earlier, dict) and isinstance(now, dict):
        return [d for key, value in earlier.items() for d in part_of(value, now.get(key), f"{place}.{key}")]
    if isinstance(earlier, list) and isinstance(now, list) and len(earlier) == len(now):
        pairs = enumerate(zip(earlier, now, strict=True))
        return [d for i, (one, other) in pairs for d in part_of(one, other, f"{place}[{i}]")]
    same = earlier == pytest.approx(now, rel=1e-12) if isinstance(earlier, float) else earlier == now
    return [] if same else [f"{place}: {earlier!r} is {now!r}"]


def test_the_text_names_the_same_verdicts_figures_and_moves(reports: dict[str, str]) -> None:
    lines = (FINISHED / "report.txt").read_text().splitlines()
    of_last = [line for line in lines if line.startswith(f"trial {LAST_TRIAL} (")]
    assert [line for line in lines if line not in of_last and line not in reports["text"]] == []
    assert of_last[0].partition(";")[0].partition(" standard")[0] in reports["text"]


def test_the_json_document_has_all_that_it_had(reports: dict[str, str]) -> None:
    assert part_of(json.loads((FINISHED / "report.json").read_text()), json.loads(reports["json"])) == []


def test_the_table_has_the_same_rows(reports: dict[str, str]) -> None:
    earlier = list(csv.DictReader((FINISHED / "report.csv").read_text().splitlines()))
    now = list(csv.DictReader(reports["csv"].splitlines()))
    assert len(earlier) == len(now) == 3
    for one, other in zip(earlier, now, strict=True):
        columns = SAME_COLUMNS if one["trial"] == LAST_TRIAL else tuple(one)
        assert {name: other[name] for name in columns} == {name: one[name] for name in columns}


def test_the_junit_file_has_the_same_cases(reports: dict[str, str]) -> None:
    def cases(text: str) -> list[tuple[str | None, str | None, list[str]]]:
        found = ET.fromstring(text).iter("testcase")
        return [(case.get("classname"), case.get("name"), [child.tag for child in case]) for case in found]

    assert cases(reports["xml"]) == cases((FINISHED / "report.junit.xml").read_text())


def test_the_page_shows_the_verdict_the_limits_and_every_candidate(reports: dict[str, str]) -> None:
    words = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", reports["html"]))
    document = json.loads((FINISHED / "report.json").read_text())
    assert document["finished"]["sentence"] in words
    for case in ET.parse(FINISHED / "report.junit.xml").iter("testcase"):
        limit_id, _, name = str(case.get("name")).partition(" ")
        assert f"{limit_id}: {name}" in words
    for trial in document["trials"]:
        assert trial["name"] in words
        assert f"{trial['parameters']:,}" in words


@pytest.mark.parametrize("path", sorted((FOLDER / "campaigns").rglob("*.toml")), ids=lambda path: path.parent.name)
def test_campaigns_of_the_examples_load(path: Path) -> None:
    campaign = edgeloop.load_campaign(path)
    assert campaign.limits.limit
    assert campaign.name


def test_sessions_of_every_kind_are_read() -> None:
    folder = FOLDER / "measurement" / "samples" / "attempt-0"
    attempt = AttemptFolder(folder).read()
    records = [json.loads(path.read_text()) for path in sorted((folder / "sessions").glob("???.json"))]
    assert [session.kind for session in attempt.sessions] == [record["kind"] for record in records]
    assert Counter(session.kind for session in attempt.sessions) == {"latency": 3, "evaluate": 1, "profile": 1}
    for session, record in zip(attempt.sessions, records, strict=True):
        assert session.outcome == record["outcome"] == "ok"
        assert session.peak_rss_bytes == record["peak_rss_bytes"]
        if session.kind == "latency":
            kept = np.load(folder / "sessions" / f"{session.index:03}.latency.npy")
            assert np.array_equal(session.latencies_ns, kept)
    (outputs,) = attempt.outputs["candidate"].values()
    assert outputs.shape == (12, 3)
    profile = attempt.sessions[-1].profile
    assert profile is not None
    measure = json.loads((FOLDER / "measurement" / "measure.json").read_text())
    assert len(measure["per_op"]["operators"]) == len(records[-1]["profile"]["runs"][0]) - 1
    assert attempt.engine_versions == {"candidate": measure["engine"]}


@pytest.mark.train
def test_samples_are_judged_as_they_were_and_the_run_ends_as_it_did(tmp_path: Path) -> None:
    place = lay_out("finished", tmp_path)
    ledger = place / "run" / "ledger.jsonl"
    whole = ledger_events(ledger)
    judgement = cut_before_last("judged", ledger)
    run("run", place / "campaign.toml", "--out", place / "run", "--resume", cwd=place)
    again = ledger_events(ledger)
    assert part_of({k: v for k, v in judgement.items() if k != "seconds"}, again[len(whole) - 3]) == []
    assert [event["kind"] for event in again] == [event["kind"] for event in whole]
    assert part_of(whole[-1], again[-1]) == []
    assert (place / "run" / "best" / "model.tflite").is_file()


@pytest.mark.train
def test_an_interrupted_run_goes_on_to_its_end_and_asks_nothing_twice(tmp_path: Path) -> None:
    place = lay_out("interrupted", tmp_path)
    (place / "here.toml").write_text(
        f'schema = 1\nname = "here"\nextends = "local"\n[runtime]\nstate_dir = "{place / "state"}"\n'
    )
    ledger = place / "run" / "ledger.jsonl"
    before = ledger.read_text()
    trainings = {path: path.read_bytes() for path in (place / "run" / "networks").glob("*/training.json")}
    done = run("run", place / "campaign.toml", "--out", place / "run", "--resume", "--json", cwd=place)
    document = json.loads(done.stdout)
    assert ledger.read_text().startswith(before)
    assert (document["finished"]["best"], document["trials"][2]["name"]) == (2, "width 0.705 w4a8")
    assert [trial["outcome"] for trial in document["trials"]] == ["PASS", "FAIL", "PASS"]
    steps = Counter((e["kind"], e.get("trial"), e.get("job_key"), e.get("index")) for e in ledger_events(ledger))
    assert max(steps.values()) == 1
    assert {path: path.read_bytes() for path in trainings} == trainings
    jobs = len([event for event in ledger_events(ledger) if event["kind"] == "job_intended"])
    assert jobs == 4
    assert len(list((place / "state" / "jobs").iterdir())) == jobs - 2, "what was measured is read, not measured"


def test_the_samples_are_small() -> None:
    assert sum(path.stat().st_size for path in FOLDER.rglob("*") if path.is_file()) < 410_000
    assert earlier_version.PLACE in (FINISHED / "run" / "ledger.jsonl").read_text()
