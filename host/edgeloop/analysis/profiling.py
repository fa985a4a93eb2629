"""From a profile session's raw times to a time and a share for each operator."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgeloop.core.measurement import Session
from edgeloop.core.profile import OperatorTime, Profile, ProfileSamples

TAKEN_FOR_ONE = 0.9
"""Two operators that together take under this share of the sum of both are one for the runtime: it leaves work out, and
not the cost of a call alone."""


def profile_in(sessions: Sequence[Session]) -> tuple[Profile | None, str]:
    """Return the profile among one subject's sessions, and why there is none where one was asked for."""
    for session in reversed(sessions):
        if session.kind == "profile":
            if session.profile is None:
                return None, f"the profile session {session.outcome}: {session.detail}"
            return summarise_profile(session.profile), ""
    return None, ""


def summarise_profile(samples: ProfileSamples) -> Profile:
    """Return medians over rounds of the medians in each, and shares of their sum.

    Where a part of two operators takes clearly less than the parts of each, the runtime takes the two for one: the
    first then has no time of its own, the second has both.
    """
    rounds = [[float(np.median(times)) for times in part] for part in samples.times_ns]
    whole, *parts = (float(median) for median in np.median(np.array(rounds), axis=0))
    runs = np.array([[len(times) for times in part] for part in samples.times_ns]).sum(axis=0)[1:]
    operators = samples.parts.operators
    time: dict[int, float] = {operator.index: 0.0 for operator in operators}
    count: dict[int, int] = {operator.index: 0 for operator in operators}
    timed_with = {operator.index: operator.folded_into or () for operator in operators}
    for indices, median, number in zip(samples.parts.parts, parts, runs, strict=True):
        last = indices[-1]
        if len(indices) == 1:
            time[last], count[last] = median, int(number)
        elif median < TAKEN_FOR_ONE * sum(time[index] for index in indices):
            for index in indices[:-1]:
                time[index], count[index], timed_with[index] = 0.0, 0, (last,)
            time[last], count[last] = median, int(number)
    total = sum(time.values())
    return Profile(
        how=_how(total, whole, samples.outputs_equal),
        whole_ns=whole,
        sum_ns=total,
        rounds=len(rounds),
        outputs_equal=samples.outputs_equal,
        operators=tuple(
            OperatorTime(
                operator=operator,
                p50_ns=time[operator.index],
                share=time[operator.index] / total if total else 0.0,
                runs=count[operator.index],
                timed_with=timed_with[operator.index],
            )
            for operator in operators
        ),
        memory=samples.memory,
    )


def _how(total_ns: float, whole_ns: float, equal: bool) -> str:
    """In words, since a share of a sum is no share of the whole."""
    same = "are those of the whole" if equal else "are NOT quite those of the whole"
    return (
        f"operator by operator, each a model of its own on the values it gets in the whole (outputs {same}), since the "
        f"runtimes' profilers can't be reached from Python. All operators come to {total_ns / 1000:.4g} us, the whole "
        f"to {whole_ns / 1000:.4g} us, {total_ns / whole_ns:.2f} times: each call has a cost of its own, and what a "
        "runtime saves across operators is in the whole only"
    )
