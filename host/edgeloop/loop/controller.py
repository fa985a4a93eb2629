"""The loop (S701 to S706): obtain M1, measure it, then candidate after candidate until one is proven.

One controller decides and appends to the ledger. It is driven by `ask`, `carry_out` and `tell`, so that whoever holds
it owns the loop (app.study). What can fail for reasons outside the network (a board, the converter) never
becomes a move: see `Controller._confirm`.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import replace

from edgeloop.core.artifact import Artifact
from edgeloop.core.campaign import Campaign
from edgeloop.core.events import RunFinished, RunStarted, SearchMoved, Split, Trial, TrialAsked, TrialErrored
from edgeloop.core.lightening import Lightening
from edgeloop.core.network import Candidate, NetworkSpec
from edgeloop.core.verdict import Outcome
from edgeloop.errors import BuildError, EdgeloopError, HarnessError, ModelError, ParityError, UserError
from edgeloop.loop.adapters import Adapters, RunFacts
from edgeloop.loop.external_measurements import ExternalMeasurement, is_external
from edgeloop.loop.measure_and_judge import Contender, MeasurementPolicy, ReferenceOnBoard, RunOn
from edgeloop.loop.replay import EventReplay
from edgeloop.loop.run_outcome import (
    SPACE_EXHAUSTED,
    Proof,
    end_refuted,
    end_unproven,
    end_with_front,
    end_with_pass,
    end_without_pass,
    is_confirmed,
    proof_of,
    test_outcome,
)
from edgeloop.loop.train_and_build import TrainAndBuild
from edgeloop.ports import Bench, Strategy
from edgeloop.search.pareto import Front, front
from edgeloop.search.size_model import degree, predicted_bytes
from edgeloop.sentences import Argument, Sentence


class Controller:
    """Runs one campaign. A second controller over the same ledger goes on where the first one stopped."""

    def __init__(
        self,
        campaign: Campaign,
        reference: NetworkSpec,
        adapters: Adapters,
        facts: RunFacts,
        *,
        replay: EventReplay,
        policy: MeasurementPolicy,
    ) -> None:
        self._campaign = campaign
        self._m1 = reference
        self._adapters = adapters
        self._facts = facts
        self._replay = replay
        self._policy = policy
        self._references: dict[str, ReferenceOnBoard] = {}
        self._train_and_build = TrainAndBuild(campaign, reference, adapters, facts, replay, policy.on_host)
        self._strategy: Strategy | None = None
        self._open: Trial | None = None
        self._m1_is_over = False
        self._external_m1: Mapping[Split, ExternalMeasurement] = {}
        self._number = 0
        self._end: str | None = None
        """Why nothing more is asked."""

    def ask(self) -> Trial | None:
        """The next trial to carry out, M1 first (as trial 0); None where the run has come to its end.

        A trial that is asked and not told yet is asked again. Trials that an earlier controller finished are told to
        the strategy from the ledger, and not asked; M1 alone is, where it was measured on boards: carried out again,
        its measurement is read from disk. Raises UserError where the ledger is of another campaign.
        """
        self._begin()
        if self._open is None and self._end is None and self._replay.find(RunFinished, "") is None:
            self._recall_external_m1()
            self._open = self._next() if self._m1_is_over else self._ask_m1()
        return self._open

    def carry_out(self, trial: Trial) -> Trial:
        """Train, build, measure and judge the trial that was asked; return it as it then is.

        Raises UserError; BoardError and LabError leave the run resumable.
        """
        self._is_open(trial)
        if trial.role == "reference":
            self._measure_m1(trial.candidate)
        else:
            self._confirm(trial)
        return self._trial(trial.number)

    def make(self, trial: Trial) -> Artifact:
        """Train and build the trial that was asked, and measure nothing; the first target's. Raises as `carry_out`."""
        self._is_open(trial)
        return self._train_and_build.make(trial.number, trial.candidate).artifact

    def judge_external(self, trial: Trial, validation: ExternalMeasurement, test: ExternalMeasurement | None) -> Trial:
        """In place of `carry_out`: judge what the caller measured on validation data, and where a candidate is
        confirmed by that, on `test` data.

        Raises UserError for figures that can't be judged.
        """
        self._is_open(trial)
        measurements: dict[Split, ExternalMeasurement] = {"validation": validation}
        if test is not None:
            measurements["test"] = test
        first, *looks = [
            self._policy.judge_external(trial, self._beside_m1(one, split), split)
            for split, one in measurements.items()
        ]
        if trial.role == "reference":
            self._adapters.keep_external_m1(measurements)
        self._replay.append(first)
        if trial.role == "reference" or is_confirmed(self._trial(trial.number)):
            for look in looks:
                self._replay.append(look)
        if trial.role == "reference":
            self._external_m1 = measurements
            self._strategy_beside(validation.deployed_bytes)
        return self._trial(trial.number)

    def tell(self, trial: Trial) -> None:
        """Take in a trial that was carried out: the strategy learns it, and its move is written down."""
        self._is_open(trial)
        trial = self._trial(trial.number)
        if not trial.judgements and trial.error is None:
            raise UserError(f"trial {trial.number} has nothing to tell", next_step="carry it out first")
        if trial.role == "reference" and self._strategy is None:
            raise UserError("M1 was not made by this study", next_step="carry it out, or tell figures of your own")
        self._open = None
        if trial.role == "reference":
            self._m1_is_over = True
        else:
            self._learn(trial)

    def finish(self) -> RunFinished:
        """End the run, in Pareto mode after one look at test data for each network of the front.

        Raises UserError where a trial is still to be carried out.
        """
        if self.ask() is not None:
            raise UserError("the run has not come to its end", next_step="carry out and tell what `ask` returns")
        return self._replay.once(RunFinished, "", self._finish_event)

    def close(self) -> None:
        """Let go of builds that were started ahead."""
        self._train_and_build.close()

    def _beside_m1(self, figures: ExternalMeasurement, split: Split) -> ExternalMeasurement:
        """Figures with what was told of M1: its times of another hour are no pairs, its scores and bytes are."""
        m1 = self._external_m1.get(split)
        if m1 is None or figures.beside is not None:
            return figures
        return replace(figures, beside=replace(m1, sessions=()))

    def _recall_external_m1(self) -> None:
        """Go on from figures of the caller's own that an earlier controller was told of M1: it is not asked again."""
        figures = self._facts.external_m1.get("validation")
        if self._m1_is_over or figures is None or not is_external(self._ask_m1()):
            return
        self._external_m1 = self._facts.external_m1
        self._strategy_beside(figures.deployed_bytes)
        self._m1_is_over = True

    def _begin(self) -> None:
        start = self._replay.once(RunStarted, "", self._start)
        if start.campaign_key != self._facts.campaign_key:
            raise UserError(
                "the campaign, or a file it names, is not the one this run was started with",
                next_step=Sentence("start another run with {}, or put the files back", Argument("out", "DIR")),
            )

    def _is_open(self, trial: Trial) -> None:
        if self._open is None or trial.number != self._open.number:
            raise UserError(
                f"trial {trial.number} is not the one that was asked"
                + (f", which is trial {self._open.number}" if self._open is not None else "")
            )

    def _start(self) -> RunStarted:
        return RunStarted(
            run_id=secrets.token_hex(8),
            campaign_name=self._campaign.name,
            campaign_key=self._facts.campaign_key,
            versions=dict(self._facts.versions),
            targets=tuple(bench.board.name for bench in self._adapters.benches),
        )

    # S701: the reference network, as an artifact that is measured like every other

    def _ask_m1(self) -> Trial:
        reference = self._campaign.reference
        candidate = Candidate(network=self._m1, lightening=reference.lightening, **reference.setting.model_dump())
        return self._ask(0, candidate, "the reference network M1, measured as it would be deployed", None, None)

    def _measure_m1(self, candidate: Candidate) -> None:
        """Make and measure M1; what will be asked first is trained meanwhile."""
        if self._facts.first_larger is not None:
            self._train_and_build.describe(self._facts.first_larger)
        build = self._train_and_build.make(0, candidate)
        strategy = self._strategy_beside(build.artifact.deployed_bytes)
        for bench in self._adapters.benches:
            self._references[bench.board.name] = self._policy.measure_reference(
                bench,
                candidate,
                build.on(bench.board.name),
                lambda bench, work: self._train_and_build.run_on(bench, work, strategy),
            )

    def _strategy_beside(self, m1_bytes: int) -> Strategy:
        """Return the strategy, which is made once M1's own file is known."""
        if self._strategy is None:
            self._strategy = self._adapters.strategy(
                self._m1, self._train_and_build.describe(self._m1), m1_bytes, self._train_and_build.describe
            )
        return self._strategy

    # from candidate to candidate

    def _next(self) -> Trial | None:
        strategy = self._strategy_in_use
        while self._end is None:
            end = self._budget_end(self._number)
            if end is not None and self._replay.find(TrialAsked, str(self._number + 1)) is None:
                self._end = end
                break
            question = strategy.ask()
            if question is None:
                self._end = SPACE_EXHAUSTED
                break
            candidate, why = question
            trial = self._ask(self._number + 1, candidate, why, *strategy.rating(candidate))
            if self._replay.find(SearchMoved, str(trial.number)) is None:
                return trial
            self._learn(trial)
        return None

    @property
    def _strategy_in_use(self) -> Strategy:
        assert self._strategy is not None, "M1 goes before every candidate"
        return self._strategy

    def _learn(self, trial: Trial) -> None:
        direction, sentence = self._strategy_in_use.tell(trial)
        self._replay.append(SearchMoved(trial=trial.number, direction=direction, sentence=sentence))
        self._number = trial.number
        if is_confirmed(trial) and not self._campaign.search.pareto:
            self._end = f"trial {trial.number} was confirmed"

    def _budget_end(self, trials: int) -> str | None:
        budget = self._campaign.budget
        if trials >= budget.trials:
            return f"the budget of {budget.trials} trials is used up"
        if self._replay.wall_s >= budget.wall_minutes * 60:
            return f"the budget of {budget.wall_minutes:g} minutes is used up"
        return None

    def _ask(
        self, number: int, candidate: Candidate, why: str, evaluation: float | None, bytes_to_expect: int | None
    ) -> Trial:
        def make() -> TrialAsked:
            rung = Lightening.parse(candidate.lightening)
            sizes, before = self._train_and_build.sizes(candidate), self._train_and_build.describe(candidate.network)
            return TrialAsked(
                trial=number,
                role="candidate" if number else "reference",
                candidate=candidate,
                sizes=sizes,
                degree=degree(sizes, rung, before=before),
                evaluation=evaluation,
                predicted_bytes=predicted_bytes(sizes, rung) if bytes_to_expect is None else bytes_to_expect,
                why=why,
            )

        event = self._replay.once(TrialAsked, number, make)
        if event.candidate != candidate:
            raise HarnessError(
                f"ledger: trial {number} was {event.candidate}, this version would ask {candidate}",
                next_step=Sentence(
                    "resume with the version that began the run, or start another with {}", Argument("out", "DIR")
                ),
            )
        return self._trial(number)

    def _confirm(self, trial: Trial) -> None:
        """Train, build, measure, judge; without a front to wait for, the look at test data too.

        An error of the harness or the model closes the trial, not the run. What closed a trial stands: a resumed run
        does not try it again.
        """
        number, candidate = trial.number, trial.candidate
        if any(bench.board.name not in self._references for bench in self._adapters.benches):
            raise UserError(
                "M1 was not measured on the boards", next_step="carry out trial 0, or tell figures of your own"
            )
        if self._replay.find(TrialErrored, str(number)) is not None:
            return
        try:
            contender = Contender(number, candidate, self._train_and_build.make(number, candidate))
            outcome = self._policy.confirm(contender, *self._where())
            if outcome is Outcome.PASS and not self._campaign.search.pareto:
                self._policy.prove(contender, *self._where())
        except (HarnessError, ModelError) as error:
            stage = "parity" if isinstance(error, ParityError) else "build" if isinstance(error, BuildError) else None
            self._close_with_error(number, error, stage)

    def _where(self) -> tuple[Mapping[str, ReferenceOnBoard], Sequence[Bench], RunOn]:
        """M1 on each board, the boards, and how a measurement is carried out on one."""
        return (
            self._references,
            self._adapters.benches,
            lambda bench, work: self._train_and_build.run_on(bench, work, self._strategy_in_use),
        )

    def _close_with_error(self, number: int, error: EdgeloopError, stage: str | None) -> None:
        trial = self._trial(number)
        last_stage = stage or ("train" if trial.training is None else "build" if trial.build is None else "measure")
        self._replay.append(
            TrialErrored.model_validate(
                {"trial": number, "stage": last_stage, "owner": error.owner, "message": "; ".join(error.lines())}
            )
        )

    # S706: the end

    def _trial(self, number: int) -> Trial:
        return next(trial for trial in self._replay.trials() if trial.number == number)

    def _finish_event(self) -> RunFinished:
        trials, why = self._replay.trials(), self._end or SPACE_EXHAUSTED
        if self._campaign.search.pareto:
            candidates = [t for t in trials if t.role == "candidate" and is_confirmed(t)]
            networks = front(candidates, self._campaign.limits, self._facts.lower_is_better)
            return self._prove_front(networks, why) if networks.places else end_without_pass(trials, why)
        last = self._trial(self._number)
        match proof_of(last):
            case Proof.PROVEN:
                return end_with_pass(last, ", ".join(bench.board.name for bench in self._adapters.benches))
            case Proof.REFUTED:
                return end_refuted(last)
            case Proof.OPEN:
                return end_unproven(last) if is_confirmed(last) else end_without_pass(trials, why)

    def _prove_front(self, networks: Front, why: str) -> RunFinished:
        """Look at test data once for every network of the front; no look changes what is on it."""
        for number in networks.places:
            trial = self._trial(number)
            if trial.error is not None or is_external(trial):
                continue
            assert trial.build is not None, "what was confirmed on a board was built"
            contender = Contender(number, trial.candidate, trial.build)
            try:
                self._policy.prove(contender, *self._where(), among=len(networks.places))
            except (HarnessError, ModelError) as error:
                self._close_with_error(number, error, "measure")
        trials = self._replay.trials()
        return end_with_front(
            networks, {number: test_outcome(self._trial(number)) for number in networks.places}, trials, why
        )
