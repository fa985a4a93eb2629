"""A plan before it is carried out: the order of its sessions, its cost, and the limits it can't decide."""

from __future__ import annotations

import difflib
import math
import random
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from edgeloop.analysis.accuracy import tango_bound
from edgeloop.analysis.percentiles import samples_needed
from edgeloop.analysis.statistics import PERCENT, share_bound, split_confidence
from edgeloop.core.limits import Limit, LimitSet
from edgeloop.core.measurement import ScheduleStep, StepKind
from edgeloop.core.metric import Estimator
from edgeloop.core.metrics import METRICS, limitable
from edgeloop.core.plan import ENERGY_PERIODS_MIN, Plan
from edgeloop.errors import Fault
from edgeloop.sentences import Argument, Sentence

PROCESS_START_S = 0.8
"""Estimate for starting one session: interpreter, numpy, runtime, model, and the calibration loops; a Pi 4 takes
about this long, a desktop half of it."""
SAMPLES_MIN = 30
"""Fewest samples that a bootstrap about the population is let decide on; see docs/results/honesty.md."""
_SAMPLES_MAX = 100_000_000
ENERGY_AROUND_S = 1.4
"""What an energy session does before and after its two windows, beside warming up."""
JOB_DEADLINE_S_MIN = 3600.0
JOB_DEADLINE_FACTOR = 3.0
"""Of the time that a plan is expected to take, what a job may take."""
EXTENSION_SEED = 1000
"""Added to the seed of the interleaving for the second look."""


def schedule(
    labels_latency: Sequence[str],
    labels_evaluate: Sequence[str],
    plan: Plan,
    labels_energy: Sequence[str] = (),
    *,
    labels_profile: Sequence[str] = (),
) -> tuple[ScheduleStep, ...]:
    """Return the sessions in the order they run, with running indices from 0.

    Evaluate sessions come first: a model that the engine refuses, or that gives nonsense, is then known after
    seconds instead of after the whole plan, and the files are in the page cache before anything is timed. Latency
    and energy sessions follow in rounds: each round has every subject of each kind once, in an order drawn from
    `plan.seed`, so that a drift of the board falls on all alike and the k-th sessions of two subjects are neighbours
    in time.
    Raises ValueError for a label that is given twice.
    """
    for labels in (labels_latency, labels_evaluate, labels_energy, labels_profile):
        if len(set(labels)) != len(labels):
            raise ValueError(f"labels of a job are unique, here {', '.join(labels)}")
    # Only random() is promised to give the same numbers on every version of Python; shuffle() is not.
    numbers = random.Random(plan.seed)
    steps = [ScheduleStep(index, label, "evaluate") for index, label in enumerate(labels_evaluate)]
    kinds: list[tuple[str, StepKind]] = [(label, "latency") for label in labels_latency]
    kinds += [(label, "energy") for label in labels_energy]
    for _ in range(plan.sessions):
        for label, kind in sorted(kinds, key=lambda _: numbers.random()):
            steps.append(ScheduleStep(len(steps), label, kind))
    # A profile perturbs what it looks at, so it is a pass of its own after everything that is timed.
    steps += [ScheduleStep(len(steps) + i, label, "profile") for i, label in enumerate(labels_profile)]
    return tuple(steps)


def extension(plan: Plan) -> Plan:
    """Return the plan of the one extension: as many sessions again, interleaved anew."""
    return plan.model_copy(update={"seed": plan.seed + EXTENSION_SEED})


@dataclass(frozen=True, slots=True)
class PlanPreview:
    """The cost of a plan. `samples_per_session` is None where it depends on a latency nobody knows yet."""

    sessions: int
    """Latency sessions of all subjects together."""
    samples_per_session: int | None
    samples_per_session_min: int
    """Of each session at the least, however slow the model is."""
    minutes: float
    """In all, with warm-up and process starts; waiting for a lease or for a board to cool comes on top."""


def preview(
    plan: Plan,
    subjects: int,
    samples_hint: int | None = None,
    latency_hint_ns: float | None = None,
    *,
    energies: int = 0,
) -> PlanPreview:
    """Return samples and minutes for `subjects` models, each evaluated on `samples_hint` samples where given.

    `energies` is how many of them have energy sessions too. Without `latency_hint_ns` the minutes are those of the
    time floor alone: a slow model takes longer.
    """
    latency_s = None if latency_hint_ns is None else latency_hint_ns / 1e9
    step_s = _step_s(plan, latency_s)
    certain = samples_certain(plan)
    samples = None if step_s is None else max(plan.runs_min, math.ceil(plan.time_s_min / step_s))
    timed_s = max(plan.time_s_min, plan.runs_min * (step_s or 0.0))
    warm_up_s = min(plan.warmup_s_max, max(plan.warmup_s_min, plan.warmup_runs_min * (latency_s or 0.0)))
    session_s = min(plan.deadline_s, PROCESS_START_S + warm_up_s + timed_s)
    evaluate_s = PROCESS_START_S + samples_hint * (latency_s or 0.0) if samples_hint else 0.0
    energy_s = min(plan.deadline_s, PROCESS_START_S + warm_up_s + 2 * plan.energy_window_s + ENERGY_AROUND_S)
    total_s = subjects * (plan.sessions * session_s + evaluate_s) + energies * plan.sessions * energy_s
    return PlanPreview(subjects * plan.sessions, samples, certain, total_s / 60)


def job_deadline_s(
    plan: Plan, subjects: int, samples_hint: int | None, *, energies: int = 0, waiting_s: float = 0.0
) -> float:
    """Return how long a job may take, the wait for the board included: slow models and boards take a multiple.

    `waiting_s` is what the declared environment may make it wait on the board itself.
    """
    expected_s = 60 * preview(plan, subjects, samples_hint, energies=energies).minutes
    return max(JOB_DEADLINE_S_MIN, JOB_DEADLINE_FACTOR * expected_s) + waiting_s


def samples_certain(plan: Plan, latency_under_s: float | None = None) -> int:
    """Return how many samples a session is sure to get; more where each inference is known to be under a time."""
    step_s = _step_s(plan, latency_under_s)
    return plan.runs_min if step_s is None else max(plan.runs_min, math.ceil(plan.time_s_min / step_s - 1e-9))


def _step_s(plan: Plan, latency_s: float | None) -> float | None:
    """From one start to the next; with a period, at least the period."""
    if plan.period_ms is None:
        return latency_s
    return max(plan.period_ms / 1000, latency_s or 0.0)


def undecidable(
    limits: LimitSet,
    plan: Plan,
    data_n: int | None,
    has_reference: bool,
    has_labels: bool,
    *,
    metrics: Collection[str] | None = None,
    proportions: Collection[str] = ("top1", "agreement"),
    latency_hint_ns: float | None = None,
    looks: int = 2,
    unmetered: Sequence[str] = (),
) -> list[Fault]:
    """Return a fault for every limit that no result under this plan could pass, or that lacks what it compares with.

    `data_n` is the number of samples scored on the board, None without data. `metrics` are the names that the task
    scores, `proportions` those of them that are a share of samples (judged by Wilson's interval). `looks` as given
    to `verdict.judge`. `unmetered` are the boards without a power meter. An empty list means that every limit can be
    decided.
    """
    faults = []
    for limit in limits.limit:
        where = f"limit {limit.id} ({limit})"
        problem = _lacks(limit, data_n, has_reference, has_labels, metrics)
        if problem is None and limit.row.estimator is Estimator.TIMING:
            problem = _too_few_timings(limit, plan, limits.confidence, latency_hint_ns)
        if problem is None and limit.row.estimator is Estimator.ENERGY:
            problem = _no_energy(limit, plan, unmetered)
        if problem is None and limit.needs_data and limit.about == "population":
            confidence = split_confidence(limits.confidence, 1, looks)
            problem = _too_few_samples(limit, data_n or 0, confidence, limit.metric in proportions)
        if problem is None:
            problem = _impossible(limit, limit.metric in proportions)
        if problem is not None:
            faults.append(Fault(where, *problem))
    return faults


Problem = tuple[str, str]
"""A fault of a limit, and what to try next."""


def _lacks(
    limit: Limit, data_n: int | None, has_reference: bool, has_labels: bool, metrics: Collection[str] | None
) -> Problem | None:
    if limit.needs_reference and not has_reference:
        return "compares with a reference, and there is none", "give an absolute bound instead"
    if limit.needs_data and not data_n:
        step = Sentence("give data, as {} with x and y", Argument("data", "FILE.npz"))
        return "is about results, and there are no data to run on", step
    if limit.needs_labels and not has_labels:
        return "compares results with labels, and the data have none", "put the labels into the data as y"
    if limit.needs_labels and metrics is not None and limit.metric not in metrics:
        names = [*metrics, *(name for name, row in METRICS.items() if row.against_reference)]
        close = difflib.get_close_matches(limit.metric, [*names, *limitable()], n=1)
        return (
            f"{limit.metric!r} is not a metric of this task",
            f"did you mean {close[0]!r}?" if close else f"known are {', '.join(names)}",
        )
    return None


def _too_few_timings(limit: Limit, plan: Plan, confidence: float, latency_hint_ns: float | None) -> Problem | None:
    """The floor is about seeing the percentile at all, so it goes by the nominal confidence, not by a look's share."""
    percent = PERCENT.get(limit.statistic) if limit.statistic else None
    if percent is None:
        return None
    least = samples_needed(percent, confidence)
    if latency_hint_ns is not None:
        under_s: float | None = latency_hint_ns / 1e9
    elif limit.max_ms is not None:
        under_s = limit.max_ms / 1000  # what passes is at least as fast as this
    else:
        under_s = None
        if plan.period_ms is None:
            return None  # a ratio, back to back: how many samples there are is known only when it has run
    certain = samples_certain(plan, under_s)
    if certain >= least:
        return None
    how = (
        f"at a period of {plan.period_ms:g} ms"
        if plan.period_ms is not None
        else f"at {(under_s or 0) * 1e3:g} ms each"
    )
    return (
        (
            f"{limit.statistic} at {confidence:.0%} confidence needs at least {least} samples in each session; "
            f"this plan gives {certain} {how}"
        ),
        f"set runs_min = {least} in the plan, or limit a lower percentile",
    )


def _no_energy(limit: Limit, plan: Plan, unmetered: Sequence[str]) -> Problem | None:
    if unmetered:
        return f"needs a power meter, and {', '.join(unmetered)} has none", "add [power_meter] to the board's file"
    if limit.row.of_a_period and plan.period_ms is None:
        return "is about a period, and the plan has none", "give period_ms, or limit energy_above_idle"
    needed_s = plan.warmup_s_max + 2 * plan.energy_window_s + ENERGY_AROUND_S
    if needed_s > plan.deadline_s:
        return (
            (
                f"takes {needed_s:.3g} s a session (two windows of {ENERGY_PERIODS_MIN} periods or more), and its "
                f"deadline is {plan.deadline_s:g} s"
            ),
            "raise deadline_s in the plan, or shorten period_ms",
        )
    return None


def _impossible(limit: Limit, is_share: bool) -> Problem | None:
    """A bound that no measurement can pass."""
    floor = limit.min_fraction if limit.min_fraction is not None else limit.min_value if is_share else None
    if floor is not None and floor + limit.guard >= 1:
        return f"asks for more than {floor + limit.guard:g}, and nothing is over 1", "lower the limit or its guard"
    if is_share and limit.max_value is not None and limit.max_value - limit.guard <= 0:
        return f"asks for less than {limit.max_value - limit.guard:g}, and no share is under 0", "raise the limit"
    return None


def _too_few_samples(limit: Limit, n: int, confidence: float, is_share: bool) -> Problem | None:
    """A bound that the best that can be seen on n samples would not pass."""
    if not is_share:
        if n >= SAMPLES_MIN:
            return None
        return (
            f"is about the population, and {n} samples say too little about it: the bootstrap needs {SAMPLES_MIN}",
            f'score at least {SAMPLES_MIN} samples, or say about = "this_set"',
        )
    if _best_passes(limit, n, confidence):
        return None
    enough = next((size for size in _sizes(n) if _best_passes(limit, size, confidence)), None)
    if enough is None:
        return None  # impossible at any size: said so elsewhere
    few, many = n, enough
    while many - few > 1:
        middle = (few + many) // 2
        few, many = (few, middle) if _best_passes(limit, middle, confidence) else (middle, many)
    return (
        f"can't be passed with {n} samples: the best that they can show has {_best_bound(limit, n, confidence)}",
        f'score at least {many} samples, lower the limit, or say about = "this_set"',
    )


def _sizes(n: int) -> Iterator[int]:
    size = max(1, n)
    while size < _SAMPLES_MAX:
        size *= 2
        yield size


def _best_passes(limit: Limit, n: int, confidence: float) -> bool:
    if n == 0:
        return False
    if limit.max_drop_from_reference is not None:
        loss_max = limit.max_drop_from_reference - limit.guard
        if loss_max <= 0:
            return True  # a candidate may be better than M1
        return tango_bound(0, 0, n, confidence, "lower", continuous=False) > -loss_max
    if limit.max_value is not None:
        return share_bound(0, n, confidence, "upper", exact=True) < limit.max_value - limit.guard
    return share_bound(n, n, confidence, "lower", exact=True) > limit.bound + limit.guard


def _best_bound(limit: Limit, n: int, confidence: float) -> str:
    """The bound where every sample is right, or wrong, or where not a single one differs from M1."""
    if n == 0:
        return "no bound at all"
    if limit.max_drop_from_reference is not None:
        loss = -tango_bound(0, 0, n, confidence, "lower", continuous=False)
        return f"no sample lost, and then up to {loss:.4f} may be lost ({confidence:g} bound)"
    if limit.max_value is not None:
        return f"the {confidence:g} bound {share_bound(0, n, confidence, 'upper', exact=True):.4f}"
    return f"all of them right, and the {confidence:g} bound {share_bound(n, n, confidence, 'lower', exact=True):.4f}"
