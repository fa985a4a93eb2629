"""The method from end to end over a real sshd: docs/examples/whole-method.toml, as it stands."""

from __future__ import annotations

import shutil
from pathlib import Path

import campaigns
import pytest

from edgeloop.testing.sshd import LoopbackSshd

pytestmark = [pytest.mark.train, pytest.mark.sshd, pytest.mark.full]

EXAMPLE = Path(__file__).parents[2] / "docs/examples/whole-method.toml"


def test_mixed_precision_and_pruning_over_ssh_pass_and_the_ledger_shows_all_phases(
    sshd_session: LoopbackSshd, tmp_path: Path
) -> None:
    sshd_session.write_board(tmp_path)
    shutil.copy(EXAMPLE, tmp_path / "campaign.toml")
    campaigns.run("run", "campaign.toml", "--target", "loopback", "--out", tmp_path / "run", cwd=tmp_path)
    found = campaigns.events(tmp_path / "run")
    assert not [event for event in found if event["kind"] == "errored"]
    asked = {event["trial"]: event["candidate"]["lightening"] for event in found if event["kind"] == "asked"}
    assert asked == {0: "fp32", 1: "w8a8-p25", 2: "w4a8:50-p25"}
    whats = {e["trial"]: [phase["what"] for phase in e["phases"]] for e in found if e["kind"] == "trained"}
    assert whats[1] == [
        "M2 trained on labels",
        "M1 trained on labels",
        "M2 distilled into M1",
        "M3 as w8a8-p25, taught by M1 distilled from M2",
    ]
    assert whats[2][-1] == "M3 as w4a8:50-p25, taught by M1 distilled from M2, fine-tuned"
    moved = next(event for event in found if event["kind"] == "moved" and event["trial"] == 1)
    assert moved["direction"] == "raise_degree"
    assert "over 19300" in moved["sentence"].replace(",", "")
    finished = next(event for event in found if event["kind"] == "finished")
    assert (finished["exit_code"], finished["best"]) == (0, 2)
    mixed = next(event for event in found if event["kind"] == "trained" and event["trial"] == 2)
    assert {layer["bits"] for layer in mixed["layers"]} == {4, 8}
    assert (tmp_path / "run/best/model.tflite").stat().st_size < 19300
