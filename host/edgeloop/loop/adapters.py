"""The parts that a run works with, and the facts it is about: what `wiring` chooses, and what the campaign settles."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from edgeloop.core.board import Board
from edgeloop.core.events import Split
from edgeloop.core.network import Engine, NetworkSizes, NetworkSpec
from edgeloop.loop.external_measurements import ExternalMeasurement
from edgeloop.ports import Bench, Builder, Clock, Networks, Observer, Strategy, Trainer

SizesOf = Callable[[NetworkSpec], NetworkSizes]
StrategyBesideM1 = Callable[[NetworkSpec, NetworkSizes, int, SizesOf], Strategy]
"""(M1, its sizes, its deployed bytes, sizes of a network) -> the strategy of the campaign."""
ExternalMeasurements = Mapping[Split, ExternalMeasurement]


@dataclass(frozen=True, slots=True)
class Adapters:
    """The ports of one run, filled. A third party's fill them as well as ours."""

    networks: Networks
    trainer: Trainer
    builder_for: Callable[[Engine, Board], Builder]
    """The builder of files for an engine on a board; where two boards take the same file, the keys are equal."""
    benches: Sequence[Bench]
    clock: Clock
    observer: Observer
    strategy: StrategyBesideM1
    has_room: Callable[[], bool]
    """True where the disk of the run's folder has room for a training and a build."""
    compilers: Mapping[str, Builder] = field(default_factory=dict)
    """The builders of files for delegates that have a compiler of their own, by the delegate's name."""
    keep_external_m1: Callable[[ExternalMeasurements], None] = lambda _measurements: None
    """Keeps what the caller measured of M1, so that a later walk can go on beside it."""


@dataclass(frozen=True, slots=True)
class RunFacts:
    """One run's own facts: equal facts make equal events."""

    campaign_key: str
    """Digest of the campaign and of every file it names."""
    versions: Mapping[str, str]
    data_sha256: str
    channel_multiple: int
    lower_is_better: frozenset[str] = frozenset()
    """Metrics of the task where small is good."""
    first_larger: NetworkSpec | None = None
    """An M2 that is looked at before anything is trained, so that what is wrong with it is said early."""
    tuned_engines: frozenset[Engine] = frozenset()
    """Engines whose builds measure on a board, and so are not made ahead while one measures."""
    external_m1: ExternalMeasurements = field(default_factory=dict)
    """The caller's own measurements of M1, of an earlier walk."""
