"""Figures of the caller's own through the real controller: what they end a run with, and what goes on after a cut."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeloop.core.campaign import Campaign
from edgeloop.core.events import Entry, RunFinished, Trial, fold
from edgeloop.core.network import Candidate
from edgeloop.core.verdict import Outcome
from edgeloop.errors import UserError
from edgeloop.loop.controller import Controller
from edgeloop.loop.external_measurements import ExternalMeasurement, TimedSession
from edgeloop.records import external_reference
from edgeloop.testing.fakes.memory_ledger import MemoryLedger
from edgeloop.testing.fakes.simulated_adapters import SimulatedWorkshop, simulated_run
from edgeloop.testing.fakes.simulated_board import Truth

FAST = [TimedSession([1_000_000 + n] * 60, load_ns=1, first_ns=1) for n in range(8)]


def figures(accuracy: float, n: int = 4000) -> ExternalMeasurement:
    return ExternalMeasurement(20_000, FAST, {"top1": np.arange(n) < accuracy * n})


def campaign(*limits: dict[str, Any]) -> Campaign:
    return Campaign.model_validate(
        {
            "schema": 1,
            "name": "own",
            "targets": ["simulated"],
            "limits": {"limit": list(limits)},
            "reference": {"family": "ds_cnn"},
            "search": {"widths": [1.41, 2.0], "lightenings": ["w8a8"]},
            "plan": {"profile": "standard"},
        }
    )


def controller(what: Campaign, earlier: Iterable[Entry] = (), **own: Any) -> tuple[Controller, MemoryLedger]:
    def truth(_: Candidate) -> Truth:
        raise AssertionError("no board measures here")

    return simulated_run(what, SimulatedWorkshop(what.limits, truth), earlier, **own)


def told(what: Campaign, validation: float, test: float) -> tuple[RunFinished, list[Trial]]:
    """The end of a run whose candidates all have these accuracies, and its candidates."""
    run, ledger = controller(what)
    while (trial := run.ask()) is not None:
        run.judge_external(trial, figures(validation), figures(test))
        run.tell(trial)
    trials = fold(entry.event for entry in ledger.entries())
    return run.finish(), [trial for trial in trials if trial.role == "candidate"]


def test_a_candidate_that_failed_has_no_look_at_test_data_however_good_its_figures_there_are() -> None:
    for test in (0.99, 0.5):
        end, candidates = told(campaign({"metric": "top1", "min_fraction": 0.9}), validation=0.8, test=test)
        assert end.exit_code == 1
        assert end.sentence.startswith("none passed; the limits are infeasible in this search")
        assert "nearest miss" in end.sentence
        assert [trial.outcome for trial in candidates] == [Outcome.FAIL, Outcome.FAIL]
        assert all(judged.split == "validation" for trial in candidates for judged in trial.judgements)


def test_a_candidate_that_is_confirmed_has_its_one_look() -> None:
    limit = {"metric": "top1", "min_fraction": 0.9}
    assert told(campaign(limit), validation=0.95, test=0.95)[0].exit_code == 0
    refuted = told(campaign(limit), validation=0.95, test=0.8)[0]
    assert refuted.exit_code == 1
    assert "was confirmed on validation data and is FAIL on test data" in refuted.sentence


def test_m1_is_told_once_and_candidates_of_a_resumed_run_are_judged_beside_what_was_told(tmp_path: Path) -> None:
    what = campaign({"metric": "top1", "max_drop_from_reference": 0.02})
    first, ledger = controller(what, keep_external_m1=lambda given: external_reference.write(given, tmp_path))
    m1 = first.ask()
    assert m1 is not None
    first.judge_external(m1, figures(0.95), figures(0.94))
    first.tell(m1)

    kept = external_reference.read(tmp_path)
    assert list(kept) == ["validation", "test"]
    again, _ = controller(what, ledger.entries(), external_m1=kept)
    trial = again.ask()
    assert trial is not None
    assert trial.role == "candidate"
    judged = again.judge_external(trial, figures(0.90), None).judgements[0]
    assert judged.verdict.outcome is Outcome.FAIL, "0.90 is more than 0.02 under the 0.95 that was told before the cut"
    assert judged.reference is not None


def test_figures_of_m1_that_were_kept_and_not_judged_are_asked_again(tmp_path: Path) -> None:
    what = campaign({"metric": "top1", "max_drop_from_reference": 0.02})
    external_reference.write({"validation": figures(0.95)}, tmp_path)
    run, _ = controller(what, external_m1=external_reference.read(tmp_path))
    asked = run.ask()
    assert asked is not None
    assert asked.role == "reference"


def test_what_was_kept_of_m1_and_is_damaged_is_named_with_what_to_do(tmp_path: Path) -> None:
    external_reference.write({"validation": figures(0.95)}, tmp_path)
    file = tmp_path / external_reference.FILE
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(UserError, match=r"own-m1\.npz: what was told of M1 can't be read again") as caught:
        external_reference.read(tmp_path)
    assert caught.value.next_step == "put it back, or begin another study with out="
