"""The ledger as a memory of steps: what was done is not done again.

A resumed run walks the same path, since every choice depends on recorded results alone; each step asks here
first and is carried out only where the ledger has no event for it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from edgeloop.core.events import (
    ArtifactBuilt,
    Event,
    JobIntended,
    Judgement,
    NetworkTrained,
    RunFinished,
    RunStarted,
    SearchMoved,
    SessionSeen,
    Trial,
    TrialAsked,
    TrialErrored,
    fold,
)
from edgeloop.errors import HarnessError
from edgeloop.ports import Ledger, Observer

_E = TypeVar("_E", bound=Event)


def step_of(event: Event) -> tuple[str, str]:
    """Return the kind and the step of an event, which are equal on every walk."""
    match event:
        case RunStarted() | RunFinished():
            return event.kind, ""
        case SessionSeen():
            return event.kind, f"{event.job_key}/{event.index}"
        case JobIntended():
            return event.kind, event.job_key
        case Judgement():
            return event.kind, f"{event.trial}/{event.job_key}"
        case TrialAsked() | NetworkTrained() | ArtifactBuilt() | TrialErrored() | SearchMoved():
            return event.kind, str(event.trial)


class EventReplay:
    """Appends events, remembers those of earlier walks, and knows what has been spent."""

    def __init__(self, ledger: Ledger, observer: Observer) -> None:
        self._ledger = ledger
        self._observer = observer
        entries = ledger.entries()
        self._events = {step_of(entry.event): entry.event for entry in entries}
        self._order = [entry.event for entry in entries]

    @property
    def wall_s(self) -> float:
        """Wall-clock seconds spent on this run, earlier walks included."""
        return self._ledger.wall_s_spent

    def find(self, kind: type[_E], step: str) -> _E | None:
        """The recorded event of a step, or None. Raises HarnessError where the ledger holds something else there."""
        event = self._events.get((str(kind.model_fields["kind"].default), step))
        if event is not None and not isinstance(event, kind):
            raise HarnessError(f"ledger: step {step} is a {event.kind}, a {kind.__name__} was expected")
        return event

    def judgement_of(self, trial: int, job_key: str) -> Judgement | None:
        """The judgement of a measurement, or None.

        What was judged for another trial is judged for this one too, and written down for it: an equal key says that
        it is the very same file, as where two rungs turned out to lighten the same layers.
        """
        own = self.find(Judgement, f"{trial}/{job_key}")
        if own is not None:
            return own
        other = next((e for e in self._order if isinstance(e, Judgement) and e.job_key == job_key), None)
        if other is None:
            return None
        same = other.model_copy(update={"trial": trial, "seconds": 0.0})
        self.append(same)
        return same

    def once(self, kind: type[_E], step: int | str, make: Callable[[], _E]) -> _E:
        """The recorded event of a step; where there is none, make it and append it."""
        earlier = self.find(kind, str(step))
        if earlier is not None:
            return earlier
        event = make()
        self.append(event)
        return event

    def append(self, event: Event) -> None:
        """Append an event, unless this very step is recorded already."""
        if step_of(event) in self._events:
            return
        entry = self._ledger.append(event)
        self._events[step_of(event)] = event
        self._order.append(event)
        self._observer.entry(entry)

    def trials(self) -> list[Trial]:
        """Return every trial as the events so far make it."""
        return fold(self._order)
