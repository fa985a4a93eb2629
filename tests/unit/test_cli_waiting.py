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

SAID = ("connecting", "waiting for the board, held by ann", "waiting for the board, held by bob", "measuring")
AGAIN = (*SAID, "no connection to pi4, trying again", "measuring")


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
        for what in AGAIN:
            display.progress(what, 0, 8)
    assert log.getvalue().splitlines() == [
        "  waiting for the board, held by ann",
        "  no connection to pi4, trying again",
    ]


def test_a_measurement_without_a_terminal_says_where_a_waiting_begins(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stderr", io.StringIO())

    def carry_out(watch: Any) -> list[Nothing]:
        for what in AGAIN:
            watch(what, 0, 8)
        return [Nothing()]

    assert print_measurements(carry_out, json=True) == 0
    assert sys.stderr.getvalue().splitlines() == [  # type: ignore[attr-defined]
        "waiting for the board, held by ann",
        "no connection to pi4, trying again",
    ]
