"""Without a terminal a log says once that something waits, and for what."""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from edgeloop.cli.display import Display
from edgeloop.cli.output import print_measurements
from edgeloop.core.campaign import Budget
from edgeloop.ports import Activity, Progress

MEASURING = Progress("measuring", done=0, total=8)
SAID = (
    Progress("connecting", done=0, total=8),
    Progress("waiting for the board, held by ann", Activity.WAITING, 0, 8),
    Progress("waiting for the board, held by bob", Activity.WAITING, 0, 8),
    MEASURING,
)
AGAIN = (*SAID, Progress("no connection to pi4, trying again", Activity.NO_CONNECTION, 0, 8), MEASURING)


class Nothing:
    exit_code = 0
    folders: Sequence[Path] = ()

    def document(self) -> dict[str, Any]:
        return {}

    def report(self) -> str:
        return ""


def test_a_campaign_without_a_terminal_says_where_a_waiting_begins() -> None:
    log = io.StringIO()
    with Display(Console(file=log), Budget()) as display:
        for progress in AGAIN:
            display.progress(progress)
    assert log.getvalue().splitlines() == [
        "  waiting for the board, held by ann",
        "  no connection to pi4, trying again",
    ]


def test_a_measurement_without_a_terminal_says_where_a_waiting_begins(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stderr", io.StringIO())

    def carry_out(watch: Any) -> list[Nothing]:
        for progress in AGAIN:
            watch(progress)
        return [Nothing()]

    assert print_measurements(carry_out, json=True) == 0
    assert sys.stderr.getvalue().splitlines() == [  # type: ignore[attr-defined]
        "waiting for the board, held by ann",
        "no connection to pi4, trying again",
    ]
