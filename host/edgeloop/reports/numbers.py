"""The figures of a measurement as JSON: latencies in ns, sizes in bytes, energies in mJ, powers in mW."""

from __future__ import annotations

from typing import Any

from edgeloop.core.measurement import EnergySummary, Interval, LatencySummary, MetricSummary, Summary
from edgeloop.core.metrics import readings
from edgeloop.core.profile import Profile

_NOTHING_MEASURED = Summary(label="", engine="", threads=1, deployed_bytes=0, latency=None)


def numbers(summary: Summary | None) -> dict[str, Any]:
    """Return every figure of a subject; null, 0 or empty where it was not measured."""
    figures = summary or _NOTHING_MEASURED
    latency, profile = figures.latency, figures.profile
    return {
        "sessions": latency.sessions if latency else 0,
        "samples": latency.samples if latency else 0,
        "latency_ns": _latency(latency) if latency else None,
        "stages_ns": _stages(figures) or None,
        **_readings(figures, with_family=False),
        "per_op": _per_op(profile) if profile else None,
        "memory": profile.memory.model_dump(mode="json") if profile else None,
        "profile_problem": figures.profile_problem or None,
        **_readings(figures, with_family=True),
        "energy": _energy(figures.energy) if figures.energy else None,
        "accuracy": score(figures.metrics[0]) if figures.metrics else None,
        "metrics": [score(metric) for metric in figures.metrics],
        "agreement": score(figures.agreement) if figures.agreement else None,
    }


def score(metric: MetricSummary) -> dict[str, Any]:
    """Return one score with its interval."""
    return {"metric": metric.metric, "value": metric.value, "interval": ends(metric.interval), "n": metric.n}


def ends(interval: Interval | None) -> list[float] | None:
    """Return the ends of an interval; None for none."""
    return [interval.low, interval.high] if interval else None


def _readings(summary: Summary, *, with_family: bool) -> dict[str, float | None]:
    """Figures that were read: those that a limit may be about, or those that say how the sessions went."""
    rows = (row for row in readings(in_summary=True) if (row.family is not None) == with_family)
    return {row.key: summary.reading(row.key) for row in rows}


def _latency(latency: LatencySummary) -> dict[str, Any]:
    return {
        **{name: getattr(latency, name) for name in ("p50", "p90", "p99", "mean", "min", "first", "load")},
        "interval": {
            "confidence": latency.confidence,
            **{name: [interval.low, interval.high] for name, interval in latency.interval.items()},
        },
    }


def _per_op(profile: Profile) -> dict[str, Any]:
    """Times in ns. `timed_with` names the operators whose time holds this one's; `share` is of `sum_ns`."""
    return {
        "how": profile.how,
        "whole_ns": profile.whole_ns,
        "sum_ns": profile.sum_ns,
        "rounds": profile.rounds,
        "outputs_equal": profile.outputs_equal,
        "operators": [
            {
                "index": time.operator.index,
                "operator": time.operator.operator,
                "outputs": [output.model_dump(mode="json") for output in time.operator.outputs],
                "p50_ns": time.p50_ns,
                "share": time.share,
                "runs": time.runs,
                "timed_with": list(time.timed_with),
            }
            for time in profile.operators
        ],
    }


def _stages(summary: Summary) -> dict[str, Any]:
    """Of each stage in its order the median, with its interval (null from a single session)."""
    return {stage.stage: {"p50": stage.p50, "interval": ends(stage.interval)} for stage in summary.stages_ns}


def _energy(energy: EnergySummary) -> dict[str, Any]:
    """`per` says whether an energy is of a period or, back to back, of an inference."""
    plain = energy.model_dump(mode="json", exclude={"interval", "confidence", "problems"})
    interval = {name: [span.low, span.high] for name, span in energy.interval.items()}
    return {**plain, "interval": {"confidence": energy.confidence, **interval}, "problems": list(energy.problems)}
