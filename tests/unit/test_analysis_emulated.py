"""Absolute times say nothing of hardware on an emulated board."""

from __future__ import annotations

import pytest

from edgeloop.analysis.emulated import refused_when_emulated
from edgeloop.cli.words import spell
from edgeloop.core.board import Board, BoardModel
from edgeloop.core.limits import parse_limits
from edgeloop.sentences import Argument

MODEL = BoardModel.model_validate({"schema": 1, "name": "m"})
ALLOW = Argument("allow_emulated")
REAL, EMULATED = Board(name="pi", model=MODEL), Board(name="virt", model=MODEL, emulated=True)


@pytest.mark.parametrize("word", ["latency.p90_ms=5", "first_inference_ms=900", "load_ms=20"])
def test_an_absolute_limit_on_time_is_refused_where_one_board_is_emulated(word: str) -> None:
    limits = parse_limits([word])
    (fault,) = refused_when_emulated(limits, [REAL, EMULATED], ALLOW)
    assert "virt is emulated" in fault.what
    assert "allow_emulated" in str(fault.next_step)
    assert "--allow-emulated" in fault.line(spell)
    assert refused_when_emulated(limits, [REAL], ALLOW) == []


def test_ratios_sizes_memory_and_accuracy_are_judged_there() -> None:
    words = ["latency.p50_ratio=1.1", "size_bytes=900000", "rss_above_runtime_mib=48", "top1=0.9", "top1_drop=0.01"]
    assert refused_when_emulated(parse_limits(words), [EMULATED], "x") == []
