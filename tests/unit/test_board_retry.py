"""Attempts that a board spoils are closed and made again; what says nothing about chance is not."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from edgeloop.board.retry import ATTEMPTS_MAX, RetryingBench
from edgeloop.core.board import Board, BoardModel
from edgeloop.core.measurement import Attempt, MeasureRequest
from edgeloop.core.plan import Environment, Plan
from edgeloop.errors import BoardError, EdgeloopError, UnreachableError
from edgeloop.ports import Progress, Watch

ATTEMPT = Attempt("1" * 16, "b", "m", emulated=False, engine_versions={}, sessions=(), outputs={}, facts={})


class ScriptedBench:
    """Raises what it is told to, then measures; records what it was asked."""

    board = Board(name="b", model=BoardModel.model_validate({"schema": 1, "name": "m"}))

    def __init__(self, *errors: EdgeloopError) -> None:
        self._errors = list(errors)
        self.asked: list[MeasureRequest] = []

    def facts(self) -> Mapping[str, Any]:
        return {}

    def close(self) -> None:
        pass

    def measure(self, request: MeasureRequest, watch: Watch) -> Attempt:
        self.asked.append(request)
        if self._errors:
            raise self._errors.pop(0)
        return ATTEMPT


def request(folder: Path) -> MeasureRequest:
    return MeasureRequest("a" * 64, (), (), Plan(), Environment(), folder)


def silent(_progress: Progress) -> None:
    pass


def test_a_spoilt_attempt_is_followed_by_another_in_a_folder_of_its_own(tmp_path: Path) -> None:
    bench = ScriptedBench(BoardError("rebooted"))
    assert RetryingBench(bench).measure(request(tmp_path), silent) is ATTEMPT
    assert [(r.attempt, r.folder.name) for r in bench.asked] == [(0, "attempt-0"), (1, "attempt-1")]


def test_after_three_attempts_the_last_error_stands(tmp_path: Path) -> None:
    bench = ScriptedBench(*(BoardError(f"rebooted {n}") for n in range(5)))
    with pytest.raises(BoardError, match="rebooted 2"):
        RetryingBench(bench).measure(request(tmp_path), silent)
    assert len(bench.asked) == ATTEMPTS_MAX


def test_a_board_that_does_not_answer_is_not_asked_again(tmp_path: Path) -> None:
    bench = ScriptedBench(UnreachableError("no answer"))
    with pytest.raises(UnreachableError):
        RetryingBench(bench).measure(request(tmp_path), silent)
    assert len(bench.asked) == 1
