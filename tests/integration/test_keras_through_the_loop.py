"""A Keras factory goes through the whole loop: trained, quantized, built, gated, measured, judged."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path

import campaigns
import pytest

pytestmark = [
    pytest.mark.train,
    pytest.mark.skipif(importlib.util.find_spec("keras") is None, reason="needs the extra keras"),
]

EXAMPLE = Path(__file__).resolve().parents[2] / "docs" / "examples" / "keras"

SHORTENED = {
    '"local"': '"here"',
    "max_drop_from_reference = 0.02": "max_drop_from_reference = 0.1",
    "[1.41, 2.0]": "[1.41]",
    '["w8a8", "w4a8"]': '["w8a8"]',
}
SHORT = (
    """
[training]
epochs = 6
lightened_epochs = 2
teacher = "m1"
[budget]
trials = 1
wall_minutes = 10
"""
    + campaigns.BRIEF_PLAN
)


def test_the_example_passes_with_w8a8_and_the_built_model_agrees_with_the_trained_one(tmp_path: Path) -> None:
    shutil.copy(EXAMPLE / "net.py", tmp_path)
    text = (EXAMPLE / "campaign.toml").read_text().partition("[training]")[0]
    for given, wanted in SHORTENED.items():
        assert given in text
        text = text.replace(given, wanted)
    (tmp_path / "campaign.toml").write_text(text + SHORT)
    campaigns.write_local_board(tmp_path)
    done = campaigns.run("run", tmp_path / "campaign.toml", "--out", tmp_path / "run", "--json", cwd=tmp_path)
    document = json.loads(done.stdout)
    best = document["trials"][document["finished"]["best"]]
    assert (best["name"], best["passed"]) == ("width 1.41 w8a8", True)
    assert best["parity"]["agreement"] >= 0.99
    assert best["parity"]["n"] > 900
    assert best["trained"]["lightened"]["top1"] > 0.85
    assert [layer["bits"] for layer in best["trained"]["layers"]] == [8] * 8
    measured = best["measurements"][-1]
    assert measured["verdict"] == "PASS"
    assert {finding["outcome"] for finding in measured["findings"]} == {"PASS"}
