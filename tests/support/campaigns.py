"""Small campaigns for tests: real digits, a small network, short plans, limits that noise can't decide."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

BRIEF_PLAN = """
[plan]
profile = "standard"
sessions = 3
time_s_min = 0.05
warmup_s_min = 0.02
warmup_s_max = 0.1
"""
"""A plan that may pass, as short as one can be."""

CAMPAIGN = (
    """
schema = 1
name = "small"
targets = ["{target}"]
limits = [
  {{ metric = "top1", max_drop_from_reference = 0.5 }},
  {{ metric = "latency", statistic = "p50", max_ratio_to_reference = 30.0 }},
  {{ metric = "deployed_size", max_ratio_to_reference = {size_ratio} }},
]

[reference]
family = "ds_cnn"

[data]
provider = "digits"

[search]
widths = [1.41]
lightenings = ["w8a8", "w4a8"]

[training]
epochs = 3
lightened_epochs = 1

[budget]
trials = 4
wall_minutes = 10
"""
    + BRIEF_PLAN
)


def write_campaign(folder: Path, *, target: str, size_ratio: float = 10.0) -> Path:
    """Ten-fold slack and more on every limit, unless `size_ratio` says otherwise (bytes are exact, not noisy)."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "campaign.toml"
    path.write_text(CAMPAIGN.format(target=target, size_ratio=size_ratio))
    return path


def write_local_board(folder: Path, name: str = "here") -> Path:
    """A board file for this machine with a state folder of the test's own; returns that folder."""
    state = folder / "state"
    (folder / f"{name}.toml").write_text(
        f'schema = 1\nname = "{name}"\nextends = "local"\n[runtime]\nstate_dir = "{state}"\n'
    )
    return state


def command(*words: str | Path) -> list[str]:
    return [sys.executable, "-m", "edgeloop", *map(str, words)]


def run(*words: str | Path, cwd: Path, expect: int = 0, timeout: float = 300) -> subprocess.CompletedProcess[str]:
    """Run the real command, and require its exit code."""
    done = subprocess.run(
        command(*words),
        capture_output=True,
        text=True,
        cwd=cwd,
        timeout=timeout,
        env={**os.environ, "COLUMNS": "120"},
        check=False,
    )
    assert done.returncode == expect, (
        f"exit {done.returncode}, not {expect}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    )
    return done


def events(folder: Path) -> list[dict[str, Any]]:
    """The whole lines of a run's ledger so far."""
    path = folder / "ledger.jsonl"
    if not path.exists():
        return []
    lines = path.read_bytes().split(b"\n")[:-1]
    return [json.loads(line)["event"] for line in lines]
