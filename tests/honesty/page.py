"""The page that the proof of honesty writes: Markdown, from cells alone."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Sequence
from importlib import metadata

from edgeloop.analysis.spread import Rule
from honesty.noise import NOISES, Noise
from honesty.scores import ScoreCell
from honesty.times import KINDS, SETTINGS, SHORTEST, STATISTICS, Cell, Setting, is_broken, why_not

_HEAD = """# False passes and false fails

Written by `make honesty`; edit nothing here. The same table comes from

    PYTHONPATH=tests python -m honesty --trials {trials} --seed {seed} --rule {rule}

with Python {python}, numpy {numpy}, scipy {scipy}, edgeloop {edgeloop}.

How often does a network that lies **exactly on its limit** pass, and how often does it fail? It should do neither more
often than the nominal 5 %. Equal is not a pass, so every PASS here is a false pass; a truth a hair's breadth inside the
limit gives the same sessions, so every FAIL is a false fail. Each cell is

    false passes % [95 % interval] / false fails % [95 % interval]

of {trials} simulated measurements, decided by the functions that judge a real one (`analysis.spread`,
`analysis.percentiles`, `analysis.decision`, `analysis.accuracy`), rule **{rule}**. In bold: over 5 % by more than the
number of trials explains. A cell that must not be and is, is simulated again, once, with four times the
trials and another seed (its interval is then half as wide); the second result stands.

**Truth.** Every board has a percentile of its own in each session: that of infinitely many samples of the session. The
truth is the geometric mean of these over all sessions that could have been run: with modes of sessions, over both modes
by their shares; under a drift, over the time in which the sessions of the verdict ran; in the rows named so, over the
time of both looks, or all time. The estimate is of finite samples and few sessions, so what percentiles of few samples
are biased by counts as an error.

**Looks.** `one look` at the full error, as `measure` does; `two looks` at half the error each, as many sessions again
where the first is inconclusive, as campaigns and `measure --extend` do. `ratio`: one look at candidate over reference,
interleaved, paired by rounds; it is also how often `compare` calls a model slower, or faster, than itself (A/A).
"""

_NOISES = """
## Noise

A session is a fresh process and adds something of its own. The simulated network takes 4 ms, back to back.

| noise | what it is |
| --- | --- |
"""

_SHORTEST = """
The fewest samples that a percentile may be passed with: 5 for p50, 29 for p90, 299 for p99. Where bursts last as long
as such a session, its percentile is that of one burst, and no rule can tell."""


def page(cells: Sequence[Cell], scores: Sequence[ScoreCell], *, trials: int, seed: int, rule: Rule) -> str:
    """Return the whole page."""
    head = _HEAD.format(
        trials=trials,
        seed=seed,
        rule=rule.name,
        python=platform.python_version(),
        numpy=metadata.version("numpy"),
        scipy=metadata.version("scipy"),
        edgeloop=metadata.version("edgeloop"),
    )
    parts = [head, *_verdict(cells, scores), _NOISES + "\n".join(f"| {n.name} | {n.words} |" for n in NOISES), ""]
    for setting in SETTINGS:
        parts += _of_setting(setting, [cell for cell in cells if cell.setting == setting.name])
    parts += _of_scores(scores)
    return "\n".join(parts).rstrip() + "\n"


def _verdict(cells: Sequence[Cell], scores: Sequence[ScoreCell]) -> Iterator[str]:
    over = [cell for cell in cells if is_broken(cell)]
    yield "\n## In short\n"
    if over:
        yield "Over 5 % where they must not be:\n"
        yield from (f"- {c.setting}, {c.noise}, {c.kind}, {c.statistic}: {c.passes} / {c.fails}" for c in over)
    else:
        yield "No cell that is promised is over 5 % beyond its interval. **Not promised**, and why:"
    yield ""
    for noise in NOISES:
        for why, settings in _reasons(noise).items():
            group = [c for c in cells if c.noise == noise.name and c.setting in settings and c.kind != "ratio"]
            worst = max((max(c.passes.share, c.fails.share) for c in group), default=0.0)
            where = "" if len(settings) == len(SETTINGS) else f" under {', '.join(settings)}"
            yield f"- `{noise.name}`{where}, absolute limits, up to {worst:.0%}: {why}."
    for what in dict.fromkeys(cell.what for cell in scores if cell.note):
        of_what = [cell for cell in scores if cell.what == what]
        worst = max(max(cell.passes.share, cell.fails.share) for cell in of_what)
        yield f"- a mean over {what}, up to {worst:.0%}: {of_what[0].note}."


def _reasons(noise: Noise) -> dict[str, list[str]]:
    """Why a noise is not promised, with the settings that it is so for."""
    reasons: dict[str, list[str]] = {}
    for setting in SETTINGS:
        if why := why_not(noise, setting, "one look"):
            reasons.setdefault(why, []).append(setting.name)
    return reasons


def _of_setting(setting: Setting, cells: Sequence[Cell]) -> Iterator[str]:
    yield f"\n## {setting.name}\n"
    samples = sorted(set(setting.samples.values()))
    many = ", ".join(map(str, samples)) + (" samples each" if len(samples) == 1 else " samples each, by percentile")
    yield f"{setting.sessions} sessions, {many}."
    if setting.name == "quick":
        yield "A quick plan steers a search and passes nothing; what it *would* pass is shown. Its fails count."
    if setting is SHORTEST:
        yield _SHORTEST
    for kind in KINDS:
        yield f"\n**{kind}**\n"
        yield "| noise | " + " | ".join(STATISTICS) + " |"
        yield "| --- |" + " --- |" * len(STATISTICS)
        for noise in NOISES:
            row = [c for c in cells if c.noise == noise.name and c.kind == kind]
            yield f"| {noise.name} | " + " | ".join(f"{c.passes} / {c.fails}" for c in row) + " |"
    yield ""


def _of_scores(cells: Sequence[ScoreCell]) -> Iterator[str]:
    yield "\n## Scores\n"
    yield (
        "One look. Shares by the wider of Wilson's bound and the exact one, drops by Tango's with half a sample of "
        "correction, means by the BCa bootstrap."
    )
    yield "\n| limit | truth | samples | false passes / false fails |\n| --- | --- | --- | --- |"
    for cell in cells:
        yield f"| {cell.kind} | {cell.what} | {cell.n:,} | {cell.passes} / {cell.fails} |"
