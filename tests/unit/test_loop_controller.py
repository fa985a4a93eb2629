"""The controller with everything around it faked: what closes a trial, what stops a run, what is never done twice."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from factories import make_artifact

from edgeloop.core.artifact import Artifact
from edgeloop.core.campaign import Campaign
from edgeloop.core.events import ArtifactBuilt, Judgement
from edgeloop.core.network import Engine, NetworkSpec
from edgeloop.core.plan import Plan
from edgeloop.core.verdict import Outcome, Verdict
from edgeloop.errors import BuildError, StationError, UnreachableError, UserError
from edgeloop.loop.adapters import Adapters, RunFacts
from edgeloop.loop.controller import Controller
from edgeloop.loop.replay import EventReplay
from edgeloop.ports import TrainedNetwork
from edgeloop.search.space import SearchSpace
from edgeloop.search.strategies import PatentStrategy
from edgeloop.testing.fakes.clock import FakeClock
from edgeloop.testing.fakes.memory_ledger import MemoryLedger
from edgeloop.testing.fakes.simulated_adapters import walk
from edgeloop.testing.fakes.simulated_board import simulated_sizes

CAMPAIGN = Campaign.model_validate(
    {
        "schema": 1,
        "name": "c",
        "targets": ["b"],
        "limits": {"limit": [{"metric": "deployed_size", "max_bytes": 10**9}]},
        "reference": {"family": "ds_cnn"},
        "search": {"widths": [1.5, 2.0], "lightenings": ["w8a8"]},
    }
)
M1 = NetworkSpec(family="ds_cnn")


def judged(trial: int, split: Any) -> Judgement:
    """A pass."""
    return Judgement(
        trial=trial,
        job_key=f"{trial}-{split}",
        target="b",
        split=split,
        plan=Plan.of("standard"),
        look=1,
        summary=None,
        reference=None,
        trust=None,
        verdict=Verdict(outcome=Outcome.PASS),
        seconds=1,
    )


@dataclass
class Shop:
    """Trainer, builder, measuring and bench in one; records what was asked."""

    broken: frozenset[float] = frozenset()
    """Widths whose build fails."""
    processor: str = ""
    """What is built for, where there is a choice."""
    room: bool = True
    shares_host: bool = True
    measure: Any = None
    built: list[tuple[float, str]] = field(default_factory=list)
    trained: list[str] = field(default_factory=list)
    measured: list[float] = field(default_factory=list)

    memo: Any = None

    def __post_init__(self) -> None:
        self.board = SimpleNamespace(name="b", shares_host=self.shares_host)

    def describe(self, network: NetworkSpec, *_: Any) -> Any:
        return simulated_sizes(network)

    def key(self, what: Any, lightening: str = "") -> str:
        """Of a training job, or of a trained network and a rung."""
        if lightening:
            return f"{what.key} {lightening}{self.processor}"
        return f"{what.network.width} {what.lightening}"

    def submit(self, job: Any, _progress: Any) -> Future[TrainedNetwork]:
        self.trained.append(f"{job.network.width} {job.lightening}")
        future: Future[TrainedNetwork] = Future()
        key = f"{job.network.width}-{job.lightening}"
        future.set_result(TrainedNetwork(key=key, folder=f"/{key}", seconds=1, epochs=1, validation={}))
        return future

    def abandon(self, keep: str) -> None:
        pass

    def warm_up(self) -> None:
        pass

    def build(self, trained: TrainedNetwork, lightening: str) -> Artifact:
        width = float(trained.key.split("-")[0])
        self.built.append((width, lightening))
        if width in self.broken:
            raise BuildError("the converter crashed")
        return make_artifact(sha256=trained.key + self.processor, deployed_bytes=1000)

    def on_host(self, *_: Any) -> dict[str, float]:
        return {}

    def measure_reference(self, bench: Any, _candidate: Any, _artifact: Any, run_on: Any) -> Any:
        run_on(bench, self.measure or (lambda: None))
        self.memo.append(judged(0, "validation"))
        return SimpleNamespace()

    def confirm(self, contender: Any, *_: Any) -> Outcome:
        self.measured.append(contender.candidate.network.width)
        self.memo.append(judged(contender.number, "validation"))
        return Outcome.PASS

    def prove(self, contender: Any, *_: Any) -> Outcome:
        self.memo.append(judged(contender.number, "test"))
        return Outcome.PASS

    # what an observer is told

    def stage(self, *_: Any) -> None:
        pass

    progress = entry = stage


def controller(
    shop: Shop,
    ledger: MemoryLedger,
    campaign_key: str = "k",
    beside: Mapping[str, Shop] | None = None,
    tuned: frozenset[Engine] = frozenset(),
) -> Controller:
    """`beside`: more targets, and who builds for them."""
    others: Mapping[str, Any] = beside or {}
    memo = shop.memo = EventReplay(ledger, shop)

    def strategy(m1: Any, sizes: Any, m1_bytes: int, sizes_of: Any) -> PatentStrategy:
        return PatentStrategy(
            SearchSpace(
                search=CAMPAIGN.search,
                m1=m1,
                m1_sizes=sizes,
                m1_lightening="fp32",
                m1_bytes=m1_bytes,
                larger="factory",
                teacher="none",
                limits=CAMPAIGN.limits,
                sizes_of=sizes_of,
            )
        )

    parts: Any = shop
    return Controller(
        CAMPAIGN,
        M1,
        Adapters(
            networks=parts,
            trainer=parts,
            builder_for=lambda _engine, board: others.get(board.name, parts),
            benches=[parts, *(SimpleNamespace(board=SimpleNamespace(name=n, shares_host=True)) for n in others)],  # type: ignore[misc]
            clock=FakeClock(),
            observer=parts,
            has_room=lambda: shop.room,
            strategy=strategy,
        ),
        RunFacts(campaign_key=campaign_key, versions={}, data_sha256="d", channel_multiple=4, tuned_engines=tuned),
        replay=memo,
        policy=parts,
    )


def kinds(ledger: MemoryLedger) -> list[str]:
    return [entry.event.kind for entry in ledger.entries()]


def test_a_build_that_fails_closes_its_trial_and_the_search_goes_on() -> None:
    ledger = MemoryLedger(FakeClock())
    shop = Shop(broken=frozenset({2.0, 1.5}))
    finished = walk(controller(shop, ledger))
    assert finished.exit_code == 3, "nothing was measured, so nothing can be told"
    assert kinds(ledger).count("errored") == 2
    assert shop.measured == []


def test_a_build_that_failed_is_tried_again_where_it_is_wanted_again() -> None:
    shop = Shop(broken=frozenset({1.0}))
    made = controller(shop, MemoryLedger(FakeClock()))
    trial = made.ask()
    assert trial is not None
    with pytest.raises(BuildError):
        made.make(trial)
    shop.broken = frozenset()
    assert made.make(trial).deployed_bytes == 1000
    made.close()


@pytest.mark.parametrize("tuned", [frozenset[Engine](["litert"]), frozenset[Engine]()])
def test_whoever_interrupts_a_build_that_measures_on_a_board_need_not_wait_for_it(tuned: frozenset[Engine]) -> None:
    daemons = []

    class Seen(Shop):
        def build(self, trained: TrainedNetwork, lightening: str) -> Artifact:
            daemons.append(threading.current_thread().daemon)
            return super().build(trained, lightening)

    walk(controller(Seen(), MemoryLedger(FakeClock()), tuned=tuned))
    assert set(daemons) == {bool(tuned)}


def test_a_candidate_is_built_once_for_each_processor_and_each_target_knows_its_file() -> None:
    ledger, shop, other = MemoryLedger(FakeClock()), Shop(processor=" a72"), Shop(processor=" a53")
    walk(controller(shop, ledger, beside={"c": other, "d": shop, "e": other}))
    assert shop.built == other.built == [(1.0, "fp32"), (1.5, "w8a8")]
    for event in (entry.event for entry in ledger.entries()):
        if isinstance(event, ArtifactBuilt):
            files = [event.on(target).sha256.rpartition(" ")[2] for target in "bcde"]
            assert files == ["a72", "a53", "a72", "a53"]
            assert [artifact.sha256 for artifact in event.artifacts] == [event.on("b").sha256, event.on("c").sha256]
            assert list(event.elsewhere) == ["c", "e"]


def test_what_closed_a_trial_is_not_tried_again_by_a_resumed_run() -> None:
    first = MemoryLedger(FakeClock())
    broken = Shop(broken=frozenset({2.0, 1.5}))
    walk(controller(broken, first))
    until = [entry for entry in first.entries() if entry.event.kind not in {"finished", "moved"}]
    cut = [entry for number, entry in enumerate(until) if number <= [e.event.kind for e in until].index("errored")]
    mended = Shop()
    resumed = MemoryLedger(FakeClock(), cut)
    finished = walk(controller(mended, resumed))
    assert finished.best == 2
    assert [e.event.kind for e in resumed.entries()].count("errored") == 1
    assert len(mended.measured) == 1


def test_a_toolchain_that_fails_for_want_of_room_stops_the_run_and_says_nothing_of_the_trial() -> None:
    ledger = MemoryLedger(FakeClock())
    with pytest.raises(StationError, match="no room left") as caught:
        walk(controller(Shop(broken=frozenset({2.0, 1.5}), room=False), ledger))
    assert "resume=True" in str(caught.value.next_step)
    assert {"errored", "finished"}.isdisjoint(kinds(ledger))
    assert walk(controller(Shop(), MemoryLedger(FakeClock(), ledger.entries()))).exit_code == 0


def test_a_board_that_is_gone_stops_the_run_and_leaves_it_resumable() -> None:
    def gone() -> None:
        raise UnreachableError("no answer")

    ledger = MemoryLedger(FakeClock())
    with pytest.raises(UnreachableError):
        walk(controller(Shop(measure=gone, shares_host=False), ledger))
    assert "finished" not in kinds(ledger)
    assert walk(controller(Shop(), MemoryLedger(FakeClock(), ledger.entries()))).exit_code == 0


def test_a_run_is_not_resumed_with_another_campaign() -> None:
    ledger = MemoryLedger(FakeClock())
    walk(controller(Shop(), ledger))
    with pytest.raises(UserError, match="not the one this run was started with"):
        walk(controller(Shop(), MemoryLedger(FakeClock(), ledger.entries()), campaign_key="other"))


def test_a_finished_run_asks_nobody_again() -> None:
    ledger = MemoryLedger(FakeClock())
    walk(controller(Shop(), ledger))
    shop = Shop()
    again = MemoryLedger(FakeClock(), ledger.entries())
    assert walk(controller(shop, again)).exit_code == 0
    assert (shop.trained, shop.built, shop.measured) == ([], [], [])
    assert len(again.entries()) == len(ledger.entries())


def test_while_a_remote_board_measures_m1_the_first_candidate_is_trained_and_built() -> None:
    seen: list[list[str]] = []
    shop = Shop(shares_host=False)

    def measuring() -> None:
        ends = time.monotonic() + 10
        while not any(rung == "w8a8" for _, rung in shop.built) and time.monotonic() < ends:
            threading.Event().wait(0.005)
        seen.append([rung for _, rung in shop.built])

    shop.measure = measuring
    walk(controller(shop, MemoryLedger(FakeClock())))
    assert "w8a8" in seen[0]


def test_on_a_target_that_shares_the_host_nothing_is_trained_while_it_measures() -> None:
    seen: list[int] = []
    shop = Shop(shares_host=True)
    shop.measure = lambda: seen.append(len(shop.trained))
    walk(controller(shop, MemoryLedger(FakeClock())))
    assert seen == [1], "M1 alone"


def test_whoever_interrupts_a_run_does_not_wait_for_the_board(tmp_path: Path) -> None:
    release = threading.Event()
    shop = Shop(shares_host=False, measure=lambda: release.wait(30))

    def interrupted(*_: Any) -> Any:
        raise KeyboardInterrupt

    shop_any: Any = shop
    began = time.monotonic()
    made = controller(shop, MemoryLedger(FakeClock()))
    submit = shop_any.submit
    shop_any.submit = lambda job, progress: interrupted() if job.lightening == "w8a8" else submit(job, progress)
    with pytest.raises(KeyboardInterrupt):
        walk(made)
    assert time.monotonic() - began < 10
    release.set()
