"""The words of the command line for the arguments of a request: the one place that knows how an option is spelled."""

from __future__ import annotations

from dataclasses import replace

from edgeloop.errors import Fault
from edgeloop.sentences import Argument, spelled_by

OPTIONS = {
    "a": "A",
    "allow_emulated": "--allow-emulated",
    "arch": "--arch",
    "b": "B",
    "campaign": "CAMPAIGN.toml",
    "cpu": "--cpu",
    "data": "--data",
    "delegate": "--delegate",
    "delegate_b": "--delegate-b",
    "energy": "--energy",
    "engine": "--engine",
    "engine_b": "--engine-b",
    "environment": "--environment",
    "extend": "--extend",
    "identity_file": "--identity-file",
    "limits": "--limit",
    "memory_mib": "--memory",
    "mirror": "--mirror",
    "model": "MODEL",
    "out": "--out",
    "per_op": "--per-op",
    "plan.period_ms": "--period-ms",
    "plan.pipeline": "--pipeline",
    "plan.profile": "--profile",
    "plan.runs_min": "--runs-min",
    "plan.seed": "--seed",
    "plan.sessions": "--sessions",
    "plan.time_s_min": "--time-s-min",
    "plan.timing": "--timing",
    "resume": "--resume",
    "shapes": "--shape",
    "statistic": "--statistic",
    "target": "--target",
    "targets": "--target",
    "threads": "--threads",
    "threads_b": "--threads-b",
    "worse_by_min_pct": "--worse-by-min-pct",
}
"""By the argument's path, as a Python caller names it."""


def spell(argument: Argument) -> str:
    """Return an argument as the command line has it, with what to give it: `--engine exec`."""
    option = OPTIONS.get(argument.path, argument.path)
    if argument.value is None or argument.value is True:
        return option
    values = argument.value if isinstance(argument.value, list | tuple) else [argument.value]
    return " ".join(f"{option} {value}" for value in values)


def in_words(fault: Fault) -> Fault:
    """Return a fault in the command line's words."""
    step = fault.next_step
    return replace(
        fault,
        where=spelled_by(spell, fault.where),
        what=spelled_by(spell, fault.what),
        next_step=None if step is None else spelled_by(spell, step),
    )
