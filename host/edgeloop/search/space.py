"""The search space as points, and what is predicted of each before anything is trained.

Points are networks x rungs x settings, without those that could say nothing new: a rung that changes nothing of a
network, that its engine can't run, or that turned out to be the same network as another one.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from math import log2

from edgeloop.core.campaign import Search
from edgeloop.core.lightening import Lightening
from edgeloop.core.limits import LimitSet
from edgeloop.core.mixed_precision import LayerChoice, Sensitivity, least_sensitive, sensitivities
from edgeloop.core.network import Candidate, NetworkSizes, NetworkSpec, Setting, Teacher
from edgeloop.core.verdict import Family
from edgeloop.engines.registry import ENGINES
from edgeloop.errors import ConfigError, Fault, ModelError
from edgeloop.search.engine_rungs import refusal
from edgeloop.search.larger_networks import (
    Larger,
    Origin,
    bytes_curve,
    determine,
    parity_delta,
    shape_of,
    size_evaluation,
)
from edgeloop.search.size_model import Prediction, low_weights

START_RUNG = Lightening.parse("w8a8")
_PLAIN = Setting()
OVERSIZED = 1.15
"""A candidate that is predicted this far over the size limit is asked last, not never."""


@dataclass(frozen=True, slots=True, order=True)
class Point:
    """A candidate as indices: networks from the smallest, rungs from the least lightened."""

    network: int
    rung: int
    setting: int
    """Engine, thread count and delegate."""


class SearchSpace:
    """Networks x rungs x settings. `sizes_of` may be slow: it is called late, once for each network."""

    def __init__(
        self,
        *,
        search: Search,
        m1: NetworkSpec,
        m1_sizes: NetworkSizes,
        m1_lightening: str,
        m1_bytes: int,
        larger: Origin,
        teacher: Teacher,
        limits: LimitSet,
        sizes_of: Callable[[NetworkSpec], NetworkSizes],
        m1_setting: Setting = _PLAIN,
        compiling: Collection[str] = (),
    ) -> None:
        """`compiling`: the delegates whose own compiler makes the file that is deployed."""
        self.search, self._larger, self._teacher = search, larger, teacher
        self._m1, self._m1_sizes, self._m1_bytes = m1, m1_sizes, m1_bytes
        self._sizes_of = sizes_of
        self._shape = shape_of(search.evaluation)
        rungs = map(Lightening.parse, search.lightenings)
        self.rungs = sorted({rung.name: rung for rung in rungs}.values(), key=lambda rung: (rung.height, rung.name))
        self.start_rung = min(
            range(len(self.rungs)),
            key=lambda i: (self.rungs[i].pruned_pct, abs(self.rungs[i].step - START_RUNG.step), i),
        )
        self.settings = search.settings
        self.prediction = Prediction()
        self._compiled_files: dict[str, Prediction] = {}
        """By what compiles: a compiled network is code too, and one kind of file says nothing of the other."""
        self._compiling = compiling
        self._m1_setting = m1_setting
        if m1.file is None:  # another converter's file says nothing of what ours will write
            self._prediction(m1_setting).learn(m1_sizes, Lightening.parse(m1_lightening), m1_bytes)
        self._parities: dict[int, tuple[int, float]] = {}
        self._orders: dict[tuple[int, str, int], tuple[Sensitivity, ...]] = {}
        """By network, base of the rung and pruning: the layers with a choice, as sensitive as they were found."""
        self._trainings: set[tuple[int, int]] = set()
        """Networks and rungs that were trained."""
        self._twins: dict[tuple[int, int], str] = {}
        self.families = frozenset(limit.family for limit in limits.limit)
        self._bytes_max = min(
            (
                limit.bound * (m1_bytes if limit.kind.relative else limit.kind.factor)
                for limit in limits.limit
                if limit.family is Family.SIZE
            ),
            default=float("inf"),
        )

    @cached_property
    def _larger_networks(self) -> tuple[list[Larger], list[str]]:
        if self._larger == "none":
            return [Larger(self._m1, self._m1_sizes, self._m1.label)], []
        networks, left_out = determine(self._m1, self._m1_sizes, self.search, self._sizes_of, self._larger)
        if not networks:
            in_list = isinstance(self._larger, tuple) and any(network.listed for network in self._larger)
            step = f"{'name larger ones' if in_list else 'raise the width'}"
            step += ", or set reference.larger = 'none'" if self._m1.file is None else ""
            where = "reference.larger" if in_list else "search.widths"
            raise ConfigError([Fault(where, sentence, step) for sentence in left_out])
        return networks, left_out

    @property
    def networks(self) -> list[Larger]:
        """Every M2, from the smallest. Raises ConfigError where no network of the grid is larger than M1."""
        return self._larger_networks[0]

    @property
    def left_out(self) -> list[str]:
        """A sentence for each network and each rung that is no candidate."""
        return [*self._larger_networks[1], *self._points_and_reasons[1], *self._twins.values()]

    @property
    def points(self) -> list[Point]:
        """Raises ConfigError where nothing is left to ask."""
        return [point for point in self._points_and_reasons[0] if (point.network, point.rung) not in self._twins]

    @cached_property
    def _points_and_reasons(self) -> tuple[list[Point], list[str]]:
        points, left_out = [], dict[tuple[str, str], list[str]]()
        for network in range(len(self.networks)):
            for rung, lightening in enumerate(self.rungs):
                for setting in range(len(self.settings)):
                    point = Point(network, rung, setting)
                    reason = self._unfit(point)
                    if reason is None:
                        points.append(point)
                    else:
                        widths = left_out.setdefault((lightening.name, reason), [])
                        widths += [self.label(point)] if self.label(point) not in widths else []
        reasons = [
            f"{rung} is left out at {', '.join(labels)}: {reason}" for (rung, reason), labels in left_out.items()
        ]
        if not points:
            raise ConfigError([Fault("search.lightenings", sentence, "name other rungs") for sentence in reasons])
        return points, reasons

    def _unfit(self, point: Point) -> str | None:
        """Why a point is no candidate; None where it is one."""
        rung, engine = self.rungs[point.rung], self.settings[point.setting].engine
        try:
            sizes = self.sizes(point)
        except ModelError as error:
            return error.message
        if rung.pruned_pct and sizes == self.networks[point.network].sizes:
            return f"{rung.pruned_pct} % of its channels is less than the multiple that channels are rounded to"
        if rung.has_choice and not low_weights(sizes, rung):
            return (
                f"no layer can take {rung.weight_bits} bit, since the first, the last and depthwise layers stay at "
                f"{rung.edge_weight_bits}"
            )
        return refusal(engine, rung, sizes)

    @cached_property
    def by_key(self) -> dict[str, Point]:
        """Points by the key of their candidate."""
        return {self.candidate(point).key: point for point in self._points_and_reasons[0]}

    def candidate(self, point: Point) -> Candidate:
        setting = self.settings[point.setting]
        return Candidate(
            network=self.networks[point.network].spec,
            lightening=self.rungs[point.rung].name,
            teacher=self._teacher,
            engine=setting.engine,
            threads=setting.threads,
            delegate=setting.delegate,
        )

    def label(self, point: Point) -> str:
        """The network of a point, in words."""
        return self.networks[point.network].label

    def setting_label(self, point: Point) -> str:
        return str(self.settings[point.setting])

    def sizes(self, point: Point) -> NetworkSizes:
        """Sizes of the network that is built: after pruning. Raises ModelError where it can't be pruned."""
        return self._sizes_under(self.networks[point.network], self.rungs[point.rung])

    def _sizes_under(self, network: Larger, rung: Lightening) -> NetworkSizes:
        return self._sizes_of(network.spec.without_channels(rung.pruned_pct)) if rung.pruned_pct else network.sizes

    def predicted_bytes(self, point: Point) -> int:
        """Deployed bytes to expect."""
        prediction = self._prediction(self.settings[point.setting])
        return prediction.bytes_of(self.sizes(point), self.rungs[point.rung], low=self._low(point))

    def _prediction(self, setting: Setting) -> Prediction:
        if ENGINES[setting.engine].per_processor:
            return self._compiled_files.setdefault(setting.engine, Prediction(is_code=True))
        if setting.delegate is not None and setting.delegate in self._compiling:
            return self._compiled_files.setdefault(f"delegate {setting.delegate}", Prediction())
        return self.prediction

    def same_file(self, one: Point, other: Point) -> bool:
        """Return whether the settings of two points run the same file of a network."""
        return self._prediction(self.settings[one.setting]) is self._prediction(self.settings[other.setting])

    def fits(self, point: Point) -> bool:
        """Return whether a point is predicted inside the size limit, or there is none."""
        return self.predicted_bytes(point) < self._bytes_max

    def whole(self, rung: int) -> int | None:
        """The offered rung that takes every layer of which a mixed one takes a share; None for any other rung."""
        own = self.rungs[rung]
        if not own.is_mixed:
            return None
        whole = (own.base, 100, own.pruned_pct)
        return next((i for i, r in enumerate(self.rungs) if (r.base, r.share_pct, r.pruned_pct) == whole), None)

    def same_bits(self, rung: int) -> list[int]:
        """The rung itself and, if it is pruned, the offered ones with the same bits and fewer channels removed."""
        own = self.rungs[rung]
        others = [i for i, r in enumerate(self.rungs) if r.step == own.step and r.pruned_pct < own.pruned_pct]
        return [rung, *sorted(others, key=lambda i: -self.rungs[i].pruned_pct)]

    # what trials teach

    def learn_file(self, point: Point, deployed_bytes: int) -> None:
        """Learn the bytes of a built file."""
        prediction = self._prediction(self.settings[point.setting])
        prediction.learn(self.sizes(point), self.rungs[point.rung], deployed_bytes, low=self._low(point))

    def learn_layers(self, point: Point, layers: Sequence[LayerChoice]) -> None:
        """Learn which layers a training lightened, and what it found each to be worth.

        From then on every share of the same network is known by its layers, and what would be the same network as
        another rung is asked no more.
        """
        rung = self.rungs[point.rung]
        self._trainings.add((point.network, point.rung))
        if rung.has_choice and (order := sensitivities(layers)):
            self._orders[point.network, rung.base, rung.pruned_pct] = order
        for base in dict.fromkeys(other.base for other in self.rungs if other.has_choice):
            self._find_twins(point.network, base, rung.pruned_pct)

    def _find_twins(self, network: int, base: str, pruned_pct: int) -> None:
        """Leave out the shares of a rung that take the layers of another one."""
        order = self._orders.get((network, base, pruned_pct))
        if order is None:
            return
        first: dict[frozenset[str], int] = {}
        shares = [i for i, rung in enumerate(self.rungs) if (rung.base, rung.pruned_pct) == (base, pruned_pct)]
        for rung in sorted(shares, key=lambda i: ((network, i) not in self._trainings, self.rungs[i].is_mixed, i)):
            layers = frozenset(layer.name for layer in least_sensitive(order, self.rungs[rung].share_pct))
            one = first.setdefault(layers, rung)
            if one != rung and (network, rung) not in self._trainings:
                self._twins[network, rung] = (
                    f"{self.rungs[rung].name} is left out at {self.networks[network].label}: it takes the layers of "
                    f"{self.rungs[one].name}, so that it is the same network"
                )

    def given_back(self, point: Point, to: Point) -> list[str] | None:
        """Layers with fewer bits under `point` than under `to`, the most sensitive first; None where none is known."""
        one, other = self._low_layers(point), self._low_layers(to)
        if one is None or other is None or point.network != to.network:
            return None
        return [layer.name for layer in reversed(one) if layer not in other]

    def _low_layers(self, point: Point) -> tuple[Sensitivity, ...] | None:
        """The layers that take the rung's fewer bits, the least sensitive first; None where that is not known."""
        rung = self.rungs[point.rung]
        if not rung.has_choice:
            return ()
        order = self._orders.get((point.network, rung.base, rung.pruned_pct))
        return None if order is None else least_sensitive(order, rung.share_pct)

    def _low(self, point: Point) -> int | None:
        """Weights at the fewer bits of a mixed rung; None where it is not known yet, or the rung is no mixed one."""
        layers = self._low_layers(point) if self.rungs[point.rung].is_mixed else None
        return None if layers is None else sum(layer.weights for layer in layers)

    def is_oversized(self, point: Point) -> bool:
        """Return whether a point is predicted far over the size limit."""
        return self.predicted_bytes(point) > OVERSIZED * self._bytes_max

    def evaluation(self, point: Point) -> float | None:
        """E of a point's network under its rung; None where M1 itself is lightened.

        delta* is found between the real networks of the grid, M1 included, as this rung would build them.
        """
        if self._larger == "none":
            return None
        parameters = self.networks[point.network].sizes.parameters
        return size_evaluation(self._shape, self._m1_sizes.parameters, parameters, self._parity(point.rung))

    def _parity(self, rung: int) -> float:
        """delta* of a rung; kept until another file teaches the prediction."""
        files, parity = self._parities.get(rung, (-1, 0.0))
        prediction = self._prediction(self._m1_setting)
        if files != prediction.files:
            base = self._m1_sizes.parameters
            lightening = self.rungs[rung]
            m1 = Larger(self._m1, self._m1_sizes, self._m1.label)
            curve = []
            for network in (m1, *self.networks):
                with suppress(ModelError):  # one that can't be pruned is no candidate, and says nothing of the others
                    file_bytes = prediction.bytes_of(self._sizes_under(network, lightening), lightening)
                    curve.append((log2(network.sizes.parameters / base), float(file_bytes)))
            parity = parity_delta(self._m1_bytes, bytes_curve(curve))
            self._parities[rung] = (prediction.files, parity)
        return parity
