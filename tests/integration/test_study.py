"""The Python API: what docs/how-to/own-the-loop.md shows runs as it is written."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import campaigns
import numpy as np
import pytest

import edgeloop
from edgeloop.core.verdict import Outcome

DOCS = Path(__file__).parents[2] / "docs" / "how-to" / "own-the-loop.md"
TINY_MODEL = Path(__file__).parents[1] / "data" / "tiny_int8.tflite"
WHOLE, LOOP, OWN, READY = re.findall(r"```python\n(.*?)```", DOCS.read_text(), re.DOTALL)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def events(folder: Path) -> list[str]:
    return [event["kind"] for event in campaigns.events(folder)]


@pytest.mark.train
def test_the_loop_of_the_page_runs_and_the_command_goes_on_with_its_folder(folder: Path) -> None:
    campaigns.write_campaign(folder, target="here")
    campaigns.write_local_board(folder)
    names: dict[str, Any] = {}
    exec(compile(LOOP, str(DOCS), "exec"), names)
    result: edgeloop.RunResult = names["result"]
    assert result.exit_code == 0
    assert result.model == folder / "runs" / "mine" / "best" / "model.tflite"
    assert result.model.exists()
    assert names["told"].move is not None
    again = campaigns.run("run", "campaign.toml", "--out", "runs/mine", "--resume", "--json", cwd=folder)
    assert json.loads(again.stdout)["finished"]["sentence"] == result.finished.sentence
    assert json.loads(again.stdout)["artifact"] == str(result.model)
    # `edgeloop.run` on a folder that ended is that end, without a training
    names = {}
    exec(compile(WHOLE.replace('"runs/whole"', '"runs/mine", resume=True'), str(DOCS), "exec"), names)
    assert names["result"].finished == result.finished


def own_device(passing: str) -> dict[str, Any]:
    """What the page's example calls: one candidate is fast, M1 and all others are slow."""

    def times(candidate: Any, session: int) -> Any:
        fast = str(candidate) == passing
        return np.full(60, (1_000_000 if fast else 9_000_000) + 1000 * session)

    return {
        "my_device_times": times,
        "my_file_size": lambda _candidate: 20_000,
        "my_scores": lambda _candidate: np.arange(1000) % 20 != 0,
    }


OWN_LIMITS = """limits = [
  { metric = "top1", max_drop_from_reference = 0.02 },
  { metric = "latency", statistic = "p90", max_ms = 5.0 },
]
"""


def own_campaign(folder: Path) -> None:
    path = campaigns.write_campaign(folder, target="local")
    head, rest = path.read_text().split("limits = [", 1)
    path.write_text(head + OWN_LIMITS + rest.partition("]\n")[2])


@pytest.mark.train
def test_figures_of_ones_own_are_judged_by_the_same_rule_and_go_on_after_an_interruption(folder: Path) -> None:
    own_campaign(folder)
    device = own_device(passing="width 1.41 w8a8")
    names: dict[str, Any] = dict(device)
    exec(compile(OWN.partition("with edgeloop")[0], str(DOCS), "exec"), names)
    with edgeloop.Study("campaign.toml", out="runs/own") as study:
        m1 = study.ask()
        assert m1 is not None
        study.tell(m1, names["measured"](m1), test=names["measured"](m1))
        assert study.ask() is not None
    assert events(folder / "runs" / "own").count("judged") == 2, "M1 alone was told"
    exec(compile(OWN.replace('out="runs/own"', 'out="runs/own", resume=True'), str(DOCS), "exec"), names)
    result: edgeloop.RunResult = names["result"]
    assert result.exit_code == 0
    assert "width 1.41 w8a8, passed every limit" in result.finished.sentence
    assert result.model is None, "edgeloop built no file"
    assert {"trained", "built", "job_intended"}.isdisjoint(events(folder / "runs" / "own"))


@pytest.mark.train
def test_what_cant_be_told_is_one_line_and_the_study_stays_as_it_was(folder: Path) -> None:
    own_campaign(folder)
    good = edgeloop.TimedSession([1_000_000] * 60, load_ns=1, first_ns=1)
    scores = {"top1": [1, 1, 1, 0]}
    with edgeloop.Study("campaign.toml", out="out") as study:
        m1 = study.ask()
        assert m1 is not None
        assert m1.role == "reference"
        for figures, says in (
            (edgeloop.ExternalMeasurement(0, [good], scores), "deployed_bytes is 0"),
            (edgeloop.ExternalMeasurement(9, [good], {"map50": [1.0]}), "the task has no metric map50"),
            (edgeloop.ExternalMeasurement(9, [good], {"top1": [[1.0]]}), "one finite number each is wanted"),
            (
                edgeloop.ExternalMeasurement(9, [edgeloop.TimedSession([], 1, 1)], scores),
                "one finite number each is wanted",
            ),
            (edgeloop.ExternalMeasurement(9, [edgeloop.TimedSession([0], 1, 1)], scores), "not over 0 ns"),
        ):
            with pytest.raises(edgeloop.EdgeloopError, match=says):
                study.tell(m1, figures)
            assert study.ask() == m1
        with pytest.raises(edgeloop.EdgeloopError, match="has nothing to tell"):
            study.tell(m1, m1)
        with pytest.raises(edgeloop.EdgeloopError, match="has not come to its end"):
            study.finish()
        study.tell(m1, edgeloop.ExternalMeasurement(30_000, [good] * 8, scores))
        trial = study.ask()
        assert trial is not None
        with pytest.raises(edgeloop.EdgeloopError, match="trial 0 is not the one that was asked, which is trial 1"):
            study.tell(m1, edgeloop.ExternalMeasurement(9, [good], scores))
        with pytest.raises(edgeloop.EdgeloopError, match="M1 was not measured on the boards"):
            study.carry_out(trial)
        told = study.tell(trial, edgeloop.ExternalMeasurement(20_000, [good] * 8, {"top1": [1] * 4}))
        assert told.outcome is Outcome.INCONCLUSIVE, "four samples prove nothing about the population"
        assert study.best is not None
        assert study.best.number == 1


@pytest.mark.train
def test_a_pass_without_a_look_at_test_data_is_not_proven(folder: Path) -> None:
    own_campaign(folder)
    fast = [edgeloop.TimedSession([1_000_000 + n] * 60, load_ns=1, first_ns=1) for n in range(8)]
    scores = {"top1": np.arange(2000) % 10 != 0}
    with edgeloop.Study("campaign.toml", out="out") as study:
        while (trial := study.ask()) is not None:
            study.tell(trial, edgeloop.ExternalMeasurement(20_000, fast, scores))
        result = study.finish()
    assert result.exit_code == 3
    assert "figures on test data were not told, so it is not proven" in result.finished.sentence


def test_a_ready_model_is_measured_as_the_page_shows(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    campaigns.write_local_board(folder, "local")
    (folder / "model.tflite").write_bytes(TINY_MODEL.read_bytes())
    quick = READY.replace(
        'limits=["latency.p90_ms=40"]',
        'limits=["latency.p90_ms=40"], plan=edgeloop.PlanWords(sessions=3, time_s_min=0.05)',
    )
    exec(compile(quick, str(DOCS), "exec"), {})
    assert capsys.readouterr().out.split()[-2:] == ["PASS", "0"]
