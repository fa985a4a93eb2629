"""The builders of a campaign: one for an engine on a board, shared by the boards that take the same file."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgeloop.builders.delegate import DelegateBuilder
from edgeloop.builders.parity import Gate
from edgeloop.builders.tflite.builder import TfliteBuilder
from edgeloop.builders.tvm.builder import TvmBuilder
from edgeloop.builders.tvm.tuning import Tuner
from edgeloop.core.campaign import Campaign
from edgeloop.engines.registry import DEFAULT, ENGINES, TVM
from edgeloop.ports import Activity, Bench, Builder, Observer, Progress
from edgeloop.wiring.board_timer import BoardTimer
from edgeloop.wiring.clock import SystemClock
from edgeloop.wiring.processors import tvm_target


@dataclass(frozen=True, slots=True)
class BuilderSite:
    """The place that a builder is made for: an engine on one board of a run."""

    campaign: Campaign
    folder: Path
    """The run's."""
    gate: Gate
    """Built networks have to pass it."""
    bench: Bench
    """For its processor and for tuning; where the engine's files fit every board, that of the first one."""
    observer: Observer
    builder_of: Callable[[str], Builder]
    """The builder of another engine on the same board, whose files this one may start from."""

    @property
    def store(self) -> Path:
        """The folder of all that is built."""
        return self.folder / "artifacts"


BuilderFactory = Callable[[BuilderSite], Builder]
BuilderWrapper = Callable[[Builder, Bench], Builder]
"""Puts another builder around one."""


class BuilderSet:
    """The builders of a run by engine and board, each made when it is first asked for."""

    def __init__(
        self,
        campaign: Campaign,
        folder: Path,
        gate: Gate,
        observer: Observer,
        factories: Mapping[str, BuilderFactory],
        *,
        wrap: BuilderWrapper | None = None,
    ) -> None:
        """`factories` are by the engines' names; `wrap` is put around every builder that is handed out."""
        self._campaign, self._folder, self._gate, self._observer = campaign, folder, gate, observer
        self._factories = factories
        self._wrap = wrap
        self._bare: dict[tuple[BuilderFactory, str], Builder] = {}
        self._whole: dict[tuple[str, str], Builder] = {}

    def of(self, engine: str, bench: Bench) -> Builder:
        """Return the builder of an engine for a board."""
        place = engine, bench.board.name
        if place not in self._whole:
            bare = self._bare_one(engine, bench)
            self._whole[place] = bare if self._wrap is None else self._wrap(bare, bench)
        return self._whole[place]

    def close(self) -> None:
        """Close every builder that was made."""
        for builder in (*self._whole.values(), *self._bare.values()):
            builder.close()

    def _bare_one(self, engine: str, bench: Bench) -> Builder:
        factory = self._factories[engine]
        place = factory, bench.board.name if ENGINES[engine].per_processor else ""
        if place not in self._bare:
            self._bare[place] = factory(
                BuilderSite(
                    campaign=self._campaign,
                    folder=self._folder,
                    gate=self._gate,
                    bench=bench,
                    observer=self._observer,
                    builder_of=lambda name: self._bare_one(name, bench),
                )
            )
        return self._bare[place]


def tflite_builder(site: BuilderSite) -> Builder:
    """Make the builder of .tflite files."""
    return TfliteBuilder(site.store, site.gate, limits=site.campaign.toolchain.build_limits)


def tvm_builder(site: BuilderSite) -> Builder:
    """Make the builder of libraries that TVM compiles, out of .tflite files, for the processor of the board."""
    campaign = site.campaign
    return TvmBuilder(
        site.store,
        site.gate,
        site.builder_of(DEFAULT.name),
        functools.partial(tvm_target, site.bench),
        tuner=_tuner(site) if campaign.tuning.trials else None,
        limits=campaign.toolchain.build_limits,
    )


def delegate_builders(
    store: Path, tflite: Builder, commands: Mapping[str, Sequence[str]], campaign: Campaign
) -> dict[str, Builder]:
    """Return the builders of delegates that have a compiler, by the delegates' names, in the same store as `tflite`."""
    limits = campaign.toolchain.build_limits
    return {name: DelegateBuilder(store, tflite, name, command, limits=limits) for name, command in commands.items()}


def _tuner(site: BuilderSite) -> Tuner:
    """Tunes on one board, for all boards of its model."""
    campaign, folder, observer = site.campaign, site.folder / "tuning", site.observer
    timer = BoardTimer(site.bench, TVM.name, folder / "samples", campaign.environment, observer.progress)
    return Tuner(
        campaign.tuning, timer, folder, SystemClock(), lambda line: observer.progress(Progress(line, Activity.TUNING))
    )
