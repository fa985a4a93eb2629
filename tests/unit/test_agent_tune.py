"""Functions are timed in a process that they may take down."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeloop_agent import tune
from edgeloop_agent.wire import NOT_CALLED_NS


def timed(folder: Path, *calls: Callable[[], Any]) -> Any:
    tune.time_functions(calls, 0, lambda: None, folder, folder / "pid")
    return np.load(folder / tune.FUNCTIONS_FILE)


def crash() -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def test_every_call_of_every_round_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tune, "CALLS_NS", 10**11)  # a machine that is held up would end a round early
    times = timed(tmp_path, lambda: None, lambda: time.sleep(0.0002))
    assert times.dtype == np.int64
    assert times.shape == (2, tune.ROUNDS, tune.CALLS)
    assert (times[0] >= 0).all()
    assert (times[1] >= 200_000).all()


def test_a_function_that_is_slow_is_called_less_often(tmp_path: Path) -> None:
    times = timed(tmp_path, lambda: time.sleep(0.015))
    called = (times[0] != NOT_CALLED_NS).sum(1)
    assert ((called >= 1) & (called < tune.CALLS)).all()


def test_what_crashes_costs_itself_and_not_the_others(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    def refuse() -> None:
        raise ValueError("wrong shape")

    times = timed(tmp_path, lambda: None, crash, refuse, lambda: None)
    assert (times[[0, 3], :, 0] >= 0).all()
    assert (times[[1, 2]] == NOT_CALLED_NS).all()
    said = capfd.readouterr().err
    assert "function 1 was ended by SIGSEGV" in said
    assert "ValueError: wrong shape" in said


def test_what_does_not_end_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tune, "HANGS_S", 0.3)

    def hang() -> None:
        while True:
            time.sleep(1)

    times = timed(tmp_path, hang, lambda: None)
    assert (times[0] == NOT_CALLED_NS).all()
    assert (times[1, :, 0] >= 0).all()
