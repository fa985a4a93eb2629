"""The ledger on disk and the one in memory keep the same contract."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeloop.records.ledger import FileLedger
from edgeloop.testing.contracts.ledger import LedgerContract, Reopen
from edgeloop.testing.fakes.clock import FakeClock
from edgeloop.testing.fakes.memory_ledger import MemoryLedger


class TestFileLedger(LedgerContract):
    @pytest.fixture
    def reopen(self, tmp_path: Path) -> Reopen:
        return lambda clock: FileLedger(tmp_path / "run", clock)


class TestMemoryLedger(LedgerContract):
    @pytest.fixture
    def reopen(self) -> Reopen:
        opened: list[MemoryLedger] = []

        def go_on(clock: FakeClock) -> MemoryLedger:
            opened.append(MemoryLedger(clock, opened[-1].entries() if opened else ()))
            return opened[-1]

        return go_on
