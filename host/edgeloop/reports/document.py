"""The JSON that commands print with --json: one shape for a measurement, nested by every other command."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from edgeloop.analysis.comparison import Comparison
from edgeloop.core.artifact import Artifact
from edgeloop.core.events import Entry, Judgement, RunFinished, RunStarted, Trial, fold
from edgeloop.core.measurement import Summary
from edgeloop.reports.numbers import ends, numbers, score
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
        **numbers(summary),
        **_judgement(judged, limits_given),
        "reference": numbers(judged.reference) if judged.reference else None,
    }


def comparison(judged: Judgement, found: Comparison, a: Artifact, b: Artifact, *, limits_given: bool) -> dict[str, Any]:
    """B beside A: the pieces of a measurement for each, `ratio` (B over A) and `difference` (B less A)."""
    return {
        "schema": SCHEMA,
        "target": judged.target,
        "emulated": judged.emulated,
        "plan": judged.plan.model_dump(mode="json"),
        "a": {**_subject(judged.reference, a), **numbers(judged.reference)},
        "b": {**_subject(judged.summary, b), **numbers(judged.summary)},
        "ratio": {
            "confidence": found.confidence,
            "rounds": found.rounds,
            **{
                name: {"value": ratio.value, "interval": ends(ratio.interval), "note": ratio.note}
                for name, ratio in found.ratio.items()
            },
        },
        "difference": {
            **found.readings,
            "metrics": [
                {**metric.model_dump(mode="json"), "interval": ends(metric.interval)} for metric in found.metrics
            ],
        },
        "agreement": score(found.agreement) if found.agreement else None,
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
            "path": artifact.shown,
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
