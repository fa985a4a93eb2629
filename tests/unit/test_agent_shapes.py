"""The agent's side of shapes: nested lists on the wire, and channel-last samples for a channel-first input."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeloop_agent import samples, wire
from edgeloop_agent.errors import RefusedError
from edgeloop_agent.wire import Tensor

SUBJECT = wire.WireSubject("a", "litert", "4" * 64, ".tflite", 1, ["x"], ["y"], shapes=[[1, 8, 8, 1], [1, 4]])


def test_shapes_travel_as_lists_of_lists() -> None:
    assert wire.from_plain(wire.WireSubject, json.loads(json.dumps(asdict(SUBJECT)))) == SUBJECT


@pytest.mark.parametrize("shapes", [[[1, "8"]], [1, 8], [[True]], "1,8"])
def test_shapes_of_another_kind_are_refused(shapes: Any) -> None:
    with pytest.raises(wire.WireError, match=r"shapes is not of type list\[list\[int\]\]"):
        wire.from_plain(wire.WireSubject, {**asdict(SUBJECT), "shapes": shapes})


def data(path: Path, x: Any, shape: list[int]) -> list[Any]:
    np.savez(path / "d.npz", x=x)
    return [s[0] for s in samples.SampleData(str(path / "d.npz"), ["x"], [Tensor("x", "float32", shape, None, None)])]


def test_channel_last_samples_go_into_a_channel_first_input(tmp_path: Path) -> None:
    x = np.random.default_rng(0).random((3, 4, 5, 2), np.float32)
    for given, sample in zip(data(tmp_path, x, [1, 2, 4, 5]), x, strict=True):
        np.testing.assert_array_equal(given, sample.transpose(2, 0, 1)[None])
        assert given.flags.c_contiguous


def test_samples_that_fit_as_they_are_are_never_moved(tmp_path: Path) -> None:
    x = np.random.default_rng(0).random((2, 3, 3, 3), np.float32)
    np.testing.assert_array_equal(np.concatenate(data(tmp_path, x, [1, 3, 3, 3])), x)


def test_other_shapes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match=r"\(4, 5, 2\), the model's input takes \(2, 5, 4\)"):
        data(tmp_path, np.zeros((3, 4, 5, 2), np.float32), [1, 2, 5, 4])
