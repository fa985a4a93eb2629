"""The display of a run on stderr: a live line where there is a terminal, plain lines where there is none."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.text import Text

from edgeloop.core.campaign import Budget
from edgeloop.core.events import ArtifactBuilt, Entry, Judgement, NetworkTrained, SearchMoved, TrialAsked, TrialErrored
from edgeloop.core.verdict import Outcome
from edgeloop.ports import Progress

_STYLE = {Outcome.PASS: "green", Outcome.FAIL: "red", Outcome.INCONCLUSIVE: "yellow"}


class Waits:
    """Finds where a waiting begins, or a tuning: without a terminal, that is worth a line; that it goes on is not."""

    def __init__(self) -> None:
        self._waiting = False

    def begins(self, progress: Progress) -> bool:
        before, self._waiting = self._waiting, progress.activity.is_worth_a_line
        return self._waiting and not before


class Display:
    """ports.Observer on a console."""

    def __init__(self, console: Console, budget: Budget) -> None:
        self._console = console
        self._budget = budget
        self._live = Live(console=console, transient=True, auto_refresh=False) if console.is_terminal else None
        self._trials = 0
        self._wall_s = 0.0
        self._since = time.monotonic()
        self._stage = "reading"
        self._step = ""
        self._waits = Waits()

    def __enter__(self) -> Self:
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()

    def stage(self, trial: int, what: str) -> None:
        self._stage = f"{'M1' if trial == 0 else f'trial {trial}'}: {what}"
        self._step = ""
        if self._live is None:
            self._line(Text(self._stage))
        self._refresh()

    def progress(self, progress: Progress) -> None:
        share = f"{progress.done / progress.total:4.0%}" if progress.total else ""
        self._step = f"{progress.text} {share}"
        if self._waits.begins(progress) and self._live is None:
            self._line(Text(f"  {progress.text}"))
        self._refresh()

    def entry(self, entry: Entry) -> None:
        self._trials, self._wall_s = entry.trials_spent, entry.wall_s_spent
        self._since = time.monotonic()
        match entry.event:
            case TrialAsked(trial=trial, candidate=candidate, why=why):
                self._line(Text(f"{'M1' if trial == 0 else f'trial {trial}'}  {candidate}: {why}", style="bold"))
            case NetworkTrained(
                seconds=seconds, validation=validation, lightened=lightened, ahead=ahead, phases=phases
            ):
                figures = ", ".join(f"{k} {v:.4f}" for k, v in (lightened or validation).items())
                when = "ahead" if ahead else f"in {seconds:.1f} s"
                verb = "trained" if any(phase.epochs for phase in phases) or lightened else "evaluated"
                self._line(Text(f"  {verb} {when}: {figures} on validation data"))
                for phase in phases:
                    if phase.note is not None:
                        self._line(Text(f"  {phase.what}: {phase.note}", style="dim"))
            case ArtifactBuilt(artifact=artifact, seconds=seconds):
                agreement = f", agreement {artifact.parity.agreement:.4f}" if artifact.parity else ""
                self._line(Text(f"  built in {seconds:.1f} s: {artifact.deployed_bytes} bytes{agreement}"))
            case Judgement(verdict=verdict, plan=plan, split=split, target=target, look=look):
                extension = ", extended" if look > 1 else ""
                line = Text(f"  measured on {target} ({plan.profile}, {split}{extension}): ")
                line.append(verdict.outcome.value, style=_STYLE.get(verdict.outcome, "magenta"))
                self._line(line)
                for finding in verdict.findings:
                    self._line(Text(f"    {finding.outcome.value}  {finding.text}: {finding.reason}", style="dim"))
                for reason in verdict.reasons:
                    self._line(Text(f"    {reason}", style="dim"))
            case TrialErrored(stage=stage, owner=owner, message=message):
                self._line(Text(f"  ERROR while {stage} ({owner.value}): {message}", style="magenta"))
            case SearchMoved(sentence=sentence):
                self._line(Text(f"  -> {sentence}", style="cyan"))
            case _:
                pass
        self._refresh()

    def _line(self, text: Text) -> None:
        self._console.print(text, soft_wrap=True, highlight=False)

    def _refresh(self) -> None:
        if self._live is None:
            return
        minutes = max(0.0, self._budget.wall_minutes - (self._wall_s + time.monotonic() - self._since) / 60)
        trials = max(0, self._budget.trials - self._trials)
        text = Text(f"{self._stage}  {self._step}  ", style="bold", no_wrap=True, overflow="ellipsis")
        text.append(f"left: {trials} trials, {minutes:.0f} min", style="dim")
        self._live.update(text, refresh=True)
