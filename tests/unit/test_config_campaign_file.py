"""Campaigns that are read, or made by the caller: which are the same one, and which are refused before a run begins."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import campaigns
import pytest

import edgeloop
from edgeloop.config.campaign_file import campaign_key, load_campaign
from edgeloop.core.campaign import Campaign

PLAIN: dict[str, Any] = {"schema": 1, "name": "c", "targets": ["local"]}
LIMITS = {"limit": [{"metric": "top1", "min_fraction": 0.5}]}


def test_another_evaluation_function_under_the_same_name_is_another_campaign(tmp_path: Path) -> None:
    shape = tmp_path / "shape.py"
    path = campaigns.write_campaign(tmp_path, target="local")
    path.write_text(path.read_text().replace("[search]", '[search]\nevaluation = "shape.py:half"'))
    shape.write_text("def half(delta, parity):\n    return 0.5\n")
    first = campaign_key(load_campaign(path))
    assert campaign_key(load_campaign(path)) == first
    shape.write_text("def half(delta, parity):\n    return 0.25\n")
    assert campaign_key(load_campaign(path)) != first


@pytest.mark.parametrize(
    ("tables", "told"),
    [
        ({"reference": {"family": "ds_cnn"}, "limits": {}}, "limits: no limit, so nothing could pass or fail"),
        ({"reference": {"family": "alexnet"}, "limits": LIMITS}, "reference.family: unknown family 'alexnet'"),
    ],
)
def test_a_campaign_that_was_made_by_the_caller_is_checked_as_one_that_was_read(
    tables: dict[str, Any], told: str, tmp_path: Path
) -> None:
    with pytest.raises(edgeloop.EdgeloopError, match=told):
        edgeloop.Study(Campaign.model_validate(PLAIN | tables), out=tmp_path / "out")
    assert not (tmp_path / "out").exists()
