"""A board and a trainer in one, simulated: candidates get their latency, accuracy, bytes and memory from tables.

For testing a `Strategy` without a board: its truth is known, its latency may be anything but monotone in
the degree of lightening, and it can refuse to measure. It records what was asked.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from edgeloop.core.artifact import Artifact
from edgeloop.core.events import ArtifactBuilt, Judgement, Trial, TrialErrored
from edgeloop.core.limits import Limit, LimitSet
from edgeloop.core.measurement import EnergySummary, Interval, LatencySummary, MetricSummary, Summary
from edgeloop.core.network import Candidate, LayerSize, NetworkSizes, NetworkSpec
from edgeloop.core.plan import Plan
from edgeloop.core.verdict import Finding, Outcome, Verdict
from edgeloop.errors import Owner
from edgeloop.ports import Strategy


@dataclass(frozen=True, slots=True)
class Truth:
    """The true figures of a candidate."""

    latency_ms: float
    """Median; p90 is 1.1 and p99 1.3 times as long."""
    accuracy: float
    deployed_bytes: int
    peak_rss_bytes: int
    energy_mj: float | None = None
    """Of a period; None: no power meter."""


def simulated_sizes(network: NetworkSpec, channels: int = 16, blocks: int = 3) -> NetworkSizes:
    """Sizes of a depthwise-separable network as wide as asked, channels rounded to a multiple of 4."""
    wide = max(4, 4 * round(channels * network.width / 4))
    pixels, layers, activations = 14 * 14, [], [28 * 28]
    layers.append(LayerSize(name="stem", weights=9 * wide, bias=wide, out_channels=wide, depthwise=False))
    macs = 9 * wide * pixels
    for block in range(blocks + network.depth):
        layers.append(LayerSize(name=f"dw{block}", weights=9 * wide, bias=wide, out_channels=wide, depthwise=True))
        layers.append(LayerSize(name=f"pw{block}", weights=wide * wide, bias=wide, out_channels=wide, depthwise=False))
        macs += (9 * wide + wide * wide) * pixels
        activations += [wide * pixels, wide * pixels]
    layers.append(LayerSize(name="head", weights=10 * wide, bias=10, out_channels=10, depthwise=False))
    return NetworkSizes(
        parameters=sum(layer.weights + layer.bias for layer in layers),
        macs=macs + 10 * wide,
        layers=tuple(layers),
        activations=(*activations, 10),
        peak_activation_elements=2 * wide * pixels,
    )


@dataclass
class SimulatedBoard:
    """Measures by looking up the truth, with a known share of noise around each latency.

    Limits may be absolute bounds on latency p50, p90, p99, deployed size, peak memory and `top1`.
    """

    limits: LimitSet
    truth: Callable[[Candidate], Truth]
    noise: float = 0.01
    """Half width of a latency's interval, relative."""
    faults: Mapping[str, Outcome] = field(default_factory=dict)
    """By candidate key: ERROR, INVALID or INCONCLUSIVE, whatever the truth."""
    sizes_of: Callable[[NetworkSpec], NetworkSizes] = simulated_sizes
    questions: list[Candidate] = field(default_factory=list)

    def passes(self, candidate: Candidate) -> bool:
        """Return whether a candidate would be measured as inside every limit."""
        if candidate.key in self.faults:
            return False
        return all(self._finding(limit, candidate).outcome is Outcome.PASS for limit in self.limits.limit)

    def measure(self, number: int, candidate: Candidate, why: str, strategy: Strategy) -> Trial:
        """Return the finished trial of a candidate."""
        self.questions.append(candidate)
        evaluation, bytes_to_expect = strategy.rating(candidate)
        truth = self.truth(candidate)
        trial = Trial(
            number=number,
            role="candidate",
            candidate=candidate,
            sizes=self.sizes_of(candidate.network),
            degree=0.0,
            evaluation=evaluation,
            predicted_bytes=bytes_to_expect,
            why=why,
            build=ArtifactBuilt(trial=number, key="k", artifact=_artifact(truth.deployed_bytes), seconds=0.0),
        )
        fault = self.faults.get(candidate.key)
        if fault is Outcome.ERROR:
            error = TrialErrored(
                trial=number, stage="measure", owner=Owner.BOARD, message="the simulated board is away"
            )
            return trial.model_copy(update={"error": error})
        return trial.model_copy(update={"judgements": (self._judge(number, candidate, truth, fault),)})

    def _judge(self, number: int, candidate: Candidate, truth: Truth, fault: Outcome | None) -> Judgement:
        findings = [self._finding(limit, candidate) for limit in self.limits.limit]
        if fault is Outcome.INCONCLUSIVE:
            findings = [f.model_copy(update={"outcome": Outcome.INCONCLUSIVE}) for f in findings]
        if fault is Outcome.INVALID:
            verdict = Verdict(outcome=Outcome.INVALID, reasons=("throttled at 85 C",), findings=tuple(findings))
        else:
            any_fails = any(f.outcome is Outcome.FAIL for f in findings)
            outcome = fault or (Outcome.FAIL if any_fails else Outcome.PASS)
            verdict = Verdict(outcome=outcome, findings=tuple(findings))
        return Judgement(
            trial=number,
            job_key="j",
            target="simulated",
            split="validation",
            plan=Plan.of("standard"),
            look=1,
            summary=self._summary(candidate, truth),
            reference=None,
            trust=None,
            verdict=verdict,
            seconds=0.0,
        )

    def _summary(self, candidate: Candidate, truth: Truth) -> Summary:
        p50 = truth.latency_ms * 1e6
        spread = {"p50": p50, "p90": 1.1 * p50, "p99": 1.3 * p50}
        return Summary(
            label="candidate",
            engine=candidate.engine,
            threads=candidate.threads,
            deployed_bytes=truth.deployed_bytes,
            latency=LatencySummary.model_validate(
                {
                    "sessions": 8,
                    "samples": 8000,
                    **spread,
                    "mean": p50,
                    "min": 0.9 * p50,
                    "first": 3 * p50,
                    "load": 1e6,
                    "confidence": 0.95,
                    "interval": {
                        name: Interval(low=value * (1 - self.noise), high=value * (1 + self.noise))
                        for name, value in spread.items()
                    },
                }
            ),
            peak_rss_bytes=truth.peak_rss_bytes,
            runtime_rss_bytes=truth.peak_rss_bytes // 2,
            metrics=(MetricSummary(metric="top1", value=truth.accuracy, interval=None, n=1000),),
            energy=None if truth.energy_mj is None else self._energy(truth.energy_mj),
        )

    def _energy(self, per_period_mj: float) -> EnergySummary:
        """A third of it above idle, over periods of 100 ms."""
        active_mw = per_period_mj * 10
        of = {"per_period": per_period_mj, "above_idle": per_period_mj / 3}
        return EnergySummary.model_validate(
            {
                "per": "period",
                "per_period_mj": of["per_period"],
                "above_idle_mj": of["above_idle"],
                "idle_mw": active_mw * 2 / 3,
                "active_mw": active_mw,
                "confidence": 0.95,
                "interval": {
                    name: Interval(low=value * (1 - self.noise), high=value * (1 + self.noise))
                    for name, value in of.items()
                },
                "meter": "simulated",
                "accuracy_pct": 1.0,
                "clock_uncertainty_ms": 0.0,
                "sessions": 8,
                "samples": 640,
            }
        )

    def _finding(self, limit: Limit, candidate: Candidate) -> Finding:
        truth = self.truth(candidate)
        if limit.needs_reference:
            raise ValueError(f"{limit.id} ({limit}): the simulated board has no reference network")
        scale = {"p50": 1.0, "p90": 1.1, "p99": 1.3}
        match limit.metric:
            case "latency":
                value, unit = truth.latency_ms * scale[limit.statistic or "p50"], "ms"
            case "deployed_size":
                value, unit = float(truth.deployed_bytes), "bytes"
            case "peak_rss":
                value, unit = float(truth.peak_rss_bytes), "bytes"
            case "energy_per_period" if truth.energy_mj is not None:
                value, unit = truth.energy_mj, "mJ"
            case "top1":
                value, unit = truth.accuracy, ""
            case _:
                raise ValueError(f"{limit.id} ({limit}): the simulated board does not measure {limit.metric}")
        bound = limit.bound * (2**20 if limit.bound_name == "max_mib" else 1)
        gap = value - bound if limit.metric == "top1" else bound - value
        return Finding(
            limit_id=limit.id,
            family=limit.family,
            text=str(limit),
            unit=unit,
            outcome=Outcome.PASS if gap > 0 else Outcome.FAIL,
            limit=bound,
            observed=value,
            interval=(value * (1 - self.noise), value * (1 + self.noise)),
            gap=gap,
            gap_relative=gap / abs(bound) if bound else None,
            reason=f"{value:.4g} against {bound:.4g} {unit}",
            metric=limit.metric,
            statistic=limit.statistic,
            bound=limit.bound_name,
            requirement=limit.requirement,
        )


def search(strategy: Strategy, board: SimulatedBoard, trials_max: int) -> list[Trial]:
    """Ask, measure and tell until a candidate passes, nothing is left, or the budget ends."""
    trials: list[Trial] = []
    while len(trials) < trials_max and (question := strategy.ask()) is not None:
        candidate, why = question
        trial = board.measure(len(trials) + 1, candidate, why, strategy)
        direction, sentence = strategy.tell(trial)
        trials.append(trial.model_copy(update={"why": f"{why} | {direction}: {sentence}"}))
        if trial.outcome is Outcome.PASS:
            break
    return trials


def _artifact(deployed_bytes: int) -> Artifact:
    return Artifact(
        path="/simulated/model.tflite", sha256="0" * 64, deployed_bytes=deployed_bytes, inputs=(), outputs=()
    )
