"""Networks, trainer, builder and bench of a whole run, simulated: the real controller and the real judge over a table.

Nothing is trained, built or timed: a candidate's latency, accuracy, bytes, memory and energy come from its `Truth`,
sessions and outputs are made up to fit. Accuracy is exact on the samples (write limits on it with
`about = "this_set"`); session medians and powers spread by 0.3 % to each side, so a limit within about 1 % of the truth
may stay undecided.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeloop.analysis.scoring import Scorer
from edgeloop.core.artifact import Artifact
from edgeloop.core.board import Board, BoardModel
from edgeloop.core.campaign import Campaign, Data, Task
from edgeloop.core.conditions import ConditionSample, SessionConditions, ThrottleFlags
from edgeloop.core.dataset import DataSet, DataSplit
from edgeloop.core.events import Entry, RunFinished
from edgeloop.core.frozen import key_of
from edgeloop.core.measurement import Arrays, Attempt, MeasureRequest, PowerTrace, ScheduleStep, Session, Subject
from edgeloop.core.network import Candidate, NetworkSizes, NetworkSpec
from edgeloop.core.plan import Plan
from edgeloop.core.tensors import TensorSpec
from edgeloop.core.verdict import Outcome
from edgeloop.errors import BuildError, DataError, ModelError, UserError
from edgeloop.loop.adapters import Adapters, ExternalMeasurements, RunFacts, SizesOf
from edgeloop.loop.controller import Controller
from edgeloop.loop.measure_and_judge import MeasurementPolicy
from edgeloop.loop.replay import EventReplay
from edgeloop.ports import Progress, Strategy, TrainedNetwork, TrainingJob, TrainingProgress, Watch
from edgeloop.search.space import SearchSpace
from edgeloop.search.strategies import strategy_for
from edgeloop.testing.fakes.clock import FakeClock
from edgeloop.testing.fakes.memory_ledger import MemoryLedger
from edgeloop.testing.fakes.simulated_board import Truth, simulated_sizes

SAMPLES = 100
"""Of the validation data and of the test data each."""
RUNS = 40
"""Timed runs of a session: enough for a p90."""
CLASSES = 4
BOARD = Board(name="simulated", model=BoardModel(schema=1, name="simulated"), kind="local")
_SPREAD = 0.003
_SECONDS = {"quick": 20.0, "standard": 60.0, "qualification": 200.0}


def simulated_data(samples: int = SAMPLES) -> DataSet:
    """Data whose sample n says that it is sample n; labels go round."""

    def split() -> DataSplit:
        at = np.arange(samples)
        return DataSplit({"x": at.reshape(-1, 1).astype(np.float32)}, {"y": at % CLASSES})

    return DataSet(train=split(), validation=split(), calibration=split(), test=split(), sha256="0" * 64)


@dataclass
class SimulatedWorkshop:
    """ports.Networks, Trainer, Builder, Bench and Observer in one. Records what was asked of it."""

    truth: Callable[[Candidate], Truth]
    faults: Mapping[str, Outcome | str] = field(default_factory=dict)
    """By `str(candidate)`: `train` (the user's code fails) and `build` (the converter fails), both of a candidate with
    the first engine and one thread, `refused` (by the engine), ERROR (every session crashes), INVALID (throttled),
    INCONCLUSIVE (sessions that differ twenty-five-fold around `undecided_ms`)."""
    undecided_ms: float = 1.0
    """Where a latency limit lies that INCONCLUSIVE candidates can't be told from."""
    clock: FakeClock = field(default_factory=FakeClock)
    board: Board = field(default_factory=lambda: BOARD)
    measurements: list[tuple[str, str, int]] = field(default_factory=list)
    """(candidate, profile, samples evaluated) of every job that was measured."""
    _networks: dict[str, tuple[NetworkSpec, str]] = field(default_factory=dict)

    # ports.Networks

    def describe(self, network: NetworkSpec, task: Task, data: Data, channel_multiple: int) -> NetworkSizes:  # noqa: ARG002
        if network.factory is not None:
            raise UserError(f"{network.factory}: a simulated workshop runs no user's code")
        return simulated_sizes(network)

    # ports.Trainer

    def key(self, job: TrainingJob | TrainedNetwork, lightening: str = "") -> str:
        """Of a training, or of a build: ports.Trainer and ports.Builder both have it."""
        if isinstance(job, TrainedNetwork):
            return key_of("built", job.key, lightening)
        return key_of("trained", job)

    def submit(self, job: TrainingJob, progress: TrainingProgress) -> Future[TrainedNetwork]:  # noqa: ARG002
        future: Future[TrainedNetwork] = Future()
        if self.faults.get(str(Candidate(network=job.network, lightening=job.lightening))) == "train":
            future.set_exception(UserError("the simulated user's code failed"))
            return future
        key = self.key(job)
        self._networks[key] = (job.network, job.lightening)
        future.set_result(TrainedNetwork(key=key, folder=f"/simulated/{key}", seconds=0, epochs=1, validation={}))
        return future

    def abandon(self, keep: str) -> None:
        """Nothing runs."""

    # ports.Builder

    def build(self, trained: TrainedNetwork, lightening: str) -> Artifact:
        network, _ = self._networks[trained.key]
        candidate = Candidate(network=network, lightening=lightening)
        if self.faults.get(str(candidate)) == "build":
            raise BuildError("the simulated converter failed")
        sha256 = key_of("file", trained.key, lightening)
        self._networks[sha256] = (network, lightening)
        return Artifact(
            path=f"/simulated/{sha256}",
            sha256=sha256,
            deployed_bytes=self.truth(candidate).deployed_bytes,
            inputs=(TensorSpec(name="x", dtype="float32", shape=(1, 1)),),
            outputs=(TensorSpec(name="y", dtype="float32", shape=(1, CLASSES)),),
        )

    def warm_up(self) -> None:
        """There is nothing to start."""

    def predict(self, artifact: Artifact, inputs: Arrays) -> dict[str, NDArray[Any]]:
        if "x" not in inputs:
            raise DataError(f"{artifact.path}: no data for input x; given: {', '.join(inputs)}")
        network, lightening = self._networks[artifact.sha256]
        return self._outputs(Candidate(network=network, lightening=lightening), inputs["x"])

    # ports.Bench

    def facts(self) -> Mapping[str, Any]:
        return {}

    def measure(self, request: MeasureRequest, watch: Watch) -> Attempt:  # noqa: ARG002
        self.clock.advance(_SECONDS[request.plan.profile])
        subjects = {subject.label: subject for subject in request.subjects}
        samples = int(str(request.data).rpartition("-")[2])
        candidate = self._candidate(subjects["candidate"])
        self.measurements.append((str(candidate), request.plan.profile, samples))
        if self.faults.get(str(candidate)) == "refused":
            raise ModelError("the simulated engine refuses the model")
        inputs = np.arange(samples).reshape(-1, 1)
        return Attempt(
            job_id=request.key[:16],
            target=self.board.name,
            board_model=self.board.model.name,
            emulated=False,
            engine_versions={},
            sessions=tuple(self._session(step, subjects[step.label], request) for step in request.schedule),
            outputs={
                step.label: self._outputs(self._candidate(subjects[step.label]), inputs)
                for step in request.schedule
                if step.kind == "evaluate"
            },
            facts={},
        )

    def close(self) -> None:
        """Nothing is open."""

    # ports.Observer

    def stage(self, trial: int, what: str) -> None: ...

    def progress(self, progress: Progress) -> None: ...

    def entry(self, entry: Entry) -> None: ...

    # made up to fit

    def _candidate(self, subject: Subject) -> Candidate:
        network, lightening = self._networks[subject.artifact.sha256]
        return Candidate(
            network=network,
            lightening=lightening,
            engine=subject.engine,
            threads=subject.threads,
            delegate=None if subject.delegate is None else subject.delegate.name,
        )

    def _session(self, step: ScheduleStep, subject: Subject, request: MeasureRequest) -> Session:
        candidate = self._candidate(subject)
        truth, fault = self.truth(candidate), self.faults.get(str(candidate))
        # Not by the request's key, which is another one in every run: one interval in twenty misses the truth.
        place = f"{subject.artifact.sha256}/{request.plan!r}/{request.data}/{step.index}"
        draw = np.random.default_rng(int(hashlib.sha256(place.encode()).hexdigest()[:8], 16))
        median_ns = truth.latency_ms * 1e6 * (1 + _SPREAD * draw.uniform(-1, 1))
        if fault is Outcome.INCONCLUSIVE:
            median_ns = self.undecided_ms * 1e6 * (5.0 if step.index % 2 else 0.2)
        crashes = fault is Outcome.ERROR
        flags = ThrottleFlags(now=("throttled",) if fault is Outcome.INVALID else (), sticky=())
        sample = ConditionSample(throttle_flags=flags)
        latencies_ns = np.full(0 if crashes or step.kind != "latency" else RUNS, median_ns).astype(np.int64)
        return Session(
            index=step.index,
            label=step.label,
            kind=step.kind,
            outcome="crashed" if crashes else "ok",
            detail="killed by SIGSEGV" if crashes else "",
            latencies_ns=latencies_ns,
            warmups_ns=latencies_ns[:0],
            load_ns=None if crashes else 1_000_000,
            first_ns=None if crashes else int(3 * median_ns),
            peak_rss_bytes=None if crashes else truth.peak_rss_bytes,
            runtime_rss_bytes=None if crashes else truth.peak_rss_bytes // 2,
            conditions=SessionConditions(before=sample, after=sample),
            boot_id="b",
            power=None if crashes or step.kind != "energy" else _trace(truth, request.plan, draw.uniform(-1, 1)),
        )

    def _outputs(self, candidate: Candidate, inputs: NDArray[Any]) -> dict[str, NDArray[Any]]:
        """Logits that are right in the share of samples that the truth says, spread evenly over them."""
        at = inputs.reshape(-1).astype(np.int64)
        right = np.floor((at + 1) * self.truth(candidate).accuracy) > np.floor(at * self.truth(candidate).accuracy)
        answers = (at + np.where(right, 0, 1)) % CLASSES
        return {"y": np.eye(CLASSES, dtype=np.float32)[answers]}


def _trace(truth: Truth, plan: Plan, draw: float) -> PowerTrace:
    """Steady power in both windows, a third of the energy above idle. Without a power meter nothing is recorded."""
    period_s, window_s = (plan.period_ms or truth.latency_ms) / 1000, plan.energy_window_s
    seconds = np.linspace(0.0, 2 * window_s, 201)
    active_w = (truth.energy_mj or 0.0) / 1000 / period_s * (1 + _SPREAD * draw)
    return PowerTrace(
        seconds=seconds,
        watts=np.where(seconds <= window_s, active_w * 2 / 3, active_w),
        idle_s=(0.0, window_s - 1e-9),
        active_s=(window_s + 1e-9, 2 * window_s),
        inferences=round(window_s / period_s),
        period_ms=plan.period_ms,
        meter="simulated",
        accuracy_pct=0.1,
        lost="" if truth.energy_mj is not None else "the simulated board has no power meter",
    )


def simulated_run(
    campaign: Campaign,
    workshop: SimulatedWorkshop,
    earlier: Iterable[Entry] = (),
    *,
    external_m1: ExternalMeasurements | None = None,
    keep_external_m1: Callable[[ExternalMeasurements], None] = lambda _measurements: None,
) -> tuple[Controller, MemoryLedger]:
    """Return a campaign's controller over a simulated workshop, going on from `earlier` entries, and its ledger.

    `external_m1` and `keep_external_m1` are those of `loop.adapters`.
    """
    ledger = MemoryLedger(workshop.clock, earlier)
    replay = EventReplay(ledger, workshop)
    scorer = Scorer(campaign.task)

    larger = campaign.reference.larger
    assert isinstance(larger, str), "a list names files, which a simulated workshop does not read"

    def strategy(m1: NetworkSpec, sizes: NetworkSizes, m1_bytes: int, sizes_of: SizesOf) -> Strategy:
        space = SearchSpace(
            search=campaign.search,
            m1=m1,
            m1_sizes=sizes,
            m1_lightening=campaign.reference.lightening,
            m1_setting=campaign.reference.setting,
            m1_bytes=m1_bytes,
            larger=larger,
            teacher=campaign.training.teacher,
            limits=campaign.limits,
            sizes_of=sizes_of,
        )
        return strategy_for(space, campaign.limits, lower_is_better=scorer.lower_is_better)

    policy = MeasurementPolicy(
        campaign=campaign,
        data=simulated_data(),
        scorer=scorer,
        pipeline=None,
        samples=Path("/simulated/samples"),
        board_data=lambda _split, name: Path(f"/simulated/{name}"),
        replay=replay,
        clock=workshop.clock,
        observer=workshop,
    )
    adapters = Adapters(
        networks=workshop,
        trainer=workshop,
        builder_for=lambda _engine, _board: workshop,
        benches=[workshop],
        clock=workshop.clock,
        observer=workshop,
        strategy=strategy,
        has_room=lambda: True,
        keep_external_m1=keep_external_m1,
    )
    facts = RunFacts(
        campaign_key="simulated",
        versions={},
        data_sha256="0" * 64,
        channel_multiple=4,
        lower_is_better=scorer.lower_is_better,
        external_m1=external_m1 or {},
    )
    m1 = NetworkSpec(family=campaign.reference.family, width=campaign.reference.width)
    return Controller(campaign, m1, adapters, facts, replay=replay, policy=policy), ledger


def walk(controller: Controller) -> RunFinished:
    """Ask, carry out and tell to the end, as `edgeloop run` does."""
    try:
        while (trial := controller.ask()) is not None:
            controller.tell(controller.carry_out(trial))
        return controller.finish()
    finally:
        controller.close()
