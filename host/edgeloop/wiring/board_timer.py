"""Timing candidates of schedules on a board: one more kind of session of the same jobs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgeloop.analysis.plans import job_deadline_s
from edgeloop.core.artifact import Artifact
from edgeloop.core.board import Board
from edgeloop.core.frozen import key_of
from edgeloop.core.measurement import MeasureRequest, ScheduleStep, Subject
from edgeloop.core.plan import Environment, Plan
from edgeloop.errors import BuildError
from edgeloop.ports import Bench, Watch

_LABEL = "candidates"


class BoardTimer:
    """A `ports.FunctionTimer` over a bench; raw samples stay in a folder for each library."""

    def __init__(
        self,
        bench: Bench,
        engine: str,
        folder: Path,
        environment: Environment,
        watch: Watch,
    ) -> None:
        self._bench = bench
        self._engine = engine
        self._folder = folder
        # What is compared is interleaved within one session, and needs no board at rest.
        self._environment = environment.model_copy(update={"throttling": "allow"})
        self._watch = watch

    @property
    def board(self) -> Board:
        return self._bench.board

    def time(self, library: Artifact) -> NDArray[np.int64]:
        plan = Plan.of("quick")
        key = key_of("tuning", library.sha256, plan, self._environment, self.board.name)
        waiting_s = self._environment.on(self.board.environment).waiting_s_max
        request = MeasureRequest(
            key=key,
            subjects=(Subject(_LABEL, library, engine=self._engine),),
            schedule=(ScheduleStep(0, _LABEL, "tune"),),
            plan=plan,
            environment=self._environment,
            folder=self._folder / key[:32],
            deadline_s=job_deadline_s(plan, 1, 0, waiting_s=waiting_s),
        )
        (session,) = self._bench.measure(request, self._watch).sessions
        if session.functions_ns is None:
            raise BuildError(
                f"tuning on {self.board.name}: the session {session.outcome}: {session.detail}",
                next_step="look into the job's agent.log there, or leave [tuning] out",
            )
        return session.functions_ns
