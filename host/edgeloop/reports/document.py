"""The JSON that commands print with --json: one shape for a measurement, nested by every other command."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from edgeloop.analysis.comparison import Comparison
from edgeloop.core.artifact import Artifact
from edgeloop.core.events import Entry, Judgement, RunFinished, RunStarted, Trial, fold
from edgeloop.core.measurement import EnergySummary, Interval, LatencySummary, MetricSummary, Summary
from edgeloop.core.profile import Profile
from edgeloop.reports.run_view import RunView
from edgeloop.reports.settings import same_network

SCHEMA = 1


def measurement(judged: Judgement, artifact: Artifact, *, limits_given: bool = True) -> dict[str, Any]:
    """One judged measurement. Latencies in ns, sizes in bytes; `verdict` is null where no limit was given."""
    summary = judged.summary
    return {
        "schema": SCHEMA,
        "target": judged.target,
        "emulated": judged.emulated,
        **_subject(summary, artifact),
        "split": judged.split,
        "plan": judged.plan.model_dump(mode="json"),
        **_numbers(summary),
        **_judgement(judged, limits_given),
        "reference": _numbers(judged.reference) if judged.reference else None,
    }


def comparison(judged: Judgement, found: Comparison, a: Artifact, b: Artifact, *, limits_given: bool) -> dict[str, Any]:
    """B beside A: the pieces of a measurement for each, `ratio` (B over A) and `difference` (B less A)."""
    return {
        "schema": SCHEMA,
        "target": judged.target,
        "emulated": judged.emulated,
        "plan": judged.plan.model_dump(mode="json"),
        "a": {**_subject(judged.reference, a), **_numbers(judged.reference)},
        "b": {**_subject(judged.summary, b), **_numbers(judged.summary)},
        "ratio": {
            "confidence": found.confidence,
            "rounds": found.rounds,
            **{
                name: {"value": ratio.value, "interval": _interval(ratio.interval), "note": ratio.note}
                for name, ratio in found.ratio.items()
            },
        },
        "difference": {
            "deployed_bytes": found.deployed_bytes,
            "peak_rss_bytes": found.peak_rss_bytes,
            "rss_above_runtime_bytes": found.rss_above_runtime_bytes,
            "metrics": [
                {**metric.model_dump(mode="json"), "interval": _interval(metric.interval)} for metric in found.metrics
            ],
        },
        "agreement": _accuracy(found.agreement) if found.agreement else None,
        **_judgement(judged, limits_given),
    }


def run(entries: Sequence[Entry]) -> dict[str, Any]:
    """A whole run: every trial with its measurements, and how it ended (null while it has not)."""
    events = [entry.event for entry in entries]
    started = next((event for event in events if isinstance(event, RunStarted)), None)
    finished = next((event for event in events if isinstance(event, RunFinished)), None)
    return {
        "schema": SCHEMA,
        "campaign": started.campaign_name if started else None,
        "targets": list(started.targets) if started else [],
        "versions": started.versions if started else {},
        "finished": finished.model_dump(mode="json", exclude={"kind"}) if finished else None,
        "spent": {"trials": entries[-1].trials_spent, "wall_s": entries[-1].wall_s_spent} if entries else None,
        "trials": [_trial(trial) for trial in fold(events)],
        "same_network": [row.document() for row in same_network(RunView.of(entries))],
    }


def _trial(trial: Trial) -> dict[str, Any]:
    built = trial.build
    return {
        "trial": trial.number,
        "role": trial.role,
        "candidate": trial.candidate.model_dump(mode="json"),
        "name": str(trial.candidate),
        "degree": trial.degree,
        "evaluation": trial.evaluation,
        "parameters": trial.sizes.parameters,
        "macs": trial.sizes.macs,
        "peak_activation_bytes": trial.peak_activation_bytes,
        "predicted_bytes": trial.predicted_bytes,
        "deployed_bytes": built.artifact.deployed_bytes if built else None,
        "why": trial.why,
        "outcome": trial.outcome.value,
        "passed": trial.passed,
        "trained": trial.training.model_dump(mode="json", exclude={"kind", "trial"}) if trial.training else None,
        "converted": built.converted if built else None,
        "parity": built.artifact.parity.model_dump(mode="json") if built and built.artifact.parity else None,
        "measurements": [measurement(j, built.on(j.target)) for j in trial.judgements] if built else [],
        "error": trial.error.model_dump(mode="json", exclude={"kind", "trial"}) if trial.error else None,
        "move": {"direction": trial.move.direction, "sentence": trial.move.sentence} if trial.move else None,
    }


def _subject(summary: Summary | None, artifact: Artifact) -> dict[str, Any]:
    return {
        "engine": summary.engine if summary else None,
        "threads": summary.threads if summary else None,
        "delegate": _delegate(summary) if summary and summary.delegate else None,
        "model": {
            "path": artifact.origin,
            "sha256": artifact.sha256,
            "deployed_bytes": artifact.deployed_bytes,
            "converted_by": artifact.tools if artifact.converted_from is not None else None,
        },
    }


def _delegate(summary: Summary) -> dict[str, Any]:
    """What was asked for, and what it took of the network's operators; null where no session told."""
    found = summary.delegation
    return {
        "name": summary.delegate,
        "operators": found.operators if found else None,
        "taken": found.taken if found else None,
        "taken_pct": found.taken_pct if found else None,
        "pieces": found.pieces if found else None,
    }


def _judgement(judged: Judgement, limits_given: bool) -> dict[str, Any]:
    return {
        "environment": judged.environment.model_dump(mode="json") if judged.environment else None,
        "conditions": judged.conditions,
        "trust": judged.trust.model_dump(mode="json") if judged.trust else None,
        "findings": [finding.model_dump(mode="json") for finding in judged.verdict.findings],
        "verdict": judged.verdict.outcome.value if limits_given else None,
        "rule": judged.verdict.rule,
        "reasons": list(judged.verdict.reasons),
    }


def _interval(interval: Interval | None) -> list[float] | None:
    return [interval.low, interval.high] if interval else None


def _numbers(summary: Summary | None) -> dict[str, Any]:
    latency = summary.latency if summary else None
    return {
        "sessions": latency.sessions if latency else 0,
        "samples": latency.samples if latency else 0,
        "latency_ns": _latency(latency) if latency else None,
        "stages_ns": _stages(summary) if summary and summary.stages_ns else None,
        "missed_periods": summary.missed_periods if summary else 0,
        "overhead_ns": summary.overhead_ns if summary else None,
        "per_op": _per_op(summary.profile) if summary and summary.profile else None,
        "memory": summary.profile.memory.model_dump(mode="json") if summary and summary.profile else None,
        "profile_problem": (summary.profile_problem or None) if summary else None,
        "peak_rss_bytes": summary.peak_rss_bytes if summary else None,
        "runtime_rss_bytes": summary.runtime_rss_bytes if summary else None,
        "energy": _energy(summary.energy) if summary and summary.energy else None,
        "accuracy": _accuracy(summary.metrics[0]) if summary and summary.metrics else None,
        "metrics": [_accuracy(metric) for metric in summary.metrics] if summary else [],
        "agreement": _accuracy(summary.agreement) if summary and summary.agreement else None,
    }


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
    return {
        stage.stage: {
            "p50": stage.p50,
            "interval": [stage.interval.low, stage.interval.high] if stage.interval else None,
        }
        for stage in summary.stages_ns
    }


def _energy(energy: EnergySummary) -> dict[str, Any]:
    """Energies in mJ, powers in mW; `per` says whether of a period or, back to back, of an inference."""
    plain = energy.model_dump(mode="json", exclude={"interval", "confidence", "problems"})
    interval = {name: [span.low, span.high] for name, span in energy.interval.items()}
    return {**plain, "interval": {"confidence": energy.confidence, **interval}, "problems": list(energy.problems)}


def _accuracy(metric: MetricSummary) -> dict[str, Any]:
    return {"metric": metric.metric, "value": metric.value, "interval": _interval(metric.interval), "n": metric.n}
