"""The JSON documents that commands print: one shape for a measurement, nested by every other command."""

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


def measurement(judgement: Judgement, artifact: Artifact, *, limits_given: bool = True) -> dict[str, Any]:
    """One judged measurement. Latencies in ns, sizes in bytes; `verdict` is null where no limit was given."""
    summary = judgement.summary
    return {
        "schema": SCHEMA,
        "target": judgement.target,
        "emulated": judgement.emulated,
        **_subject(summary, artifact),
        "split": judgement.split,
        "plan": judgement.plan.model_dump(mode="json"),
        **numbers(summary),
        **_judgement(judgement, limits_given),
        "reference": numbers(judgement.reference) if judgement.reference else None,
    }


def comparison(
    judgement: Judgement, differences: Comparison, a: Artifact, b: Artifact, *, limits_given: bool
) -> dict[str, Any]:
    """B beside A: the pieces of a measurement for each, `ratio` (B over A) and `difference` (B less A)."""
    return {
        "schema": SCHEMA,
        "target": judgement.target,
        "emulated": judgement.emulated,
        "plan": judgement.plan.model_dump(mode="json"),
        "a": {**_subject(judgement.reference, a), **numbers(judgement.reference)},
        "b": {**_subject(judgement.summary, b), **numbers(judgement.summary)},
        "ratio": {
            "confidence": differences.confidence,
            "rounds": differences.rounds,
            **{
                name: {"value": ratio.value, "interval": ends(ratio.interval), "note": ratio.note}
                for name, ratio in differences.ratio.items()
            },
        },
        "difference": {
            **differences.readings,
            "metrics": [
                {**metric.model_dump(mode="json"), "interval": ends(metric.interval)} for metric in differences.metrics
            ],
        },
        "agreement": score(differences.agreement) if differences.agreement else None,
        **_judgement(judgement, limits_given),
    }


def run(entries: Sequence[Entry]) -> dict[str, Any]:
    """A whole run: every trial with its measurements, and how it ended (null while it has not)."""
    events = [entry.event for entry in entries]
    start = next((event for event in events if isinstance(event, RunStarted)), None)
    end = next((event for event in events if isinstance(event, RunFinished)), None)
    return {
        "schema": SCHEMA,
        "campaign": start.campaign_name if start else None,
        "targets": list(start.targets) if start else [],
        "versions": start.versions if start else {},
        "finished": end.model_dump(mode="json", exclude={"kind"}) if end else None,
        "spent": {"trials": entries[-1].trials_spent, "wall_s": entries[-1].wall_s_spent} if entries else None,
        "trials": [_trial(trial) for trial in fold(events)],
        "same_network": [row.document() for row in same_network(RunView.of(entries))],
    }


def _trial(trial: Trial) -> dict[str, Any]:
    build = trial.build
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
        "deployed_bytes": build.artifact.deployed_bytes if build else None,
        "why": trial.why,
        "outcome": trial.outcome.value,
        "passed": trial.passed,
        "trained": trial.training.model_dump(mode="json", exclude={"kind", "trial"}) if trial.training else None,
        "converted": build.converted if build else None,
        "parity": build.artifact.parity.model_dump(mode="json") if build and build.artifact.parity else None,
        "measurements": [measurement(j, build.on(j.target)) for j in trial.judgements] if build else [],
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
    """The delegate that was asked for, and what it took of the network's operators; null where no session told."""
    delegation = summary.delegation
    return {
        "name": summary.delegate,
        "operators": delegation.operators if delegation else None,
        "taken": delegation.taken if delegation else None,
        "taken_pct": delegation.taken_pct if delegation else None,
        "pieces": delegation.pieces if delegation else None,
    }


def _judgement(judgement: Judgement, limits_given: bool) -> dict[str, Any]:
    return {
        "environment": judgement.environment.model_dump(mode="json") if judgement.environment else None,
        "conditions": judgement.conditions.entries(),
        "trust": judgement.trust.model_dump(mode="json") if judgement.trust else None,
        "findings": [finding.model_dump(mode="json") for finding in judgement.verdict.findings],
        "verdict": judgement.verdict.outcome.value if limits_given else None,
        "rule": judgement.verdict.rule,
        "reasons": list(judgement.verdict.reasons),
    }
