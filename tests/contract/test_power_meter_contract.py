"""The meter that is a command, and the fake one, keep the same contract. A board's own sensor is read by its agent."""

from __future__ import annotations

import sys

import pytest

from edgeloop.board.meter import CommandMeter
from edgeloop.core.board import PowerMeterSpec
from edgeloop.testing.contracts.power_meter import Now, PowerMeterContract
from edgeloop.testing.fakes.clock import FakeClock
from edgeloop.testing.fakes.power_meter import FakePowerMeter

STEADY = "import time\nwhile True: print(2.5, flush=True); time.sleep(0.02)"
STAMPED = "import time\nwhile True: print(time.monotonic() - 1000, 2.5, flush=True); time.sleep(0.02)"
ENDING = "import time\nfor _ in range(5): print(2.5, flush=True); time.sleep(0.02)"


def meter_of(script: str) -> CommandMeter:
    return CommandMeter(PowerMeterSpec(command=(sys.executable, "-c", script), accuracy_pct=1.0))


class TestCommandMeter(PowerMeterContract):
    @pytest.fixture(params=[STEADY, STAMPED], ids=["without a clock of its own", "with one"])
    def meter(self, request: pytest.FixtureRequest) -> CommandMeter:
        return meter_of(request.param)

    @pytest.fixture
    def ending_meter(self) -> CommandMeter:
        return meter_of(ENDING)


class TestFakePowerMeter(PowerMeterContract):
    @pytest.fixture
    def clock(self) -> FakeClock:
        return FakeClock(monotonic_s=5000)

    @pytest.fixture
    def now_s(self, clock: FakeClock) -> Now:
        return clock.monotonic_s

    @pytest.fixture
    def meter(self, clock: FakeClock) -> FakePowerMeter:
        return FakePowerMeter(clock)

    @pytest.fixture
    def ending_meter(self, clock: FakeClock) -> FakePowerMeter:
        return FakePowerMeter(clock, ends_after_s=0.1)
