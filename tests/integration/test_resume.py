"""`kill -9` during every stage of a run, then --resume: the same network, and nothing measured twice."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path

import campaigns
import pytest
from processes import alive

pytestmark = pytest.mark.train

STAGES = {
    "training M1": lambda seen: seen["started"] == 1,
    "building M1": lambda seen: seen["trained"] == 1,
    "measuring M1": lambda seen: seen["job_intended"] == 1,
    "training a candidate": lambda seen: seen["asked"] == 2,
    "building a candidate": lambda seen: seen["trained"] == 2,
    "measuring a candidate": lambda seen: seen["job_intended"] == 2,
    "moving": lambda seen: seen["moved"] == 1,
    "training the next candidate": lambda seen: seen["asked"] == 3,
    "measuring the next candidate": lambda seen: seen["job_intended"] == 3,
    "measuring on test data": lambda seen: seen["job_intended"] == 4,
}
"""When the ledger shows this, the stage is under way. The first candidate is too large, so there is a move."""

SIZE_RATIO = 0.7


def _kill_when(stage: str, campaign: Path, out: Path) -> None:
    """Run (or resume) and kill -9 the controller as soon as the stage is reached."""
    words = ["--resume"] if (out / "ledger.jsonl").exists() else []
    with (out.parent / "stderr").open("ab") as log:
        process = subprocess.Popen(
            campaigns.command("run", campaign, "--out", out, *words), cwd=campaign.parent, stdout=log, stderr=log
        )
    ends = time.monotonic() + 120
    try:
        while not STAGES[stage](Counter(event["kind"] for event in campaigns.events(out))):
            assert process.poll() is None, f"ended before {stage}: {(out.parent / 'stderr').read_text()[-2000:]}"
            assert time.monotonic() < ends, f"never reached {stage}"
            time.sleep(0.005)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run that nothing interrupted, in `run`, and what the command printed, in `result.json`."""
    folder = tmp_path_factory.mktemp("whole")
    campaign = campaigns.write_campaign(folder, target="here", size_ratio=SIZE_RATIO)
    campaigns.write_local_board(folder)
    done = campaigns.run("run", campaign, "--out", folder / "run", "--json", cwd=folder)
    (folder / "result.json").write_text(done.stdout)
    return folder


@pytest.mark.parametrize(
    "stages",
    [
        pytest.param(("training M1", "measuring a candidate", "training the next candidate"), id="three"),
        pytest.param(tuple(STAGES), id="all", marks=pytest.mark.full),
    ],
)
def test_killed_at_any_stage_a_run_ends_with_the_same_network_and_measures_nothing_twice(
    whole: Path, tmp_path: Path, stages: tuple[str, ...]
) -> None:
    torn = tmp_path / "torn"
    campaigns.write_campaign(torn, target="here", size_ratio=SIZE_RATIO)
    campaigns.write_local_board(torn)
    uninterrupted = json.loads((whole / "result.json").read_text())
    for stage in stages:
        _kill_when(stage, torn / "campaign.toml", torn / "run")
    resumed = json.loads(
        campaigns.run("run", torn / "campaign.toml", "--out", torn / "run", "--resume", "--json", cwd=torn).stdout
    )
    assert resumed["finished"]["best"] == uninterrupted["finished"]["best"]
    best, same = (document["trials"][document["finished"]["best"]] for document in (resumed, uninterrupted))
    assert best["candidate"] == same["candidate"]
    assert (torn / "run/best/model.tflite").read_bytes() == (whole / "run/best/model.tflite").read_bytes()

    once = Counter(
        (e["kind"], e.get("trial"), e.get("job_key"), e.get("index")) for e in campaigns.events(torn / "run")
    )
    assert max(once.values()) == 1
    kinds = [Counter(e["kind"] for e in campaigns.events(folder / "run")) for folder in (torn, whole)]
    assert kinds[0] == kinds[1]
    jobs = [sorted(path.name for path in (folder / "state/jobs").iterdir()) for folder in (torn, whole)]
    assert len(jobs[0]) == len(jobs[1]) == kinds[1]["job_intended"]
    assert alive(torn) == []


def _hears_ctrl_c() -> None:
    """A background job of a shell ignores the signal, and so would its children."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_ctrl_c_ends_a_run_in_a_line_and_leaves_nothing_behind(tmp_path: Path) -> None:
    campaign = campaigns.write_campaign(tmp_path, target="here")
    campaigns.write_local_board(tmp_path)
    process = subprocess.Popen(
        campaigns.command("run", campaign, "--out", tmp_path / "run"),
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=_hears_ctrl_c,  # noqa: PLW1509 -- no threads in this test
    )
    ends = time.monotonic() + 60
    while not campaigns.events(tmp_path / "run") and time.monotonic() < ends:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=30)
    assert process.returncode == 3
    assert told.splitlines()[-1] == "edgeloop: interrupted; a run goes on with --resume"
    assert "Traceback" not in told
    assert alive(tmp_path) == []


def test_a_finished_run_is_not_run_again(whole: Path) -> None:
    campaign, out = whole / "campaign.toml", whole / "run"
    before = (out / "ledger.jsonl").read_bytes()
    campaigns.run("run", campaign, "--out", out, "--resume", cwd=whole)
    assert (out / "ledger.jsonl").read_bytes() == before
    done = campaigns.run("run", campaign, "--out", out, cwd=whole, expect=2)
    assert "--resume" in done.stderr
    other = whole / "other.toml"
    other.write_text(campaign.read_text().replace("trials = 4", "trials = 5"))
    done = campaigns.run("run", other, "--out", out, "--resume", cwd=whole, expect=2)
    assert "not the one this run was started with" in done.stderr
