"""Campaigns on a virtual ARM board: one that passes, and what a pulled plug does to one."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import campaigns
import pytest

from edgeloop.testing.virtual_board import VirtualBoardHome

pytestmark = [pytest.mark.board, pytest.mark.full, pytest.mark.train, pytest.mark.timeout(2400)]


def wait_for(found, seconds=600.0):
    """Poll until `found()` is true."""
    ends_s = time.monotonic() + seconds
    while time.monotonic() < ends_s:
        if found():
            return
        time.sleep(0.2)
    pytest.fail("waited in vain")


class Run:
    """`edgeloop run` in the background, and what it leaves in its folder."""

    def __init__(self, home: VirtualBoardHome, campaign: Path, folder: Path, *more: str) -> None:
        self.folder = folder
        self.process = subprocess.Popen(
            [sys.executable, "-m", "edgeloop", "run", str(campaign), "--out", str(folder), *more],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env=home.env,
        )

    def ended(self, seconds: float = 1200) -> tuple[int, str]:
        _, told = self.process.communicate(timeout=seconds)
        return self.process.returncode, told

    def attempts(self) -> dict[str, set[str]]:
        """Boots that the sessions of each attempt ran in, by `<measurement>/attempt-N`."""
        found: dict[str, set[str]] = {}
        for record in self.folder.glob("samples/*/attempt-*/sessions/*.json"):
            attempt = record.parents[1]
            boot = json.loads(record.read_text())["boot_id"]
            found.setdefault(f"{attempt.parent.name}/{attempt.name}", set()).add(boot)
        return found

    def is_measuring_a_candidate(self) -> bool:
        asked = [e for e in campaigns.events(self.folder) if e["kind"] == "job_intended" and e["trial"] == 1]
        return bool(asked) and any(self.folder.glob(f"samples/{asked[0]['job_key'][:32]}/attempt-0/sessions/*.json"))


@pytest.fixture
def plug(home, edgeloop):
    """A board of the test's own, ready for litert."""
    home.create("plug")
    edgeloop("targets", "provision", "plug", "--engine", "litert")
    yield "plug"
    if home.boards.state("plug") == "running":
        home.boards.kill("plug")
    home.boards.remove("plug")


def pull(home: VirtualBoardHome) -> int:
    """Kill QEMU; return the port that it had."""
    board = next(item for item in home.boards.all_boards()[0] if item.declaration.name == "plug")
    assert board.pid is not None
    os.kill(board.pid, signal.SIGKILL)
    wait_for(lambda: home.boards.state("plug") == "stale", 10)
    return int(tomllib.loads(board.file.read_text())["ssh"]["port"])


def test_a_short_campaign_ends_in_a_network_proven_on_the_board(edgeloop, virt, tmp_path):
    campaign = campaigns.write_campaign(tmp_path, target=virt)
    done = edgeloop("run", campaign, "--out", tmp_path / "run")
    assert "PASSED small" in " ".join(done.stdout.split())
    assert (tmp_path / "run/best/model.tflite").is_file()
    judged = [e for e in campaigns.events(tmp_path / "run") if e["kind"] == "judged"]
    assert all(e["emulated"] for e in judged)
    assert "emulated" in (tmp_path / "run/report.html").read_text().lower()


def test_a_board_that_comes_back_closes_the_attempt_and_the_campaign_goes_on(home, plug, tmp_path):
    run = Run(home, campaigns.write_campaign(tmp_path, target=plug), tmp_path / "run")
    wait_for(run.is_measuring_a_candidate)
    port = pull(home)
    assert home.boards.start(plug) == port
    code, told = run.ended()
    assert code == 0, told[-3000:]
    boots = run.attempts()
    assert all(len(found) == 1 for found in boots.values()), boots
    again = [name for name in boots if name.endswith("attempt-1")]
    assert len(again) == 1
    assert boots[again[0]] != boots[again[0].replace("attempt-1", "attempt-0")]


def test_a_board_that_stays_away_ends_the_run_with_3_and_resume_finds_it_at_another_port(home, plug, tmp_path):
    campaign = campaigns.write_campaign(tmp_path, target=plug)
    run = Run(home, campaign, tmp_path / "run")
    wait_for(run.is_measuring_a_candidate)
    port = pull(home)
    code, told = run.ended()
    assert code == 3, told[-3000:]
    last = told.splitlines()[-1]
    assert last.startswith("edgeloop: plug: no connection for ")
    assert last.endswith("; then go on with --resume")
    assert "Traceback" not in told
    before = [e for e in campaigns.events(run.folder) if e["kind"] == "judged"]
    assert home.boards.state(plug) == "stale"
    with socket.create_server(("127.0.0.1", port)):
        assert home.boards.start(plug) != port
    resumed = Run(home, campaign, tmp_path / "run", "--resume")
    code, told = resumed.ended()
    assert code == 0, told[-3000:]
    boots = resumed.attempts()
    assert all(len(found) == 1 for found in boots.values()), boots
    after = [e for e in campaigns.events(run.folder) if e["kind"] == "judged"]
    assert after[: len(before)] == before
    assert len({e["job_key"] for e in after}) == len(after)
