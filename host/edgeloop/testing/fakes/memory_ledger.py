"""A ledger without a file, held to the same contract as the one on disk."""

from __future__ import annotations

from collections.abc import Iterable

from edgeloop.core.events import Entry, Event
from edgeloop.ports import Clock
from edgeloop.records.ledger import Accounts


class MemoryLedger:
    """Keeps entries as the JSON lines they would be on disk; give `entries` of an earlier one to go on with it."""

    def __init__(self, clock: Clock, entries: Iterable[Entry] = ()) -> None:
        self._lines = [entry.model_dump_json() for entry in entries]
        before = self.entries()
        self._accounts = Accounts(clock, before[-1] if before else None)

    def append(self, event: Event) -> Entry:
        entry = self._accounts.next(event)
        self._accounts.book(entry)
        self._lines.append(entry.model_dump_json())
        return entry

    def entries(self) -> list[Entry]:
        return [Entry.model_validate_json(line) for line in self._lines]

    @property
    def wall_s_spent(self) -> float:
        return self._accounts.wall_s_spent

    def close(self) -> None:
        """Nothing to let go of."""
