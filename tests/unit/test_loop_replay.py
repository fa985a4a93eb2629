"""What is in the ledger is not done again."""

from edgeloop.core.events import Judgement
from edgeloop.core.plan import Plan
from edgeloop.core.verdict import Outcome, Verdict
from edgeloop.loop.replay import EventReplay
from edgeloop.ports import Progress
from edgeloop.testing.fakes.clock import FakeClock
from edgeloop.testing.fakes.memory_ledger import MemoryLedger


class _Quiet:
    def entry(self, entry: object) -> None: ...
    def stage(self, trial: int, what: str) -> None: ...
    def progress(self, progress: Progress) -> None: ...


def judged(trial: int, job_key: str) -> Judgement:
    return Judgement(
        trial=trial,
        job_key=job_key,
        target="board",
        split="validation",
        plan=Plan.of("standard"),
        look=1,
        summary=None,
        reference=None,
        trust=None,
        verdict=Verdict(outcome=Outcome.FAIL),
        seconds=12.0,
    )


def test_a_measurement_of_the_very_same_file_is_written_down_for_the_other_trial_too() -> None:
    ledger = MemoryLedger(FakeClock())
    memo = EventReplay(ledger, _Quiet())
    memo.append(judged(1, "job"))
    assert memo.judgement_of(2, "other job") is None
    found = memo.judgement_of(2, "job")
    assert found == judged(1, "job").model_copy(update={"trial": 2, "seconds": 0.0})
    assert memo.judgement_of(1, "job") == judged(1, "job")
    assert [entry.event.trial for entry in ledger.entries()] == [1, 2]  # type: ignore[union-attr]
    # a resumed run finds both, and writes neither again
    again = EventReplay(ledger, _Quiet())
    assert again.judgement_of(2, "job") == found
    assert len(ledger.entries()) == 2
