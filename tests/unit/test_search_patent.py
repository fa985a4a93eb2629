"""The search against a simulated board whose truth is known, and whose latency is not monotone in the degree."""

from collections.abc import Callable, Mapping
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeloop.core.campaign import Search
from edgeloop.core.lightening import LADDER, Lightening
from edgeloop.core.limits import parse_limits
from edgeloop.core.network import Candidate, Engine, NetworkSizes, NetworkSpec
from edgeloop.core.verdict import Outcome
from edgeloop.errors import ConfigError
from edgeloop.search.size_model import predicted_bytes
from edgeloop.search.space import SearchSpace
from edgeloop.search.strategies import PatentStrategy
from edgeloop.testing.fakes.simulated_board import SimulatedBoard, Truth, search, simulated_sizes

M1 = NetworkSpec(family="ds_cnn", weights="/m1.pt", weights_sha256="0" * 64)
M1_SIZES = simulated_sizes(M1)
M1_BYTES = 12_000


def truth_of(
    speed: Mapping[str, float],
    loss: Mapping[str, float] | None = None,
    bytes_factor: float = 1.0,
) -> Callable[[Candidate], Truth]:
    """Latency in ms = MACs / 1e5 x the rung's factor / threads; accuracy grows with parameters."""

    def truth(candidate: Candidate) -> Truth:
        sizes = simulated_sizes(candidate.network)
        rung = candidate.lightening
        return Truth(
            latency_ms=sizes.macs / 1e5 * speed[rung] / candidate.threads,
            accuracy=1 - 0.12 * (sizes.parameters / 1000) ** -0.7 - (loss or {}).get(rung, 0.0),
            deployed_bytes=round(bytes_factor * predicted_bytes(sizes, Lightening.parse(rung))),
            peak_rss_bytes=10_000_000 + 8 * sizes.parameters,
        )

    return truth


def strategy_for(
    *limits: str,
    space: Search | None = None,
    larger: str = "factory",
    sizes_of: Callable[[NetworkSpec], NetworkSizes] = simulated_sizes,
) -> PatentStrategy:
    return PatentStrategy(
        SearchSpace(
            search=space or Search(),
            m1=M1,
            m1_sizes=M1_SIZES,
            m1_lightening="fp32",
            m1_bytes=M1_BYTES,
            larger=larger,  # type: ignore[arg-type]
            teacher="none",
            limits=parse_limits(limits),
            sizes_of=sizes_of,
        )
    )


FLAT = dict.fromkeys((rung.name for rung in LADDER), 1.0)


def play(strategy: PatentStrategy, board: SimulatedBoard, trials: int) -> list[tuple[Candidate, str, str]]:
    """(candidate, direction, sentence) of the first trials, whatever they come to."""
    story = []
    for number in range(1, trials + 1):
        asked = strategy.ask()
        assert asked is not None
        direction, sentence = strategy.tell(board.measure(number, asked[0], asked[1], strategy))
        story.append((asked[0], direction, sentence))
    return story


def test_the_search_begins_at_the_highest_evaluation_at_w8a8() -> None:
    strategy = strategy_for("latency.p90_ms=5")
    asked = strategy.ask()
    assert asked is not None
    candidate, why = asked
    assert candidate.lightening == "w8a8"
    ratings = {p.network: strategy.rating(strategy.space.candidate(p))[0] for p in strategy.space.points if p.rung == 3}
    assert strategy.rating(candidate)[0] == max(value or 0.0 for value in ratings.values())
    assert "E = " in why


def test_without_w8a8_the_nearest_offered_rung_begins() -> None:
    asked = strategy_for("top1=0.5", space=Search(lightenings=("fp32", "w4a8"))).ask()
    assert asked is not None
    assert asked[0].lightening == "w4a8"


def test_an_accuracy_failure_lowers_the_degree_on_the_same_network() -> None:
    strategy = strategy_for("top1=0.999")
    board = SimulatedBoard(parse_limits(["top1=0.999"]), truth_of(FLAT))
    (first, direction, sentence), (second, *_), (third, *_) = play(strategy, board, 3)
    assert direction == "lower_degree"
    assert first.network == second.network == third.network
    assert [first.lightening, second.lightening, third.lightening] == ["w8a8", "w8a16", "fp16"]
    assert "is under 0.999" in sentence
    assert "w8a16" in sentence


def test_at_the_lowest_rung_an_accuracy_failure_asks_a_larger_network_and_begins_the_ladder_anew() -> None:
    strategy = strategy_for("top1=0.999")
    board = SimulatedBoard(parse_limits(["top1=0.999"]), truth_of(FLAT))
    story = play(strategy, board, 5)
    (fp32, direction, sentence), (after, *_) = story[3], story[4]
    assert fp32.lightening == "fp32"
    assert direction == "larger"
    assert "lowest rung" in sentence
    assert after.network.width > fp32.network.width
    assert after.lightening == "w8a8"


def test_a_speed_failure_tries_an_unknown_rung_then_shrinks_the_network() -> None:
    limits = ["latency.p90_ms=0.001"]
    strategy = strategy_for(*limits)
    board = SimulatedBoard(parse_limits(limits), truth_of({**FLAT, "w4a8": 1.5}))
    (first, direction, sentence), (second, then, why), (third, *_) = play(strategy, board, 3)
    assert (direction, second.lightening) == ("raise_degree", "w4a8")
    assert "not measured here yet" in sentence
    assert then == "smaller"
    assert third.network.width < first.network.width
    assert "next is a smaller network" in why


def test_a_rung_known_to_be_slower_is_passed_over_at_other_widths_with_its_figure() -> None:
    limits = ["latency.p90_ms=0.001"]
    strategy = strategy_for(*limits)
    board = SimulatedBoard(parse_limits(limits), truth_of({**FLAT, "w8a8": 1.0, "w4a8": 1.5}))
    # w8a8, then w4a8 (slower: known now), then a smaller network
    story = play(strategy, board, 4)
    at_w8a8 = next(entry for entry in story[2:] if entry[0].lightening == "w8a8")
    assert "no rung further up is faster (w4a8 measured 50 % slower)" in at_w8a8[2]
    assert at_w8a8[1] == "smaller"


def test_a_rung_known_to_be_faster_is_asked_with_its_figure() -> None:
    limits = ["latency.p90_ms=0.001"]
    strategy = strategy_for(*limits, space=Search(lightenings=("w8a16", "w8a8"), widths=(1.41, 2.0)))
    board = SimulatedBoard(parse_limits(limits), truth_of({"w8a16": 1.0, "w8a8": 0.59}))
    wide, narrow = (
        {c.lightening: c for p in strategy.space.points if p.network == network for c in [strategy.space.candidate(p)]}
        for network in (1, 0)
    )
    for number, candidate in enumerate((wide["w8a16"], wide["w8a8"]), start=1):
        strategy.tell(board.measure(number, candidate, "told", strategy))
    direction, sentence = strategy.tell(board.measure(3, narrow["w8a16"], "told", strategy))
    assert direction == "raise_degree"
    assert sentence.endswith("w8a8 measured 41 % faster than w8a16 at width 2")
    asked = strategy.ask()
    assert asked == (narrow["w8a8"], sentence)


def test_other_threads_are_tried_on_the_same_file_before_the_network_shrinks() -> None:
    limits = ["latency.p90_ms=0.001"]
    strategy = strategy_for(*limits, space=Search(lightenings=("w8a8",), threads=(1, 2)))
    board = SimulatedBoard(parse_limits(limits), truth_of(FLAT))
    (first, direction, sentence), (second, *_) = play(strategy, board, 2)
    assert direction == "other_engine"
    assert "2 threads" in sentence
    assert (second.network, second.lightening, second.threads) == (first.network, first.lightening, 2)


def test_a_rung_that_nobody_measured_waits_for_other_threads_on_the_same_file() -> None:
    limits = ["latency.p90_ms=0.001"]
    strategy = strategy_for(*limits, space=Search(lightenings=("w8a8", "w4a8"), threads=(1, 2)))
    board = SimulatedBoard(parse_limits(limits), truth_of({**FLAT, "w4a8": 0.5}))
    (first, direction, sentence), (second, *_), (third, *_) = play(strategy, board, 3)
    assert (direction, second.lightening, second.threads) == ("other_engine", "w8a8", 2)
    assert "no rung further up measured faster (w4a8 is not measured yet): the same file is tried" in sentence
    assert (third.network, third.lightening) == (first.network, "w4a8")


def test_in_pareto_mode_a_pass_is_followed_by_what_should_be_more_accurate() -> None:
    limits = ["latency.p90_ms=1000"]
    strategy = strategy_for(*limits, space=Search(pareto=True))
    board = SimulatedBoard(parse_limits(limits), truth_of(FLAT))
    (first, direction, sentence), (second, *_) = play(strategy, board, 2)
    assert direction in ("larger", "lower_degree")
    assert "every limit is met on validation data; the front may hold more: " in sentence
    assert "should be more accurate and is asked next" in sentence
    assert second != first


def test_a_size_failure_moves_to_fewer_bits_even_where_they_are_slower() -> None:
    limits = ["size_bytes=11000", "latency.p90_ms=1000"]
    strategy = strategy_for(*limits, space=Search(lightenings=("w8a8", "w4a8")))
    board = SimulatedBoard(parse_limits(limits), truth_of({**FLAT, "w4a8": 3.0}, bytes_factor=1.1))
    (first, direction, sentence), (second, *_) = play(strategy, board, 2)
    assert first.lightening == "w8a8"
    assert (direction, second.lightening) == ("raise_degree", "w4a8")
    assert second.network == first.network
    assert "deployed_size" in sentence
    assert "w4a8 is predicted to take" in sentence


def test_where_both_fail_the_one_further_off_decides_the_networks_size() -> None:
    slow = ["latency.p90_ms=0.1", "top1=0.999"]
    board = SimulatedBoard(parse_limits(slow), truth_of(FLAT))
    (first, direction, _), (second, *_) = play(strategy_for(*slow), board, 2)
    assert direction == "smaller"
    assert second.network.width < first.network.width
    inaccurate = ["latency.p90_ms=7.2", "top1=0.999"]
    loss = {"w8a8": 0.5}
    board = SimulatedBoard(parse_limits(inaccurate), truth_of(FLAT, loss))
    (first, direction, sentence), (second, *_) = play(strategy_for(*inaccurate), board, 2)
    assert direction == "larger"
    assert second.network.width > first.network.width
    assert "accuracy is relatively further off" in sentence


@pytest.mark.parametrize("fault", [Outcome.ERROR, Outcome.INVALID])
def test_what_was_not_measured_keeps_the_order_and_blames_nothing_on_the_network(fault: Outcome) -> None:
    limits = ["top1=0.999", "latency.p90_ms=0.01"]
    first = strategy_for(*limits).ask()
    assert first is not None
    strategy = strategy_for(*limits)
    board = SimulatedBoard(parse_limits(limits), truth_of(FLAT), faults={first[0].key: fault})
    before = strategy.likely()
    assert before[0] == first[0]
    ((_, direction, sentence),) = play(strategy, board, 1)
    assert direction == "none"
    assert "says nothing of the network" in sentence
    asked = strategy.ask()
    assert asked is not None
    assert asked[0] == before[1]


def test_an_undecided_candidate_is_followed_by_its_neighbour_and_never_asked_again() -> None:
    limits = ["latency.p90_ms=5"]
    first = strategy_for(*limits).ask()
    assert first is not None
    board = SimulatedBoard(parse_limits(limits), truth_of(FLAT), faults={first[0].key: Outcome.INCONCLUSIVE})
    strategy = strategy_for(*limits)
    ((_, direction, sentence),) = play(strategy, board, 1)
    asked = strategy.ask()
    assert asked is not None
    assert "undecided, which is no pass" in sentence
    assert direction == "raise_degree"
    assert (asked[0].network, asked[0].lightening) == (first[0].network, "w4a8:50")


def test_what_is_predicted_far_over_the_size_limit_is_asked_last_but_asked() -> None:
    limits = ["size_bytes=13000", "top1=0.9999"]
    # Integers only: M1's float file says nothing of them, so what is predicted stays as it was asked by.
    strategy = strategy_for(*limits, space=Search(lightenings=("w8a16", "w8a8", "w4a8:50", "w4a8")))
    over = [strategy.space.is_oversized(strategy.space.by_key[c.key]) for c in _whole_sweep(strategy, limits)]
    assert any(over)
    assert over[: over.index(True)].count(False) > len(over) // 3
    assert all(over[over.index(True) :])


def _whole_sweep(strategy: PatentStrategy, limits: list[str]) -> list[Candidate]:
    board = SimulatedBoard(parse_limits(limits), truth_of(FLAT))
    search(strategy, board, 1000)
    return board.questions


def test_with_larger_none_m1_itself_is_lightened_with_its_own_weights() -> None:
    asked = _whole_sweep(strategy_for("top1=0.9999", larger="none"), ["top1=0.9999"])
    assert {c.network for c in asked} == {M1}
    assert {c.lightening for c in asked} == set(Search().lightenings)
    assert strategy_for("top1=0.9", larger="none").rating(asked[0])[0] is None


def test_a_grid_without_a_larger_network_is_a_fault_of_the_campaign() -> None:
    strategy = strategy_for("top1=0.9", space=Search(widths=(0.5, 1.0)))
    with pytest.raises(ConfigError, match=r"search\.widths: width 0\.5 is left out"):
        strategy.ask()


def test_sizes_are_asked_at_the_first_question_and_once_a_network() -> None:
    calls: list[NetworkSpec] = []

    def slow(network: NetworkSpec) -> NetworkSizes:
        calls.append(network)
        return simulated_sizes(network)

    strategy = strategy_for("top1=0.9999", sizes_of=slow)
    assert calls == []
    _whole_sweep(strategy, ["top1=0.9999"])
    assert len(calls) == len(set(calls)) == len(Search().widths)


def test_when_nothing_is_left_the_nearest_miss_is_named() -> None:
    limits = ["top1=0.9999"]
    strategy = strategy_for(*limits, space=Search(widths=(1.41,), lightenings=("w8a8",)))
    board = SimulatedBoard(parse_limits(limits), truth_of(FLAT))
    ((_, direction, sentence),) = play(strategy, board, 1)
    assert direction == "none"
    assert "nothing untried is left; the nearest miss is trial 1 (width 1.41 w8a8): top1" in sentence
    assert strategy.ask() is None


def test_likely_names_what_an_accuracy_or_a_speed_failure_would_ask() -> None:
    strategy = strategy_for("top1=0.9", "latency.p90_ms=5")
    asked = strategy.ask()
    assert asked is not None
    likely = strategy.likely()
    assert asked[0] not in likely
    assert len(likely) == len({c.key for c in likely})
    assert {(c.network.width, c.lightening) for c in likely} >= {
        (asked[0].network.width, "w8a16"),
        (asked[0].network.width, "w4a8"),
    }
    assert any(c.network.width < asked[0].network.width for c in likely)


def test_a_search_that_is_told_the_same_trials_asks_the_same() -> None:
    limits = ["latency.p90_ms=1", "top1=0.99"]
    board = SimulatedBoard(parse_limits(limits), truth_of({**FLAT, "w8a8": 0.5}))
    told = search(strategy_for(*limits), board, 6)
    resumed = strategy_for(*limits)
    for trial in told:  # a resumed run only tells; it does not ask again
        resumed.tell(trial)
    going_on = search(strategy_for(*limits), SimulatedBoard(board.limits, board.truth), 7)[6]
    asked = resumed.ask()
    assert asked is not None
    assert asked[0] == going_on.candidate


rungs = [rung.name for rung in LADDER]
speeds = st.fixed_dictionaries({rung: st.floats(0.1, 10) for rung in rungs})
losses = st.fixed_dictionaries({rung: st.floats(0, 0.3) for rung in rungs})
faulty = st.dictionaries(
    st.integers(0, 39), st.sampled_from([Outcome.ERROR, Outcome.INVALID, Outcome.INCONCLUSIVE]), max_size=12
)
SPACE = Search(widths=(1.19, 1.41, 2.0, 2.83), threads=(1, 2))


@settings(max_examples=40, deadline=None)
@given(
    engines=st.sampled_from([("litert",), ("tvm",), ("litert", "tvm"), ("tflite-runtime", "tvm", "litert")]),
    speed=speeds,
    loss=losses,
    faults=faulty,
    latency_ms=st.floats(0.05, 60),
    accuracy=st.floats(0.7, 0.99),
    size=st.integers(9000, 40000),
)
def test_on_any_board_the_search_ends_asks_nothing_twice_and_finds_what_passes(
    engines: tuple[Engine, ...],
    speed: dict[str, float],
    loss: dict[str, float],
    faults: dict[int, Outcome],
    latency_ms: float,
    accuracy: float,
    size: int,
) -> None:
    limits = [f"latency.p90_ms={latency_ms}", f"top1={accuracy}", f"size_bytes={size}"]
    strategy = strategy_for(*limits, space=SPACE.model_copy(update={"engines": engines}))
    every = [strategy.space.candidate(point) for point in strategy.space.points]
    blamed = {every[i % len(every)].key: outcome for i, outcome in faults.items()}
    board = SimulatedBoard(parse_limits(limits), truth_of(speed, loss), faults=blamed)
    trials = search(strategy, board, len(every) + 1)
    keys = [trial.candidate.key for trial in trials]
    assert len(keys) == len(set(keys))
    assert len(trials) <= len(every)
    passing = [candidate for candidate in every if board.passes(candidate)]
    assert (trials[-1].outcome is Outcome.PASS) == bool(passing)
    assert all(board.passes(trial.candidate) == (trial.outcome is Outcome.PASS) for trial in trials)
    if not passing:
        assert strategy.ask() is None
        assert len(trials) == len(every)


@settings(max_examples=20, deadline=None)
@given(speed=speeds, loss=losses, fault=st.sampled_from([Outcome.ERROR, Outcome.INVALID]), at=st.integers(0, 15))
def test_a_fault_leaves_every_later_question_as_the_order_before_had_it(
    speed: dict[str, float], loss: dict[str, float], fault: Outcome, at: int
) -> None:
    limits = ["latency.p90_ms=0.01", "top1=0.9999"]
    truth = truth_of(speed, loss)
    healthy = SimulatedBoard(parse_limits(limits), truth)
    search(strategy_for(*limits, space=SPACE), healthy, at + 1)
    unlucky = healthy.questions[at]
    strategy = strategy_for(*limits, space=SPACE)
    board = SimulatedBoard(parse_limits(limits), truth, faults={unlucky.key: fault})
    play(strategy, board, at)
    queued = strategy.likely()
    assert queued[0] == unlucky
    ((candidate, direction, _),) = play(strategy, board, 1)
    assert candidate == unlucky
    assert direction == "none"
    asked = strategy.ask()
    assert asked is not None
    assert asked[0] == queued[1]


def test_an_energy_failure_raises_the_degree_and_passes_over_rungs_known_to_take_more() -> None:
    joules = {**FLAT, "w8a8": 1.0, "w4a8": 1.6}

    def truth(candidate: Candidate) -> Truth:
        plain = truth_of(FLAT)(candidate)
        return replace(plain, energy_mj=10 * candidate.network.width * joules[candidate.lightening])

    strategy = strategy_for("energy_per_period_mj=11", space=Search(widths=(1.19, 1.41), lightenings=("w8a8", "w4a8")))
    board = SimulatedBoard(parse_limits(["energy_per_period_mj=11"]), truth)
    (first, up, tried), (second, on, swept), *_ = play(strategy, board, 3)
    assert (first.lightening, second.lightening) == ("w8a8", "w4a8")
    assert up == "raise_degree"
    assert "energy_per_period" in tried
    assert "w4a8 is not measured here yet and is tried" in tried
    assert first.network == second.network
    assert on != "raise_degree"
    assert swept.startswith("energy_per_period ")


def test_other_threads_are_tried_on_the_same_file_where_energy_fails() -> None:
    def truth(candidate: Candidate) -> Truth:
        return replace(truth_of(FLAT)(candidate), energy_mj=12.0 if candidate.threads == 1 else 9.0)

    strategy = strategy_for("energy_per_period_mj=10", space=Search(lightenings=("w8a8",), threads=(1, 2)))
    board = SimulatedBoard(parse_limits(["energy_per_period_mj=10"]), truth)
    (_, direction, sentence), (second, _, _) = play(strategy, board, 2)
    assert direction == "other_engine"
    assert "the same file is tried on litert with 2 threads" in sentence
    assert second.threads == 2


def engines_of(tvm_bytes: float, tvm_rss: int) -> Callable[[Candidate], Truth]:
    """As `truth_of(FLAT)`; TVM's file takes so many times the bytes, and its process so much memory."""

    def truth(candidate: Candidate) -> Truth:
        plain = truth_of(FLAT)(candidate)
        if candidate.engine != "tvm":
            return plain
        return replace(plain, deployed_bytes=round(tvm_bytes * plain.deployed_bytes), peak_rss_bytes=tvm_rss)

    return truth


@pytest.mark.parametrize(("limit", "tvm_bytes", "tvm_rss"), [("size_bytes=30000", 5, 10**7), ("rss_mib=20", 1, 10**8)])
def test_another_engine_is_tried_where_a_file_was_too_large_or_memory_failed(
    limit: str, tvm_bytes: float, tvm_rss: int
) -> None:
    space = Search(widths=(1.41, 2.0), lightenings=("w8a8",), engines=("tvm", "litert"))
    strategy = strategy_for(limit, space=space)
    board = SimulatedBoard(parse_limits([limit]), engines_of(tvm_bytes, tvm_rss))
    (first, direction, sentence), (second, *_) = play(strategy, board, 2)
    assert (first.engine, second.engine) == ("tvm", "litert")
    assert first.network == second.network
    assert direction == "other_engine"
    assert "the same network is tried on litert" in sentence
