"""Time to verdict over a real sshd, with and without training ahead, and where the time goes. Prints ratios.

The loopback board is idle between inferences (a duty cycle), so that it takes little of the host's cores, as a remote
board takes none. Usage: python tests/bench/bench_verdict.py
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from unittest import mock

import edgeloop
from edgeloop.config.campaign_file import load_campaign
from edgeloop.core.events import ArtifactBuilt, Entry, Judgement
from edgeloop.ports import Activity, Progress
from edgeloop.search.strategies import PatentStrategy
from edgeloop.testing.sshd import LoopbackSshd, why_no_sshd

CAMPAIGN = """
schema = 1
name = "verdict"
targets = ["loopback"]
limits = [
  {{ metric = "top1", max_drop_from_reference = 0.5 }},
  {{ metric = "deployed_size", max_ratio_to_reference = 0.85 }},
]
[reference]
family = "ds_cnn"
[data]
provider = "mnist5k"
board_samples_max = 500
[search]
widths = [1.19, 1.41, 2.0]
lightenings = ["w8a16", "w8a8", "w4a8"]
[training]
epochs = {epochs}
[budget]
trials = 6
wall_minutes = 30
[plan]
profile = "standard"
sessions = 6
time_s_min = 1.0
period_ms = 20
"""


class Stopwatch:
    """An observer that adds up pushing, which the ledger does not tell apart from measuring."""

    def __init__(self) -> None:
        self.pushing_s = 0.0
        self._since: float | None = None

    def stage(self, trial: int, what: str) -> None:
        self._stop()

    def entry(self, entry: Entry) -> None:
        self._stop()

    def progress(self, progress: Progress) -> None:
        self._stop()
        if progress.activity is Activity.PUSHING:
            self._since = time.monotonic()

    def _stop(self) -> None:
        if self._since is not None:
            self.pushing_s += time.monotonic() - self._since
            self._since = None


def verdict(folder: Path, *, ahead: bool, epochs: int) -> dict[str, float]:
    """One campaign on a board of its own; seconds by what they went into."""
    with LoopbackSshd() as sshd:
        folder.mkdir()
        sshd.write_board(folder)
        (folder / "campaign.toml").write_text(CAMPAIGN.format(epochs=epochs))
        campaign, watch = load_campaign(folder / "campaign.toml"), Stopwatch()
        nothing = mock.patch.object(PatentStrategy, "likely", return_value=[])
        began = time.monotonic()
        if ahead:
            result = edgeloop.run(campaign, beside=folder, out=folder / "run", observer=watch)
        else:
            with nothing:
                result = edgeloop.run(campaign, beside=folder, out=folder / "run", observer=watch)
        wall_s = time.monotonic() - began
    seconds: dict[str, float] = defaultdict(float, wall=wall_s, pushing=watch.pushing_s)
    for entry in result.entries:
        match entry.event:
            case ArtifactBuilt(seconds=took):
                seconds["building"] += took
            case Judgement(seconds=took):
                seconds["measuring"] += took
            case _:
                pass
    wanted = {event.key for entry in result.entries if (event := entry.event).kind == "trained"}
    wanted |= {event.parent for entry in result.entries if (event := entry.event).kind == "trained" and event.parent}
    for path in (folder / "run" / "networks").glob("*/training.json"):
        if path.parent.name in wanted:
            seconds["training"] += _trained_seconds(path)
    seconds["measuring"] -= watch.pushing_s
    return dict(seconds)


def _trained_seconds(path: Path) -> float:
    document = json.loads(path.read_text())
    return float(document["trained"]["seconds"])


def main() -> int:
    if reason := why_no_sshd():
        print(reason, file=sys.stderr)
        return 2
    epochs = int(sys.argv[1]) if len(sys.argv) > 1 else 40
    with tempfile.TemporaryDirectory() as name:
        rows = {
            label: verdict(Path(name) / label.replace(" ", "-"), ahead=ahead, epochs=epochs)
            for label, ahead in (("one after the other", False), ("training ahead", True))
        }
    print(f"{'':<22}{'wall':>8}{'training':>10}{'building':>10}{'pushing':>9}{'measuring':>11}{'wall / training':>17}")
    for label, seconds in rows.items():
        parts = [seconds.get(part, 0.0) for part in ("wall", "training", "building", "pushing", "measuring")]
        print(
            f"{label:<22}{parts[0]:>7.1f}s{parts[1]:>9.1f}s{parts[2]:>9.1f}s{parts[3]:>8.1f}s{parts[4]:>10.1f}s"
            f"{parts[0] / parts[1]:>17.2f}"
        )
    ahead, serial = rows["training ahead"]["wall"], rows["one after the other"]["wall"]
    print(f"training ahead / one after the other: {ahead / serial:.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
