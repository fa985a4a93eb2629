"""The contract of every Strategy. Subclass StrategyContract, give it a `make` fixture, and run it with pytest.

class TestMyStrategy(StrategyContract):
    @pytest.fixture
    def make(self):
        ...  # a function: (SearchSpace, LimitSet) -> Strategy, new and told nothing
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest

from edgeloop.core.campaign import Search
from edgeloop.core.events import Trial
from edgeloop.core.limits import LimitSet, parse_limits
from edgeloop.core.network import Candidate, NetworkSpec
from edgeloop.core.verdict import Outcome
from edgeloop.ports import Strategy
from edgeloop.search.space import SearchSpace
from edgeloop.testing.fakes.simulated_board import SimulatedBoard, Truth, simulated_sizes

Make = Callable[[SearchSpace, LimitSet], Strategy]
Asked = tuple[Candidate, str]

LIMITS = parse_limits(["top1=0.9", "latency.p90_ms=2.5", "size_bytes=20000"])
"""Some of the space passes, some is too slow, some too large, some not accurate enough."""
IMPOSSIBLE = parse_limits(["top1=0.9999", "latency.p90_ms=0.001"])
_SPEED = {"fp32": 1.0, "w8a8": 0.4, "w4a8": 0.8}
_LOSS = {"fp32": 0.0, "w8a8": 0.01, "w4a8": 0.05}
_BITS = {"fp32": 32, "w8a8": 8, "w4a8": 4}


def contract_truth(candidate: Candidate) -> Truth:
    """Latency is not monotone in the degree: w4a8 is slower than w8a8."""
    sizes = simulated_sizes(candidate.network)
    return Truth(
        latency_ms=sizes.macs / 1e5 * _SPEED[candidate.lightening] / candidate.threads**0.5,
        accuracy=1 - 0.12 * (sizes.parameters / 1000) ** -0.7 - _LOSS[candidate.lightening],
        deployed_bytes=6000 + sizes.parameters * _BITS[candidate.lightening] // 8,
        peak_rss_bytes=10_000_000 + 8 * sizes.parameters,
    )


def contract_space(*, pareto: bool = False) -> SearchSpace:
    """Three networks, three rungs, two thread counts: 18 candidates."""
    m1 = NetworkSpec(family="ds_cnn")
    return SearchSpace(
        search=Search(widths=(1.41, 2.0, 2.83), lightenings=("fp32", "w8a8", "w4a8"), threads=(1, 2), pareto=pareto),
        m1=m1,
        m1_sizes=simulated_sizes(m1),
        m1_lightening="fp32",
        m1_bytes=14_000,
        larger="factory",
        teacher="none",
        limits=LIMITS,
        sizes_of=simulated_sizes,
    )


class StrategyContract:
    """Rules of the Strategy port."""

    @pytest.fixture
    def space(self) -> SearchSpace:
        return contract_space()

    @pytest.fixture
    def every(self, space: SearchSpace) -> list[Candidate]:
        return [space.candidate(point) for point in space.points]

    def play(
        self, strategy: Strategy, limits: LimitSet, trials: int, faults: Mapping[str, Outcome] | None = None
    ) -> list[Trial]:
        """The first trials, whatever they come to."""
        board = SimulatedBoard(limits, contract_truth, faults=faults or {})
        result = []
        for number in range(1, trials + 1):
            question = strategy.ask()
            if question is None:
                break
            result.append(board.measure(number, *question, strategy))
            strategy.tell(result[-1])
        return result

    def test_every_candidate_is_asked_once_and_then_nothing(
        self, make: Make, space: SearchSpace, every: list[Candidate]
    ) -> None:
        strategy = make(space, IMPOSSIBLE)
        trials = self.play(strategy, IMPOSSIBLE, len(every) + 5)
        assert sorted(trial.candidate.key for trial in trials) == sorted(candidate.key for candidate in every)
        assert strategy.ask() is None

    def test_asking_again_without_telling_asks_another_candidate(
        self, make: Make, space: SearchSpace, every: list[Candidate]
    ) -> None:
        strategy = make(space, LIMITS)
        questions = [strategy.ask() for _ in range(len(every) + 1)]
        assert questions[-1] is None
        assert len({one[0].key for one in questions if one is not None}) == len(every)

    def test_after_a_pass_the_rest_is_still_asked(self, make: Make, every: list[Candidate]) -> None:
        trials = self.play(make(contract_space(pareto=True), LIMITS), LIMITS, len(every) + 5)
        assert len(trials) == len(every)
        assert {trial.outcome for trial in trials} == {Outcome.PASS, Outcome.FAIL}

    @pytest.mark.parametrize("told_first", [0, 1, 7, 12])
    def test_the_same_trials_lead_to_the_same_questions(
        self, make: Make, space: SearchSpace, every: list[Candidate], told_first: int
    ) -> None:
        faults = {every[4].key: Outcome.ERROR, every[9].key: Outcome.INVALID, every[13].key: Outcome.INCONCLUSIVE}
        whole = self.play(make(space, IMPOSSIBLE), IMPOSSIBLE, len(every), faults)
        again = make(contract_space(), IMPOSSIBLE)
        for trial in whole[:told_first]:  # told from a ledger: not asked, or asked, makes no difference
            again.tell(trial)
        rest = self.play(again, IMPOSSIBLE, len(every), faults)
        assert [t.candidate for t in rest] == [t.candidate for t in whole[told_first:]]

    def test_a_walk_that_asks_again_meets_the_same_questions(self, make: Make, every: list[Candidate]) -> None:
        first = self.play(make(contract_space(), LIMITS), LIMITS, len(every))
        second = self.play(make(contract_space(), LIMITS), LIMITS, len(every))
        assert [(t.candidate, t.why) for t in first] == [(t.candidate, t.why) for t in second]

    @pytest.mark.parametrize("fault", [Outcome.ERROR, Outcome.INVALID])
    def test_what_was_not_measured_moves_nothing_and_is_said(
        self, make: Make, space: SearchSpace, fault: Outcome
    ) -> None:
        strategy = make(space, LIMITS)
        question = strategy.ask()
        assert question is not None
        board = SimulatedBoard(LIMITS, contract_truth, faults={question[0].key: fault})
        direction, sentence = strategy.tell(board.measure(1, *question, strategy))
        assert direction == "none"
        assert ("the simulated board is away" if fault is Outcome.ERROR else "throttled at 85 C") in sentence

    def test_every_trial_is_answered_with_a_sentence_that_has_its_figures(self, make: Make, space: SearchSpace) -> None:
        strategy = make(space, IMPOSSIBLE)
        board = SimulatedBoard(IMPOSSIBLE, contract_truth)
        for number in range(1, 19):
            question = strategy.ask()
            assert question is not None
            assert question[1]
            _, sentence = strategy.tell(board.measure(number, *question, strategy))
            assert "ms is over 0.001 ms" in sentence

    def test_a_candidate_of_another_search_moves_nothing(self, make: Make, space: SearchSpace) -> None:
        strategy, other = make(space, LIMITS), make(contract_space(), LIMITS)
        foreign = Candidate(network=NetworkSpec(family="resnet"), lightening="w8a8")
        assert strategy.rating(foreign) == (None, None)
        board = SimulatedBoard(LIMITS, contract_truth)
        assert strategy.tell(board.measure(1, foreign, "of another search", strategy))[0] == "none"
        assert strategy.ask() == other.ask()

    def test_a_rating_is_an_evaluation_from_0_to_1_and_bytes(self, make: Make, space: SearchSpace) -> None:
        strategy = make(space, LIMITS)
        question = strategy.ask()
        assert question is not None
        evaluation, file_bytes = strategy.rating(question[0])
        assert evaluation is not None
        assert file_bytes is not None
        assert 0 <= evaluation <= 1
        assert file_bytes > 0

    def test_what_is_likely_next_was_not_asked_and_is_named_once(
        self, make: Make, space: SearchSpace, every: list[Candidate]
    ) -> None:
        strategy = make(space, IMPOSSIBLE)
        board = SimulatedBoard(IMPOSSIBLE, contract_truth)
        keys = {candidate.key for candidate in every}
        past: set[str] = set()
        for number in range(1, len(every) + 1):
            one = strategy.ask()
            assert one is not None
            past.add(one[0].key)
            likely = [candidate.key for candidate in strategy.likely()]
            assert len(likely) == len(set(likely))
            assert set(likely) <= keys - past
            strategy.tell(board.measure(number, *one, strategy))
        assert strategy.likely() == []

    def test_asking_what_is_likely_changes_no_question(self, make: Make, every: list[Candidate]) -> None:
        quiet, curious = make(contract_space(), LIMITS), make(contract_space(), LIMITS)
        board = SimulatedBoard(LIMITS, contract_truth)
        for number in range(1, len(every) + 1):
            curious.likely()
            one, other = quiet.ask(), curious.ask()
            assert one is not None
            assert one == other
            curious.likely()
            trial = board.measure(number, *one, quiet)
            quiet.tell(trial)
            curious.tell(trial)
