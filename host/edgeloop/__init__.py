"""edgeloop: finds a neural network that proves itself on the board.

What the command line does, for programs: `run` carries out a campaign, `Study` leaves the loop to the caller,
`measure` measures a ready model. Importing this package imports none of it: each name is loaded when it is used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgeloop.app.measure import MeasurementResult, measure
    from edgeloop.app.request import PlanWords
    from edgeloop.app.run_result import RunResult
    from edgeloop.app.study import Study, run
    from edgeloop.config.campaign_file import load_campaign
    from edgeloop.core.campaign import Campaign
    from edgeloop.core.events import Trial
    from edgeloop.core.network import Candidate
    from edgeloop.core.verdict import Finding, Outcome, Verdict
    from edgeloop.errors import EdgeloopError
    from edgeloop.loop.external_measurements import ExternalMeasurement, TimedSession

__version__ = "0.1.0"
__all__ = [
    "Campaign",
    "Candidate",
    "EdgeloopError",
    "ExternalMeasurement",
    "Finding",
    "MeasurementResult",
    "Outcome",
    "PlanWords",
    "RunResult",
    "Study",
    "TimedSession",
    "Trial",
    "Verdict",
    "__version__",
    "load_campaign",
    "measure",
    "run",
]

_HOME = {
    "Campaign": "core.campaign",
    "Candidate": "core.network",
    "EdgeloopError": "errors",
    "ExternalMeasurement": "loop.external_measurements",
    "Finding": "core.verdict",
    "MeasurementResult": "app.measure",
    "Outcome": "core.verdict",
    "PlanWords": "app.request",
    "RunResult": "app.run_result",
    "Study": "app.study",
    "TimedSession": "loop.external_measurements",
    "Trial": "core.events",
    "Verdict": "core.verdict",
    "load_campaign": "config.campaign_file",
    "measure": "app.measure",
    "run": "app.study",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'edgeloop' has no attribute {name!r}")
    return getattr(import_module(f"edgeloop.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
