"""edgeloop: finds a neural network that proves itself on the board.

What the command line does, for programs: `run` carries out a campaign, `Study` leaves the loop to the caller,
`measure` measures a ready model. Importing this package imports none of it: each name is loaded when it is used.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgeloop.bootstrap.files import load_campaign
    from edgeloop.bootstrap.measuring import Measured, measure
    from edgeloop.bootstrap.ready import PlanWords
    from edgeloop.bootstrap.running import RunResult
    from edgeloop.bootstrap.study import Study, run
    from edgeloop.core.campaign import Campaign
    from edgeloop.core.events import Trial
    from edgeloop.core.network import Candidate
    from edgeloop.core.verdict import Finding, Outcome, Verdict
    from edgeloop.errors import EdgeloopError
    from edgeloop.method.own import Figures, TimedSession

__version__ = "0.1.0"
__all__ = [
    "Campaign",
    "Candidate",
    "EdgeloopError",
    "Figures",
    "Finding",
    "Measured",
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
    "Figures": "method.own",
    "Finding": "core.verdict",
    "Measured": "bootstrap.measuring",
    "Outcome": "core.verdict",
    "PlanWords": "bootstrap.ready",
    "RunResult": "bootstrap.running",
    "Study": "bootstrap.study",
    "TimedSession": "method.own",
    "Trial": "core.events",
    "Verdict": "core.verdict",
    "load_campaign": "bootstrap.files",
    "measure": "bootstrap.measuring",
    "run": "bootstrap.study",
}


class _Package(ModuleType):
    """Keeps `edgeloop.measure` callable: the room `edgeloop/measure/` has the name of the command.

    Whoever imports a module of the room makes Python bind the room to that name. It then stays a module, and calling
    it is calling the command.
    """

    def __setattr__(self, name: str, value: object) -> None:
        if name == "measure" and isinstance(value, ModuleType):
            value.__class__ = _MeasureRoom
        super().__setattr__(name, value)


class _MeasureRoom(ModuleType):
    def __call__(self, *arguments: Any, **options: Any) -> Any:
        return import_module("edgeloop.bootstrap.measuring").measure(*arguments, **options)


sys.modules[__name__].__class__ = _Package


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'edgeloop' has no attribute {name!r}")
    return getattr(import_module(f"edgeloop.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
