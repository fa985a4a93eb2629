"""The contract of every Ledger. Subclass LedgerContract, give it a `reopen` fixture, and run it with pytest.

class TestMyLedger(LedgerContract):
    @pytest.fixture
    def reopen(self):
        ...  # a function: clock -> Ledger that goes on where the one opened before it, if any, was closed
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from edgeloop.core.events import Event, Role, RunFinished, RunStarted, TrialAsked, TrialErrored, fold
from edgeloop.core.network import Candidate, NetworkSizes, NetworkSpec
from edgeloop.errors import Owner
from edgeloop.ports import Ledger
from edgeloop.testing.fakes.clock import FakeClock

Reopen = Callable[[FakeClock], Ledger]


def trial_asked(trial: int, role: Role = "candidate") -> TrialAsked:
    """An event that spends a trial, unless it asks for the reference."""
    return TrialAsked(
        trial=trial,
        role=role,
        candidate=Candidate(network=NetworkSpec(family="ds_cnn", width=1.41), lightening="w8a8"),
        sizes=NetworkSizes(parameters=10, macs=20, layers=(), activations=(4,), peak_activation_elements=4),
        degree=0.75,
        evaluation=None if role == "reference" else 0.5,
        predicted_bytes=None,
        why="for the contract: ünicode, and a line\nbreak",
    )


_STARTED = RunStarted(
    run_id="r", campaign_name="c", campaign_key="0" * 64, versions={"edgeloop": "0"}, targets=("local",)
)
_ERRORED = TrialErrored(trial=1, stage="build", owner=Owner.HARNESS, message="the converter crashed")
_FINISHED = RunFinished(exit_code=1, best=None, sentence="nothing passed")


class LedgerContract:
    """Rules of the Ledger port."""

    @pytest.fixture
    def clock(self) -> FakeClock:
        return FakeClock()

    def test_a_new_ledger_is_empty(self, reopen: Reopen, clock: FakeClock) -> None:
        ledger = reopen(clock)
        assert ledger.entries() == []
        ledger.close()

    def test_entries_come_back_in_the_order_they_were_appended(self, reopen: Reopen, clock: FakeClock) -> None:
        ledger = reopen(clock)
        events: list[Event] = [_STARTED, trial_asked(0, "reference"), trial_asked(1), _ERRORED, _FINISHED]
        entries = [ledger.append(event) for event in events]
        assert ledger.entries() == entries
        assert [entry.event for entry in entries] == events
        assert [entry.seq for entry in entries] == [1, 2, 3, 4, 5]
        ledger.close()

    def test_what_was_appended_is_there_when_reopened_and_numbers_go_on(self, reopen: Reopen, clock: FakeClock) -> None:
        first = reopen(clock)
        before = [first.append(_STARTED), first.append(trial_asked(1))]
        first.close()
        second = reopen(clock)
        assert second.entries() == before
        assert second.append(_FINISHED).seq == 3
        assert [trial.number for trial in fold(entry.event for entry in second.entries())] == [1]
        second.close()

    def test_candidates_are_counted_over_reopenings_and_the_reference_is_free(
        self, reopen: Reopen, clock: FakeClock
    ) -> None:
        first = reopen(clock)
        events: list[Event] = [_STARTED, trial_asked(0, "reference"), trial_asked(1), _ERRORED]
        counts = [first.append(event).trials_spent for event in events]
        assert counts == [0, 0, 1, 1]
        first.close()
        second = reopen(clock)
        assert second.append(trial_asked(2)).trials_spent == 2
        second.close()

    def test_time_is_spent_while_open_and_not_between(self, reopen: Reopen, clock: FakeClock) -> None:
        first = reopen(clock)
        clock.advance(30)
        assert first.append(_STARTED).wall_s_spent == 30
        clock.advance(12)
        assert first.append(trial_asked(1)).wall_s_spent == 42
        first.close()
        clock.advance(100_000)
        later = FakeClock(monotonic_s=5)  # a restart sets monotonic time back
        second = reopen(later)
        later.advance(8)
        assert second.append(_FINISHED).wall_s_spent == 50
        second.close()

    def test_entries_carry_the_time_of_day(self, reopen: Reopen, clock: FakeClock) -> None:
        ledger = reopen(clock)
        clock.advance(61)
        assert ledger.append(_STARTED).utc == "2025-01-01T00:01:01Z"
        ledger.close()

    def test_changing_the_list_of_entries_does_not_change_the_ledger(self, reopen: Reopen, clock: FakeClock) -> None:
        ledger = reopen(clock)
        ledger.append(_STARTED)
        ledger.entries().clear()
        assert len(ledger.entries()) == 1
        ledger.close()

    def test_closing_twice_does_no_harm(self, reopen: Reopen, clock: FakeClock) -> None:
        ledger = reopen(clock)
        ledger.close()
        ledger.close()
