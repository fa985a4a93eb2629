"""Moves along the generator's two axes: shares of bits, and channels."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from edgeloop.core.campaign import Search
from edgeloop.core.events import NetworkTrained, Trial
from edgeloop.core.lightening import Lightening
from edgeloop.core.limits import parse_limits
from edgeloop.core.mixed_precision import LayerChoice
from edgeloop.core.network import Candidate, NetworkSizes, NetworkSpec
from edgeloop.search.size_model import predicted_bytes
from edgeloop.search.space import SearchSpace
from edgeloop.search.strategies import PatentStrategy
from edgeloop.testing.fakes.simulated_board import SimulatedBoard, Truth, simulated_sizes

M1 = NetworkSpec(family="ds_cnn")
M1_BYTES = 14_000
RUNGS = ("fp32", "fp16", "w8a8", "w4a8:25", "w4a8:50", "w4a8:75", "w4a8", "w8a8-p25", "w4a8-p25")


def sizes_of(network: NetworkSpec) -> NetworkSizes:
    """As simulated, and narrower where pruned."""
    return simulated_sizes(network.model_copy(update={"width": network.width * (1 - network.pruned_pct / 100)}))


def truth_of(speed: Mapping[str, float], loss: Mapping[str, float]) -> Callable[[Candidate], Truth]:
    def truth(candidate: Candidate) -> Truth:
        rung = Lightening.parse(candidate.lightening)
        sizes = sizes_of(candidate.network.without_channels(rung.pruned_pct))
        return Truth(
            latency_ms=sizes.macs / 1e5 * speed.get(rung.base, 1.0),
            accuracy=0.95 - loss.get(rung.name, 0.0),
            deployed_bytes=predicted_bytes(sizes, rung),
            peak_rss_bytes=10_000_000,
        )

    return truth


def layers(candidate: Candidate) -> tuple[LayerChoice, ...]:
    """pw0 minds 4 bit least, pw2 most."""
    rung = Lightening.parse(candidate.lightening)
    if rung.weight_bits == 8:
        return ()
    taken = {25: 1, 50: 2, 75: 3, 100: 3}[rung.share_pct]
    weights = next(
        x.weights for x in sizes_of(candidate.network.without_channels(rung.pruned_pct)).layers if x.name == "pw0"
    )
    return tuple(
        LayerChoice(
            name=f"pw{n}",
            weights=weights,
            bits=4 if n < taken else 8,
            loss_rise=(n + 1) / 10 if rung.is_mixed else None,
        )
        for n in range(3)
    )


class Player:
    """A strategy and a board; what is asked, or given, is measured and told."""

    def __init__(self, limits: list[str], truth: Callable[[Candidate], Truth], *rungs: str) -> None:
        parsed = parse_limits(limits)
        self.strategy = PatentStrategy(
            SearchSpace(
                search=Search(widths=(1.5, 2.0), lightenings=rungs or RUNGS),
                m1=M1,
                m1_sizes=sizes_of(M1),
                m1_lightening="fp32",
                m1_bytes=M1_BYTES,
                larger="factory",
                teacher="none",
                limits=parsed,
                sizes_of=sizes_of,
            )
        )
        self.board = SimulatedBoard(parsed, truth, sizes_of=sizes_of)
        self.number = 0

    def tell(self, candidate: Candidate) -> str:
        self.number += 1
        return self.strategy.tell(_with_layers(self.board.measure(self.number, candidate, "", self.strategy)))[1]

    def next(self) -> tuple[Candidate, str]:
        asked = self.strategy.ask()
        assert asked is not None
        return asked[0], self.tell(asked[0])

    def at_width_2(self, rung: str) -> Candidate:
        space = self.strategy.space
        return next(c for p in space.points if p.network == 1 and (c := space.candidate(p)).lightening == rung)


def play(
    limits: list[str], truth: Callable[[Candidate], Truth], trials: int, *rungs: str
) -> list[tuple[Candidate, str]]:
    """(candidate, sentence) of the first trials."""
    player = Player(limits, truth, *rungs)
    return [player.next() for _ in range(trials)]


def _with_layers(trial: Trial) -> Trial:
    trained = NetworkTrained(
        trial=trial.number,
        key="k",
        parent=None,
        seconds=0.0,
        epochs=1,
        validation={},
        lightened=None,
        layers=layers(trial.candidate),
    )
    return trial.model_copy(update={"training": trained})


def test_lowering_a_share_gives_8_bit_back_to_the_most_sensitive_layers_first() -> None:
    player = Player(["top1=0.9"], truth_of({}, dict.fromkeys(RUNGS, 0.1)), "w8a8", "w4a8:50", "w4a8")
    told = player.tell(player.at_width_2("w4a8"))
    assert told.endswith("w4a8:50 gives 8 bit back to the layers of the same network that are most sensitive")
    candidate, told = player.next()
    assert candidate == player.at_width_2("w4a8:50")
    assert told.endswith("w8a8 gives 8 bit back to the most sensitive of the layers that have 4: pw1, pw0")
    assert player.next()[0] == player.at_width_2("w8a8")


def test_what_is_left_out_is_said_when_the_search_begins() -> None:
    player = Player(["top1=0.9"], truth_of({}, {}), "w8a8", "w8a8-p1")  # 1 % is no multiple of 4 channels
    asked = player.strategy.ask()
    assert asked is not None
    assert asked[1].endswith(
        "; w8a8-p1 is left out at width 1.5, width 2: 1 % of its channels is less than the multiple that channels are "
        "rounded to"
    )


def test_a_size_failure_asks_the_least_lightened_rung_that_is_predicted_to_fit() -> None:
    wide = sizes_of(M1.in_size(2.0, 0))
    bound = sum(predicted_bytes(wide, Lightening.parse(name)) for name in ("w4a8:25", "w4a8:50")) // 2
    (first, _), (second, _) = play([f"size_bytes={bound}", "top1=0.5"], truth_of({}, {}), 2)
    assert (first.lightening, second.lightening) == ("w8a8", "w4a8:50")
    assert second.network == first.network


def test_where_speed_fails_bits_are_raised_for_all_layers_then_channels_go_and_then_width() -> None:
    story = play(["latency.p90_ms=0.0001"], truth_of({"w4a8": 1.5}, {}), 4)
    assert [c.lightening for c, _ in story] == ["w8a8", "w4a8", "w8a8-p25", "w8a8-p25"]
    assert len({c.network for c, _ in story[:3]}) == 1
    assert story[3][0].network.width < story[2][0].network.width
    (_, to_bits), (_, to_channels), (_, to_width), _ = story
    assert "w4a8 is not measured here yet and is tried" in to_bits
    assert "next 25 % of the channels of the same network are removed, w8a8-p25 at width 2" in to_channels
    assert "next is a smaller network, w8a8-p25 at width 1.5" in to_width


def test_4_bit_known_to_be_slower_is_no_answer_in_part_or_with_fewer_channels() -> None:
    rungs = ("w8a8", "w4a8:50", "w4a8", "w8a8-p25", "w4a8-p25")
    player = Player(["latency.p90_ms=0.0001"], truth_of({"w4a8": 1.5}, {}), *rungs)
    for name in ("w8a8", "w4a8"):
        player.tell(player.at_width_2(name))
    told = player.tell(player.at_width_2("w8a8-p25"))
    assert "next is a smaller network" in told  # and not w4a8-p25, or half of the layers


def test_half_floats_are_no_answer_to_the_latency_of_floats() -> None:
    player = Player(["latency.p90_ms=0.0001"], truth_of({}, {}), "fp32", "fp16", "w8a8")
    told = player.tell(player.at_width_2("fp32"))
    assert told.endswith("w8a8 is not measured here yet and is tried")
    player = Player(["latency.p90_ms=0.0001"], truth_of({}, {}), "fp32", "fp16")
    told = player.tell(player.at_width_2("fp32"))
    assert "no rung further up is faster (fp16 has the latency of fp32 by nature): next is a smaller" in told


def test_an_accuracy_failure_of_a_pruned_network_gives_channels_back() -> None:
    player = Player(["top1=0.9"], truth_of({}, {"w8a8-p50": 0.2}), "w8a8-p25", "w8a8-p50")
    told = player.tell(player.at_width_2("w8a8-p50"))
    assert told.endswith("w8a8-p25 keeps 25 % more of the same network's channels")
    assert player.next()[0] == player.at_width_2("w8a8-p25")
