"""Samples that an earlier version wrote are read, and judged as they were: by the records, without a board."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np

from edgeloop.analysis.conditions import digest
from edgeloop.analysis.trust import trust
from edgeloop.core.board import BoardEnvironment
from edgeloop.core.plan import Environment
from edgeloop.records.samples import AttemptFolder

FOLDER = Path(__file__).parents[1] / "data/samples-schema-1"


def test_samples_of_schema_1_are_read_and_judged_as_they_were() -> None:
    attempt = AttemptFolder(FOLDER / "attempt-0").read()
    expected = json.loads((FOLDER / "expected.json").read_text())
    declared = Environment(clock="fixed", governor="performance", start_temperature_max_c=50)
    trusted = trust(attempt.sessions, declared, BoardEnvironment(), profile="qualification")
    assert trusted.model_dump(mode="json") == expected["trust"]
    assert digest(attempt.sessions).entries() == expected["digest"]
    assert list(digest(attempt.sessions).entries()) == list(expected["digest"])
    medians = [
        float(np.median(session.latencies_ns)) if len(session.latencies_ns) else None for session in attempt.sessions
    ]
    assert medians == expected["medians_ns"]
    np.testing.assert_array_equal(attempt.outputs["candidate"]["y"], np.array(expected["outputs"], np.float32))


def test_conditions_are_written_back_as_they_came() -> None:
    for session in AttemptFolder(FOLDER / "attempt-0").read().sessions:
        raw = (FOLDER / f"attempt-0/sessions/{session.index:03d}.json").read_bytes()
        assert session.conditions.model_dump(mode="json") == json.loads(raw)["conditions"]


def test_reading_samples_needs_neither_the_board_room_nor_the_agent() -> None:
    script = (
        "import sys; from pathlib import Path; from edgeloop.records.samples import AttemptFolder; "
        "AttemptFolder(Path(sys.argv[1])).read(); "
        "print([name for name in sys.modules if name.startswith(('edgeloop.board', 'edgeloop_agent', 'paramiko'))])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(FOLDER / "attempt-0")], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
