"""Whole runs through the real controller and the real judge, on boards whose latency follows no rule at all."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from edgeloop.core.campaign import Campaign
from edgeloop.core.events import Entry, Judgement, RunFinished, SearchMoved, TrialAsked, TrialErrored
from edgeloop.core.network import Candidate
from edgeloop.core.verdict import Outcome
from edgeloop.testing.fakes.memory_ledger import MemoryLedger
from edgeloop.testing.fakes.simulated_adapters import SimulatedWorkshop, simulated_run, walk
from edgeloop.testing.fakes.simulated_board import Truth, simulated_sizes

WIDTHS, RUNGS, THREADS = (1.41, 2.0, 2.83), ("fp32", "w8a8", "w4a8"), (1, 2)
NAMES = [
    f"width {width:g} {rung}{f' x{threads}' if threads > 1 else ''}"
    for width, rung, threads in product(WIDTHS, RUNGS, THREADS)
]
LATENCY_MS, ACCURACY, BYTES = 4.5, 0.90, 50_500
STRATEGIES = ("patent", "grid", "random", "optuna")

PHASES = (Phase.explicit, Phase.reuse, Phase.generate)
"""Shrinking a whole run takes minutes and tells little more: the failing one is printed as it was drawn."""

tables = st.fixed_dictionaries(
    {
        name: st.tuples(st.integers(1, 9), st.integers(80, 99), st.integers(10, 90))
        if " x" not in name
        else st.tuples(st.integers(1, 9), st.just(0), st.just(0))
        for name in NAMES
    }
)
"""(latency in ms, accuracy in percent, kB) of every candidate; another thread count has the same file."""
faults = st.dictionaries(
    st.sampled_from(NAMES),
    st.sampled_from([Outcome.ERROR, Outcome.INVALID, Outcome.INCONCLUSIVE, "build", "refused"]),
    max_size=6,
)
Table = dict[str, tuple[int, int, int]]
Faults = dict[str, Any]


def campaign(strategy: str, *, trials: int = 100, pareto: bool = False, profile: str = "quick") -> Campaign:
    return Campaign.model_validate(
        {
            "schema": 1,
            "name": "simulated",
            "targets": ["simulated"],
            "limits": {
                "limit": [
                    {"metric": "latency", "statistic": "p90", "max_ms": LATENCY_MS},
                    {"metric": "top1", "min_fraction": ACCURACY - 0.005, "about": "this_set"},
                    {"metric": "deployed_size", "max_bytes": BYTES},
                ]
            },
            "reference": {"family": "ds_cnn"},
            "search": {
                "strategy": strategy,
                "widths": WIDTHS,
                "lightenings": RUNGS,
                "threads": THREADS,
                "pareto": pareto,
            },
            "budget": {"trials": trials},
            "plan": {"profile": profile, "sessions": 3 if profile == "quick" else 8},
        }
    )


def truth_of(table: Table) -> Callable[[Candidate], Truth]:
    def truth(candidate: Candidate) -> Truth:
        name = str(candidate)
        sizes = simulated_sizes(candidate.network)
        if name not in table:  # M1
            return Truth(5.0, 0.9, 14_000, 10_000_000)
        _, accuracy, kilobytes = table[name.partition(" x")[0]]
        return Truth(float(table[name][0]), accuracy / 100, kilobytes * 1000, 10_000_000 + sizes.parameters)

    return truth


def passes(name: str, table: Table, broken: Faults) -> bool:
    file = name.partition(" x")[0]
    latency, (_, accuracy, kilobytes) = table[name][0], table[file]
    if name in broken and broken[name] != "build":
        return False
    if broken.get(file) == "build":
        return False
    return latency < LATENCY_MS and accuracy / 100 > ACCURACY - 0.005 and kilobytes * 1000 < BYTES


def events(ledger: MemoryLedger, kind: type) -> list[Any]:
    return [entry.event for entry in ledger.entries() if isinstance(entry.event, kind)]


def asked(ledger: MemoryLedger) -> list[str]:
    return [str(event.candidate) for event in events(ledger, TrialAsked) if event.role == "candidate"]


def carried_out(what: Campaign, table: Table, broken: Faults) -> tuple[RunFinished, MemoryLedger]:
    workshop = SimulatedWorkshop(truth_of(table), broken, undecided_ms=LATENCY_MS)
    controller, ledger = simulated_run(what, workshop)
    return walk(controller), ledger


@pytest.mark.parametrize("strategy", STRATEGIES)
@settings(max_examples=12, deadline=None, phases=PHASES)
@given(table=tables, broken=faults)
def test_a_run_ends_asks_nothing_twice_and_finds_what_passes_and_nothing_else(
    strategy: str, table: Table, broken: Faults
) -> None:
    finished, ledger = carried_out(campaign(strategy), table, broken)
    names = asked(ledger)
    assert len(names) == len(set(names)) <= len(NAMES)
    looks = [event.trial for event in events(ledger, Judgement) if event.split == "test"]
    good = {name for name in NAMES if passes(name, table, broken)}
    assert looks == ([finished.best] if good else []), "test data are looked at once, for what was confirmed"
    if good:
        assert finished.exit_code == 0
        assert names[(finished.best or 0) - 1] in good
    else:
        assert finished.exit_code in (1, 3)
        assert set(names) == set(NAMES), "the whole space was swept before nothing was said to pass"


@settings(max_examples=20, deadline=None, phases=PHASES)
@given(strategy=st.sampled_from(STRATEGIES), table=tables, broken=faults)
def test_what_was_not_measured_is_never_a_move(strategy: str, table: Table, broken: Faults) -> None:
    _, ledger = carried_out(campaign(strategy, trials=12), table, broken)
    lost = {event.trial for event in events(ledger, TrialErrored)}
    last = {event.trial: event.verdict.outcome for event in events(ledger, Judgement) if event.split == "validation"}
    lost |= {trial for trial, outcome in last.items() if outcome in (Outcome.ERROR, Outcome.INVALID)}
    moved = {event.trial: event for event in events(ledger, SearchMoved)}
    assert set(moved) == set(range(1, len(moved) + 1)), "every trial is told, and every one has its sentence"
    assert all(moved[trial].direction == "none" for trial in lost & set(moved))
    assert all(event.sentence for event in moved.values())


@settings(max_examples=15, deadline=None, phases=PHASES)
@given(strategy=st.sampled_from(STRATEGIES), table=tables, broken=faults, trials=st.integers(1, 10))
def test_a_budget_of_trials_is_kept_and_the_best_so_far_is_named(
    strategy: str, table: Table, broken: Faults, trials: int
) -> None:
    finished, ledger = carried_out(campaign(strategy, trials=trials), table, broken)
    names = asked(ledger)
    assert len(names) <= trials
    tried = [name for name in names if passes(name, table, broken)]
    assert (finished.exit_code == 0) == bool(tried)
    if finished.exit_code == 1:
        assert finished.best is not None
        assert "nearest miss" in finished.sentence


@settings(max_examples=15, deadline=None, phases=PHASES)
@given(
    strategy=st.sampled_from(STRATEGIES),
    table=tables,
    broken=faults,
    cut=st.floats(0, 1),
    pareto=st.booleans(),
)
def test_a_run_that_was_cut_anywhere_goes_on_as_if_it_had_not_been(
    strategy: str, table: Table, broken: Faults, cut: float, pareto: bool
) -> None:
    what = campaign(strategy, pareto=pareto)
    workshop = SimulatedWorkshop(truth_of(table), broken, undecided_ms=LATENCY_MS)
    controller, whole = simulated_run(what, workshop)
    finished = walk(controller)
    kept = whole.entries()[: 1 + int(cut * (len(whole.entries()) - 1))]
    controller, resumed = simulated_run(what, workshop, kept)
    again = walk(controller)
    assert asked(resumed) == asked(whole)
    assert again == finished
    assert [_step(e) for e in resumed.entries()] == [_step(e) for e in whole.entries()]


def _step(entry: Entry) -> Any:
    """An event without what differs between two walks: run ids, and times."""
    return entry.event.model_dump(exclude={"run_id", "job_key", "seconds", "summary", "reference", "verdict"})


@settings(max_examples=20, deadline=None, phases=PHASES)
@given(strategy=st.sampled_from(STRATEGIES), table=tables, broken=faults)
def test_in_pareto_mode_the_front_is_that_of_everything_that_passes(
    strategy: str, table: Table, broken: Faults
) -> None:
    finished, ledger = carried_out(campaign(strategy, pareto=True), table, broken)
    good = [name for name in NAMES if passes(name, table, broken)]
    truth = {name: (table[n := name.partition(" x")[0]][1], -table[name][0], -table[n][2]) for name in good}
    names = asked(ledger)
    assert set(names) == set(NAMES)
    if not good:
        assert finished.front is None
        return
    assert finished.front is not None
    # Latencies of equal truths differ by the noise of the simulated board: those ties may fall either way.
    beaten = {
        name
        for name in good
        if any(o[1] > truth[name][1] and o[0] >= truth[name][0] and o[2] >= truth[name][2] for o in truth.values())
    }
    unbeaten = {
        name
        for name in good
        if not any(
            other != name and all(o >= t for o, t in zip(truth[other], truth[name], strict=True)) for other in good
        )
    }
    members = {names[member.trial - 1] for member in finished.front.members}
    assert unbeaten <= members <= set(good) - beaten
    assert finished.exit_code == 0
    assert all(member.outcome is Outcome.PASS for member in finished.front.members)
    looked = [event.trial for event in events(ledger, Judgement) if event.split == "test"]
    assert sorted(looked) == sorted(member.trial for member in finished.front.members), "one look for each, no other"
